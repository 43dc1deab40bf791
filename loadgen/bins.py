"""Counts of events in equal bins of time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadgen.measurement import BIN_S, Counts

_FIRST_BINS = 1024


class Bins:
    """Counts events in bins of BIN_S; grows with the last event.

    Args:
        duration_s: later events are not counted. It may be hours longer than the window lasts.
    """

    def __init__(self, duration_s: float):
        self._limit = int((duration_s + BIN_S) / BIN_S) + 1
        self._counts = np.zeros(min(self._limit, _FIRST_BINS), np.int64)

    def add(self, at_s: npt.NDArray[np.float64]) -> None:
        """Count events at these times, seconds from the start."""
        index = (at_s / BIN_S).astype(np.int64)
        index = index[index < self._limit]
        if len(index) and (last := int(index.max())) >= len(self._counts):
            self._grow(last + 1)
        self._counts += np.bincount(index, minlength=len(self._counts))

    def add_one(self, at_s: float) -> None:
        """Count one event."""
        index = int(at_s / BIN_S)
        if index < self._limit:
            if index >= len(self._counts):
                self._grow(index + 1)
            self._counts[index] += 1

    def counts(self, until_s: float) -> Counts:
        """Return a copy of the counts, at least up to a time and at most up to the duration."""
        needed = min(int((until_s + BIN_S) / BIN_S) + 1, self._limit)
        return np.pad(self._counts, (0, max(needed - len(self._counts), 0)))

    def _grow(self, needed: int) -> None:
        size = min(max(needed, 2 * len(self._counts)), self._limit)
        self._counts = np.pad(self._counts, (0, size - len(self._counts)))
