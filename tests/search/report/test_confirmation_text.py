"""The result of a confirmation in a few sentences."""

from dataclasses import replace

from search.report.summary import confirmation_text
from search.study.confirm import Confirmation, Plan
from search.study.rounds import Rounds
from search.trial.result import RateRecord
from serving.config import ServerConfig
from tests.results import trial_result


def test_confirmation_text_reports_rates_reference_and_ties() -> None:
    rates = (5.0, 100.0, 120.0, 80.0, 110.0)
    searched = [trial_result(n, rps, ServerConfig(workers=n + 1)) for n, rps in enumerate(rates)]
    plan = Plan.of(searched, searched[0], 2)
    measured = (([5.0, 5.0], 0.1), ([110.0, 112.0], 0.9), ([108.0, 111.0], 0.6))
    columns = tuple(
        tuple(trial_result(0, rate, comparison_p99_s=p99_s) for rate in row)
        for row, p99_s in measured
    )
    text = confirmation_text(Confirmation(plan, Rounds(columns)))
    assert text.startswith("Confirmed in 2 rounds: trial 4 sustains 109 rps")
    assert "the search measured 110 rps" in text
    assert "times as fast as the reference, trial 0 (" in text
    assert (
        "Trial 2 has a statistically indistinguishable rate, and a p99 of 0.9 s against 0.6 s "
        "at 88 rps"
    ) in text
    failed = tuple(replace(r, rate=RateRecord()) for r in columns[0])
    text = confirmation_text(Confirmation(plan, Rounds((failed, *columns[1:]))))
    assert "The reference, trial 0, sustained no rate" in text
    one_round = Confirmation(plan, Rounds(tuple(column[:1] for column in columns)))
    assert confirmation_text(one_round).startswith(
        "Trial 4 sustains 108 rps, measured again in one round."
    )
