"""Which probes a trial makes, what they teach, and when a kind is distrusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from loadgen.rate.estimate import Estimate
from search.sampler.probing import (
    distrusted_kinds,
    known_observations,
    plan_probes,
    probe_observations,
)
from search.spec.dimension import Dimension
from search.spec.space import Space
from search.spec.space_building import build_space
from search.trial.result import TrialResult, TrialState
from search.trial.server_probe import ProbeKind, ServerProbeRecord
from serving.configuration.config import ServerConfig
from serving.metrics import HandlerTime
from tests.results import trial_result

SPACE = build_space({}, 8)
Gains = Callable[[Sequence[ServerConfig]], list[float]]


def config(workers: int, batch_size: int = 16) -> ServerConfig:
    return SPACE.config(
        {**SPACE.nearest_point(), "workers": workers, "batch_size": batch_size, "mkl_threads": 1}
    )


def always(gain: float) -> Gains:
    """The same gain by every configuration."""
    return lambda configs: [gain] * len(configs)


EQUAL = always(0.2)


def record(
    workers: int = 4,
    batch_size: int = 16,
    rps: float | None = 100.0,
    kind: ProbeKind = ProbeKind.WORKERS,
    error: float = 0.05,
) -> ServerProbeRecord:
    capacity = Estimate(rps, rps * (1 - error), rps * (1 + error), 2.0) if rps else None
    return ServerProbeRecord(kind, workers, batch_size, capacity)


def trial(number: int, setting: ServerConfig, *probes: ServerProbeRecord) -> TrialResult:
    return trial_result(number, 95.0, setting, capacity_rps=100.0, server_probes=probes)


def plan(
    setting: ServerConfig,
    *results: TrialResult,
    gains: Gains = EQUAL,
    space: Space = SPACE,
) -> list[tuple[str, int, int]]:
    probes = plan_probes(space, setting, results, gains)
    return [(p.kind.value, p.workers, p.batch_size) for p in probes]


def test_plan_probes_halves_the_workers_of_the_first_server_and_leaves_one() -> None:
    assert plan(config(8)) == [("fewer workers", 4, 16), ("fewer workers", 1, 16)]
    assert plan(config(2)) == [("fewer workers", 1, 16)]


def test_plan_probes_is_empty_without_workers_to_stop() -> None:
    assert plan(config(1)) == []
    fixed = build_space({"workers": 4}, 8)
    assert plan(fixed.config(fixed.nearest_point()), space=fixed) == []


def test_plan_probes_leaves_out_what_was_measured_or_probed() -> None:
    first = trial(0, config(8), record(4), record(1))
    again = plan(config(8), first)
    # Full batches of one worker come again, because smaller ones are compared with them.
    assert again and not {(4, 16), (8, 16)} & {entry[1:] for entry in again}
    fresh = trial(1, config(2))
    assert ("fewer workers", 2, 16) not in plan(config(8), first, fresh)


@pytest.mark.parametrize(
    ("own", "probed", "count"),
    [
        pytest.param(0.001, 0.002, 0, id="too little"),
        pytest.param(0.5, 0.1, 0, id="far less than the trial itself"),
        pytest.param(0.5, 0.4, 3, id="about as much"),
        pytest.param(0.0, 0.02, 3, id="the incumbent again"),
        pytest.param(math.inf, math.inf, 3, id="before the first success"),
    ],
)
def test_plan_probes_compares_what_probes_and_the_trial_may_gain(
    own: float, probed: float, count: int
) -> None:
    first = trial(0, config(4), record(2))

    def gains(configs: Sequence[ServerConfig]) -> list[float]:
        # Only small batches of one worker promise anything.
        return [own, *(probed if c.batch_size != 16 else 0.0 for c in configs[1:])]

    assert len(plan(config(8), first, gains=gains)) == count


def test_plan_probes_adds_full_batches_before_smaller_ones() -> None:
    """Smaller batches are compared with full ones of the same worker."""
    first = trial(0, config(2), record(1))
    high = {(1, 8): 0.9, (1, 4): 0.8, (8, 16): 0.3}

    def gains(configs: Sequence[ServerConfig]) -> list[float]:
        return [high.get((c.workers or 0, c.batch_size or 0), 0.2) for c in configs]

    assert plan(config(8), first, gains=gains) == [
        ("fewer workers", 1, 16),
        ("smaller batches", 1, 8),
        ("smaller batches", 1, 4),
    ]


def test_plan_probes_takes_only_choices_of_the_space() -> None:
    axes = {"workers": (2, 3, 8), "batch_size": (4, 16)}
    space = Space(tuple(Dimension(n, choices=a) for n, a in axes.items()), ServerConfig(), 8)
    setting = space.config({"workers": 8, "batch_size": 16})
    assert plan(setting, space=space) == [("fewer workers", 2, 16)]


def test_probe_observations_have_their_own_noise_and_are_no_trials() -> None:
    results = [trial(0, config(8), record(4, rps=80.0), record(1, rps=30.0, error=0.3))]
    own, exact, noisy = known_observations(results, SPACE)
    assert own.is_own and not exact.is_own and not noisy.is_own
    assert (exact.point["workers"], exact.point["batch_size"]) == (4, 16)
    assert exact.rate_rps == pytest.approx(80 * 0.95), "the share of the capacity that is sustained"
    assert noisy.extra_sd > exact.extra_sd > 0


def test_probe_observations_leave_out_probes_without_a_result() -> None:
    failed = ServerProbeRecord(ProbeKind.WORKERS, 4, 16, problem="3 of 90 requests failed")
    lost = trial_result(1, None, config(6), host_fault=True, server_probes=(record(3),))
    assert probe_observations([trial(0, config(8), failed), lost], SPACE) == []


def test_probe_observations_hold_the_handler_time() -> None:
    time = HandlerTime(4.0, 1.0, 0.1)
    probe = ServerProbeRecord(ProbeKind.BATCH, 1, 4, Estimate(35.0, 34.0, 36.0, 2.0), time)
    (observation,) = probe_observations([trial(0, config(8), probe)], SPACE)
    assert observation.telemetry.handler_times == (time,)
    assert (observation.point["workers"], observation.point["batch_size"]) == (1, 4)


def fresh(number: int, workers: int, capacity_rps: float, **figures: object) -> TrialResult:
    return trial_result(
        number, 0.95 * capacity_rps, config(workers), capacity_rps=capacity_rps, **figures
    )


def test_distrusted_kinds_differ_from_later_fresh_servers_beyond_the_noise() -> None:
    probed = trial(0, config(8), record(4, rps=100.0))
    assert distrusted_kinds([probed, fresh(1, 4, 115.0)], SPACE) == {}
    found = distrusted_kinds([probed, fresh(1, 4, 150.0)], SPACE)
    assert set(found) == {ProbeKind.WORKERS}
    assert "fewer workers are no longer used: they showed 0.67 times" in str(
        found[ProbeKind.WORKERS]
    )


def test_distrusted_kinds_add_up_small_differences_in_one_direction() -> None:
    probed = [trial(i, config(8), record(i, rps=100.0)) for i in range(2, 8)]
    agreeing = [fresh(10 + i, i, 100.0 * (1.2 if i % 2 else 0.83)) for i in range(2, 8)]
    biased = [fresh(10 + i, i, 120.0) for i in range(2, 8)]
    assert distrusted_kinds([*probed, *agreeing], SPACE) == {}
    assert set(distrusted_kinds([*probed, *biased], SPACE)) == {ProbeKind.WORKERS}


def test_distrusted_kinds_need_a_later_trial_that_shows_its_capacity() -> None:
    probed = trial(5, config(8), record(4, rps=100.0))
    others = [fresh(1, 4, 500.0), fresh(6, 4, 500.0, host_fault=True)]
    failed = trial_result(7, None, config(4), state=TrialState.FAILED)
    assert distrusted_kinds([*others, probed, failed], SPACE) == {}


def test_distrusted_kinds_are_neither_used_nor_planned() -> None:
    probed = trial(0, config(8), record(4, rps=100.0), record(1, 8, 50.0, ProbeKind.BATCH))
    results = [probed, fresh(1, 4, 200.0)]
    (observation,) = probe_observations(results, SPACE)
    assert observation.point["batch_size"] == 8, "the other kind is still used"
    planned = plan_probes(SPACE, config(6), results, always(0.2))
    assert planned == (), "smaller batches need one worker with full batches"
