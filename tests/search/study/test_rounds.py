"""Interleaved rounds: ratios, ties and the winner."""

from dataclasses import replace

from search.study.intervals import mean_interval
from search.study.rounds import Rounds, measurement_order
from search.trial.result import LatencyRecord
from servetune.errors import FailureKind
from serving.config import ServerConfig
from tests.results import trial_result


def rounds(*rows: tuple[list[float | None], float]) -> Rounds:
    """Make the rounds of one configuration per row: its rates by round, its p99 in seconds."""
    return Rounds(
        tuple(
            tuple(
                trial_result(n, rate, ServerConfig(workers=n + 1), comparison_p99_s=p99_s)
                for rate in rates
            )
            for n, (rates, p99_s) in enumerate(rows)
        )
    )


def test_measurement_order_alternates_between_rounds() -> None:
    assert [measurement_order(n, 3) for n in range(2)] == [[0, 1, 2], [2, 1, 0]]


def test_rounds_separate_configurations_despite_common_drift() -> None:
    drift = [1.0, 0.7, 1.2, 0.9, 1.1]
    noise = [1.0, 1.01, 0.99, 1.0, 1.01]
    measured = rounds(
        ([100 * d for d in drift], 0.2),
        ([105 * d * e for d, e in zip(drift, noise, strict=True)], 0.3),
    )
    interval = mean_interval(measured.ratios(1))
    assert interval is not None and interval.excludes_one and 1.04 < interval.mean < 1.07
    assert measured.winner([0, 1]) == 1, "a significantly higher rate wins despite its latency"
    assert measured.indistinguishable_from(1, [0, 1]) == []


def test_rounds_winner_is_fastest_to_answer_of_indistinguishable_ones() -> None:
    measured = rounds(
        ([50.0, 51.0, 49.0], 0.1),
        ([100.0, 112.0, 95.0], 0.8),
        ([98.0, 104.0, 99.0], 0.4),
    )
    assert measured.leader([1, 2]) == 1
    assert measured.indistinguishable_from(1, [0, 1, 2]) == [2]
    assert measured.winner([0, 1, 2]) == 2


def test_rounds_winner_is_leader_if_its_latency_is_unknown() -> None:
    measured = rounds(([100.0, 103.0, 101.0], 0.1), ([99.0, 97.0, 100.0], 0.1))
    reference = tuple(replace(r, latency=LatencyRecord()) for r in measured.results[0])
    assert Rounds((reference, measured.results[1])).winner([0, 1]) == 0


def test_rounds_winner_is_leader_if_few_rounds_show_a_large_difference() -> None:
    for count in (1, 2):
        measured = rounds(([114.0, 112.0][:count], 0.4), ([138.0, 141.0][:count], 2.0))
        assert measured.winner([0, 1]) == 1


def test_rounds_winner_has_fewest_failed_rounds() -> None:
    measured = rounds(([50.0, 50.0], 0.1), ([200.0, None], 0.1), ([100.0, 100.0], 0.1))
    assert measured.winner([1, 2]) == 2
    assert measured.rates(1) == [200.0, 0.0]
    assert measured.ratios(1) == [4.0]


def test_rounds_leave_out_inconclusive_results() -> None:
    slow, fast, failed = trial_result(0, 50.0), trial_result(0, 100.0), trial_result(0)
    lost = replace(failed, host_fault=True)
    measured = Rounds(((slow, slow), (fast, lost)))
    assert measured.rates(1) == [100.0]
    assert measured.leader([0, 1]) == 1
    unmeasured = Rounds(((slow, failed), (lost, lost)))
    assert unmeasured.leader([0, 1]) == 0, "a configuration without a result does not lead"
    limited = replace(failed, failure=FailureKind.GENERATOR_LIMITED)
    assert Rounds(((slow,), (limited,))).rates(1) == []
