"""Durations as a mergeable histogram of bounded memory and relative error."""

from __future__ import annotations

from array import array
from itertools import repeat
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

_LONGEST_US = 3_600_000_000
_DIGITS = 3
#: Recorded durations are counted this many at a time: one by one takes ten times as long.
_PENDING = 4096


class Histogram:
    """Durations in seconds, kept to 3 significant digits from 1 µs to an hour (HdrHistogram)."""

    def __init__(self) -> None:
        self._counted = HdrHistogram(1, _LONGEST_US, _DIGITS)
        self._pending = array("d")

    def record(self, seconds: float, times: int = 1) -> None:
        """Count a duration; what lies outside the range counts at its edge."""
        if times == 1:
            self._pending.append(seconds)
        else:
            self._pending.extend(repeat(seconds, times))
        if len(self._pending) >= _PENDING:
            self._count()

    def _count(self) -> None:
        counted = self._counted
        us = np.rint(np.array(self._pending) * 1e6).clip(1, _LONGEST_US).astype(np.int64)
        self._pending = array("d")
        # HdrHistogram's own index of a value (its _counts_index_for), of all at once.
        bucket = np.frexp(us | counted.sub_bucket_mask)[1] - counted.sub_bucket_count.bit_length()
        bucket += 1
        index = (bucket << counted.sub_bucket_half_count_magnitude) + (us >> bucket)
        array_ = np.frombuffer(counted.counts, np.int64)
        array_ += np.bincount(index, minlength=len(array_))
        counted.total_count += len(us)
        counted.min_value = min(counted.min_value, int(us.min()))
        counted.max_value = max(counted.max_value, int(us.max()))

    @property
    def _counts(self) -> HdrHistogram:
        if self._pending:
            self._count()
        return self._counted

    def add(self, other: Histogram) -> None:
        """Count everything that the other has counted."""
        self._counts.add(other._counts)

    def __len__(self) -> int:
        return int(self._counted.get_total_count()) + len(self._pending)

    def quantile(self, q: float) -> float | None:
        """The duration below which a share q of them lies, seconds; None where none was counted."""
        if not len(self):
            return None
        # The library's own look-up walks all 23,552 counts in Python, too long between sends.
        wanted = max(1, int(q * len(self) + 0.5))
        index = int(np.searchsorted(np.cumsum(self._array()), wanted))
        value = self._counts.get_value_from_index(index)
        return float(self._counts.get_highest_equivalent_value(value)) / 1e6

    def mean(self) -> float | None:
        """Seconds; None where none was counted."""
        if not len(self):
            return None
        counts = self._array()
        used = np.nonzero(counts)[0].tolist()
        upper = self._counts.get_highest_equivalent_value
        values = [upper(self._counts.get_value_from_index(index)) for index in used]
        return float(counts[used] @ np.array(values) / len(self)) / 1e6

    def _array(self) -> npt.NDArray[np.int64]:
        return np.frombuffer(self._counts.counts, np.int64)

    def encode(self) -> str:
        """HdrHistogram's compressed V2 form, base64."""
        return bytes(self._counts.encode()).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """The inverse of `encode`."""
        histogram = cls()
        histogram._counts.decode_and_add(text.encode())
        return histogram

    def __reduce__(self) -> tuple[Any, ...]:
        return Histogram.decode, (self.encode(),)
