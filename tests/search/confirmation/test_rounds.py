"""Interleaved rounds: rates and ratios."""

from dataclasses import replace

import pytest

from search.confirmation.rounds import Rounds, measurement_order
from search.intervals import mean_interval
from servetune.errors import FailureKind
from serving.configuration.config import ServerConfig
from tests.results import trial_result


def rounds(*rows: list[float | None]) -> Rounds:
    """Make the rounds of one configuration per row: its rates by round."""
    return Rounds(
        tuple(
            tuple(trial_result(n, rate, ServerConfig(workers=n + 1)) for rate in rates)
            for n, rates in enumerate(rows)
        )
    )


def test_measurement_order_alternates_between_rounds() -> None:
    assert [measurement_order(n, range(3)) for n in range(2)] == [[0, 1, 2], [2, 1, 0]]


def test_rounds_separate_configurations_despite_common_drift() -> None:
    drift = [1.0, 0.7, 1.2, 0.9, 1.1]
    noise = [1.0, 1.01, 0.99, 1.0, 1.01]
    measured = rounds(
        [100 * d for d in drift],
        [105 * d * e for d, e in zip(drift, noise, strict=True)],
    )
    interval = mean_interval(measured.ratios(1))
    assert interval is not None and interval.excludes_one and 1.04 < interval.mean < 1.07


def test_rounds_ratios_leave_out_failed_rounds() -> None:
    measured = rounds([50.0, 50.0], [200.0, None])
    assert measured.rates(1) == [200.0, 0.0]
    assert measured.ratios(1) == [4.0]
    summary = measured.summary(["a", "b"])
    assert summary["configs"][1]["median_ratio_to_first"] == pytest.approx(4.0)


def test_rounds_leave_out_inconclusive_results() -> None:
    slow, fast, failed = trial_result(0, 50.0), trial_result(0, 100.0), trial_result(0)
    lost = replace(failed, host_fault=True)
    assert Rounds(((slow, slow), (fast, lost))).rates(1) == [100.0]
    limited = replace(failed, failure=FailureKind.GENERATOR_LIMITED)
    assert Rounds(((slow,), (limited,))).rates(1) == []
