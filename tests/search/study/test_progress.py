"""Plain words about what a run tries and knows."""

import pytest

from search.study.progress import so_far, trying
from search.trial.objective import Objective
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult
from serving.configuration.config import ServerConfig
from serving.metrics import HandlerTime
from tests.results import trial_result
from tests.stores import SPACE

BEST = ServerConfig(workers=2, batch_size=32, max_batch_delay_ms=50, netty_threads=4)


def sampled(**settings: int) -> TrialRequest:
    changed = ServerConfig(**{**BEST.to_dict(), **settings})
    return TrialRequest(5, TrialOrigin.SAMPLED, changed)


def best_with(busy_workers: float) -> list[TrialResult]:
    times = (HandlerTime(20.0, busy_workers, 0.2),)
    return [trial_result(1, 100.0, BEST, workers_ready=2, handler_times=times)]


@pytest.mark.parametrize(
    ("busy_workers", "settings", "text"),
    [
        (
            1.0,
            {"netty_threads": 8},
            "the front end looks like the limit: trying more netty threads",
        ),
        (
            1.0,
            {"netty_threads": 8, "batch_size": 512},
            "trying more netty threads (4 → 8) and larger",
        ),
        (
            1.0,
            {"max_batch_delay_ms": 5},
            "workers wait for their batches: trying a shorter batch delay",
        ),
        (
            1.0,
            {"workers": 1},
            "the workers of the best configuration are not always busy: trying fewer workers (2 → 1)",
        ),
        (2.0, {"workers": 3}, "are busy all the time: trying more workers (2 → 3)"),
        (2.0, {}, "trying other settings of other models"),
    ],
)
def test_trying_names_the_limit_and_the_changes(
    busy_workers: float, settings: dict[str, int], text: str
) -> None:
    assert text in trying(sampled(**settings), best_with(busy_workers), SPACE)


def test_trying_without_telemetry_names_the_changes_alone() -> None:
    results = [trial_result(1, 100.0, BEST)]
    assert trying(sampled(batch_size=64), results, SPACE) == "trying larger batches (32 → 64)"
    assert "none has served" in trying(sampled(), [], SPACE)


@pytest.mark.parametrize("origin", [o for o in TrialOrigin if o is not TrialOrigin.SAMPLED])
def test_trying_has_a_reason_for_every_origin(origin: TrialOrigin) -> None:
    assert trying(TrialRequest(0, origin, ServerConfig()), [], SPACE)


def test_so_far_compares_the_best_with_the_reference() -> None:
    default = trial_result(0, 3.75, ServerConfig(), origin=TrialOrigin.DEFAULT)
    assert so_far([]) is None
    assert so_far([default]) == "3.8 rps"
    assert so_far([default, trial_result(1, 150.0, BEST)]) == "150 rps, 40 times the default"
    baseline = trial_result(2, 100.0, ServerConfig(workers=1), origin=TrialOrigin.BASELINE)
    text = so_far([default, baseline, trial_result(1, 150.0, BEST)])
    assert text == "150 rps, 1.5 times the baseline"


def test_progress_speaks_of_the_best_by_the_objective() -> None:
    small = Objective("footprint", for_rps=50.0, required_rps=70.0)
    results = [
        trial_result(0, 60.0, ServerConfig(), TrialOrigin.DEFAULT, peak_memory_mb=900),
        trial_result(1, 300.0, ServerConfig(workers=4, batch_size=32), peak_memory_mb=3000),
        trial_result(2, 90.0, BEST, peak_memory_mb=600, workers_ready=2),
    ]
    assert so_far(results) == "300 rps, 5 times the default"
    assert so_far(results, small) == "90 rps, 1.5 times the default"
    assert "(2 → 3)" in trying(sampled(workers=3), results, SPACE, small)
