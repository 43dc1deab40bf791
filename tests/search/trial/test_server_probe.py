"""Probes and their results."""

import math

import pytest

from loadgen.rate.estimate import Estimate
from search.trial.server_probe import (
    ProbeKind,
    ServerProbe,
    ServerProbeRecord,
    batch_capacity_rps,
    in_order,
)


def test_in_order_only_scales_down_and_drops_repetitions() -> None:
    probes = [
        ServerProbe(ProbeKind.BATCH, 1, 4),
        ServerProbe(ProbeKind.WORKERS, 1, 16),
        ServerProbe(ProbeKind.BATCH, 1, 8),
        ServerProbe(ProbeKind.WORKERS, 4, 16),
        ServerProbe(ProbeKind.WORKERS, 4, 16),
    ]
    assert [(p.workers, p.batch_size) for p in in_order(probes)] == [
        (4, 16),
        (1, 16),
        (1, 8),
        (1, 4),
    ]


@pytest.mark.parametrize("between_s", [0.0, 0.02])
def test_batch_capacity_rps_keeps_the_time_between_batches(between_s: float) -> None:
    def batch_s(n: int) -> float:
        return 0.04 + 0.01 * n

    full_rps = 16 / (batch_s(16) + between_s)
    found = batch_capacity_rps(4, batch_s(4), 16.0, batch_s(16), full_rps)
    assert found == pytest.approx(4 / (batch_s(4) + between_s))


def test_batch_capacity_rps_is_finite_if_the_handler_seems_slower_than_the_server() -> None:
    assert batch_capacity_rps(4, 0.1, 16.0, 0.5, 40.0) == pytest.approx(40.0)


def test_server_probe_record_has_the_noise_of_its_interval() -> None:
    estimate = Estimate(100.0, 90.2, 109.8, 2.0)
    assert ServerProbeRecord(ProbeKind.WORKERS, 2, 8, estimate).log_sd == pytest.approx(0.05)
    assert ServerProbeRecord(ProbeKind.WORKERS, 2, 8).log_sd == math.inf


@pytest.mark.parametrize(
    ("estimate", "has_result"),
    [
        (Estimate(100.0, 90.0, 110.0, 2.0), True),
        (Estimate(0.0, 0.0, 0.0, 2.0), False),
        (Estimate(math.inf, 1.0, math.inf, 2.0), False),
        (Estimate(1.0, 0.0, math.nan, 2.0), False),
        (None, False),
    ],
)
def test_server_probe_record_has_a_result_only_with_finite_figures(
    estimate: Estimate | None, has_result: bool
) -> None:
    assert ServerProbeRecord(ProbeKind.WORKERS, 2, 8, estimate).has_result is has_result
