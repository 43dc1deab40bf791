"""Reports of confirmations of every shape: none may fail, or contain a hole."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from search.confirmation.confirmation import Confirmation
from search.confirmation.noise import Variance
from search.confirmation.plan import VERIFICATION, Plan
from search.confirmation.race import RaceRules
from search.report.compare import compare
from search.report.summary import answer_sentences, markdown_report
from search.sinks.end import result_of
from search.study.outcome import Outcome
from search.trial.result import TrialResult
from tests.results import result_for, visit_for

#: Rates of the visits by round; None for a failure.
REFERENCE = ([5.0], [5.0, 5.2], [5.0, None], [None], [None, None, None])
WINNER = ([240.0], [235.0, 245.0], [240.0, None, 238.0], [240.0, 241.0, 239.0, 242.0])
#: The other finalist: tied, slower, failed.
OTHER = ([238.0], [50.0, 51.0, 52.0], [None, None])
#: The sustained rates of the verification of the winner and of the other; None without one.
VERIFIED: tuple[tuple[float | None, ...], ...] = ((), (None,), (232.0,), (232.0, 230.0))
PRIORS = (None, Variance(0.0004, 10))
HOLE = re.compile(r"\bNone\b|\bnan\b|\binf\b|\{\w*\}|  \.|\. \.|\(\)")


def confirmations(outcome: Outcome) -> Iterator[Confirmation]:
    assert outcome.reference is not None
    results = [replace(r, rate=replace(r.rate, sustained_rps=230.0)) for r in outcome.results[1:2]]
    plan = Plan.of([outcome.results[0], *results, *outcome.results[2:]], outcome.reference, 2)
    shapes = itertools.product(REFERENCE, WINNER, OTHER, VERIFIED, PRIORS)
    for reference, winner, other, verified, prior in shapes:
        rates = {0: reference, 3: winner, 1: other}
        stored: dict[str, dict[str, TrialResult]] = {}
        for request in plan.requests:
            for number, rate in enumerate(rates[request.number]):
                visit = visit_for(request, rate)
                stored.setdefault(str(number), {})[request.config.digest] = visit
        for index, rps in enumerate(verified, 1):
            request = plan.verification(index, is_compared=False)
            result = result_for(request, rps, capacity_rps=240.0, p99_s=0.4)
            stored.setdefault(VERIFICATION, {})[request.config.digest] = result
        rules = RaceRules(len(winner), far_behind=0.0)
        yield Confirmation.read(stored, plan, rules, lambda visit, prior=prior: prior)


@pytest.mark.parametrize("part", range(4))
def test_reports_of_every_confirmation_have_no_hole(outcome: Outcome, part: int) -> None:
    for confirmation in itertools.islice(confirmations(outcome), part, None, 4):
        confirmed = replace(outcome, confirmation=confirmation)
        texts = [markdown_report(confirmed), *answer_sentences(confirmed), compare([confirmed])]
        for text in texts:
            found = HOLE.search(re.sub(r"`[^`]*`", "", text))
            assert found is None, (found, text)
        result_of(confirmed)
