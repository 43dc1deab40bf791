"""The finished trials of the runs of many jobs."""

from __future__ import annotations

from pathlib import Path

from search.service.bounded_cache import BoundedCache
from search.study.run_folder import ResultReader, Run
from search.trial.result import TrialResult

#: Number of runs whose trials are kept.
_MAX_RUNS = 50


class RunResults:
    """Reads the finished trials of runs, and caches those of the last ones. Not thread-safe."""

    def __init__(self, max_runs: int = _MAX_RUNS):
        self._readers: BoundedCache[Path, ResultReader] = BoundedCache(max_runs)

    def read(self, run: Run | None) -> list[TrialResult]:
        """Return the finished trials of a run."""
        if run is None:
            return []
        reader = self._readers.get(run.folder)
        return (reader or self._readers.put(run.folder, ResultReader(run))).read()
