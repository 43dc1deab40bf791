"""Durations as a mergeable histogram of bounded memory and relative error."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

_LONGEST_US = 3_600_000_000
_DIGITS = 3


class Histogram:
    """Durations in seconds, kept to 3 significant digits from 1 µs to an hour (HdrHistogram)."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(1, _LONGEST_US, _DIGITS)

    def record(self, seconds: float, times: int = 1) -> None:
        """Count a duration; one outside the range counts at its edge."""
        self._counts.record_value(_us(seconds), times)

    def record_all(self, seconds: npt.NDArray[np.float64]) -> None:
        """Count many durations, a hundred times as fast as one by one."""
        if not len(seconds):
            return
        counts = self._counts
        us = np.rint(seconds * 1e6).clip(1, _LONGEST_US).astype(np.int64)
        # The library's _counts_index_for, for all values at once.
        bits = np.frexp(us | counts.sub_bucket_mask)[1]
        bucket = bits - counts.sub_bucket_half_count_magnitude - 1
        index = (bucket << counts.sub_bucket_half_count_magnitude) + (us >> bucket)
        all_counts = self._array()
        all_counts += np.bincount(index, minlength=len(all_counts))
        counts.total_count += len(us)
        counts.min_value = min(counts.min_value, int(us.min()))
        counts.max_value = max(counts.max_value, int(us.max()))

    def add(self, other: Histogram) -> None:
        """Add the counts of another histogram."""
        self._counts.add(other._counts)

    def __len__(self) -> int:
        return int(self._counts.get_total_count())

    def quantile(self, q: float) -> float | None:
        """Return the duration that a share `q` of them does not exceed, seconds; None if empty."""
        if not len(self):
            return None
        # The library's own lookup walks all 23,552 counts in Python, which would delay sends.
        rank = max(1, int(q * len(self) + 0.5))
        index = int(np.searchsorted(np.cumsum(self._array()), rank))
        value = self._counts.get_value_from_index(index)
        return float(self._counts.get_highest_equivalent_value(value)) / 1e6

    def count_above(self, seconds: float) -> int:
        """Return the number of durations longer than `seconds`."""
        index = self._counts._counts_index_for(_us(seconds))
        return int(self._array()[index + 1 :].sum())

    def mean(self) -> float | None:
        """Return the mean duration, seconds; None if empty."""
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
        """Return HdrHistogram's compressed V2 form, base64."""
        return bytes(self._counts.encode()).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` returned."""
        histogram = cls()
        histogram._counts.decode_and_add(text.encode())
        return histogram

    @classmethod
    def _from_counts(cls, indices: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Self:
        histogram = cls()
        if len(indices):
            inner = histogram._counts
            np.frombuffer(inner.counts, np.int64)[indices] = counts
            inner.total_count = int(counts.sum())
            inner.min_value = inner.get_value_from_index(int(indices[0]))
            inner.max_value = inner.get_highest_equivalent_value(
                inner.get_value_from_index(int(indices[-1]))
            )
        return histogram

    def __reduce__(self) -> tuple[Any, ...]:
        # Twenty times as fast as `encode`: histograms are sent while requests are.
        indices = np.nonzero(self._array())[0]
        return Histogram._from_counts, (indices, self._array()[indices])


def _us(seconds: float) -> int:
    return min(max(round(seconds * 1e6), 1), _LONGEST_US)
