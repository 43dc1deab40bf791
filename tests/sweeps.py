"""Sweeps for tests: their specifications and results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from search.spec.loading import load_spec
from search.spec.schema import StudySpec
from search.study.run_folder import Run
from search.study.store import StudyStore
from search.trial.load_result import LoadResult
from search.trial.request import TrialOrigin
from search.trial.result import TrialState
from tests.results import result_for
from tests.specifications import make_model_files, write_spec

LOADS = [
    {"kind": "burst", "requests": 100},
    {"kind": "serial", "requests": 5},
    {"kind": "interval", "interval_ms": 20, "duration_s": 2},
    {"kind": "closed", "users": 4, "duration_s": 1},
    {"kind": "sustained"},
]


def sweep_spec(folder: Path, **sections: Any) -> StudySpec:
    """Write and load study.yaml of a sweep: 4 points, 3 repeats; `sections` override it."""
    make_model_files(folder)
    sections = {
        "space": {"workers": 1, "batch_size": [8, 16], "max_batch_delay_ms": [50, 100]},
        "sweep": {"loads": LOADS, "repeats": 3},
        "output": {"folder": str(folder / "runs")},
        **sections,
    }
    return load_spec(write_spec(folder, **sections))


def burst_result(completion_s: float) -> LoadResult:
    """Return the result of a burst that answered all 100 requests."""
    return LoadResult(
        "100 requests at once",
        "burst",
        scheduled=100,
        sent=100,
        answered=100,
        success_rate=1.0,
        completion_s=completion_s,
        mean_latency_s=completion_s / 2,
    )


def measure_sweep(run: Run, store: StudyStore, limit: int = 100) -> None:
    """Record results for up to `limit` trials; batch size 16 with delay 50 ms is fastest."""
    repeats: Counter[str] = Counter()
    while limit and (asked := store.ask()):
        limit -= 1
        trial, request = asked
        assert request.origin is TrialOrigin.SWEEP and request.incumbent_rps is None
        repeat = repeats[request.config.digest]
        repeats[request.config.digest] += 1
        is_fast = request.config.batch_size == 16 and request.config.max_batch_delay_ms == 50
        load = burst_result((2.0 if is_fast else 4.0) + 0.1 * repeat)
        result = result_for(request, state=TrialState.COMPLETE, loads=(load,))
        store.tell(trial, result)
        run.append(result)
