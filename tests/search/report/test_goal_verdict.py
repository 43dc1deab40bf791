"""The verdict for the lowest latency and the least memory at a rate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from search.report.verdict import certainty, verdict
from search.spec.goal import GoalSection
from search.study.outcome import Outcome
from search.trial.ranking import best_of
from search.trial.request import TrialOrigin
from search.trial.result import TargetRecord
from serving.configuration.config import ServerConfig
from tests.results import trial_result


def with_goal(outcome: Outcome, kind: str, reference_rps: float, workers: int = 2) -> Outcome:
    """Return an outcome of the default and another configuration, for 20 requests/s."""
    goal: dict[str, Any] = {"objective": kind, "for_rps": 20.0, "headroom": 0.0}
    spec = outcome.spec.model_copy(update={"goal": GoalSection.model_validate(goal)})
    served = TargetRecord(20.0, 0.05, 0.3, 0.4, 0, True, "")
    results = [
        trial_result(
            0,
            reference_rps,
            ServerConfig(),
            TrialOrigin.DEFAULT,
            target=served if reference_rps >= 20 else None,
            peak_memory_mb=1500,
            workers_ready=4,
        ),
        trial_result(
            1,
            90.0,
            ServerConfig(workers=workers),
            target=replace(served, p99_s=0.1),
            peak_memory_mb=800,
            workers_ready=workers,
        ),
    ]
    changed = replace(outcome, spec=spec, results=results, reference=results[0])
    return replace(changed, best=best_of(results, changed.objective))


def test_goal_verdict_leads_with_the_latency_at_the_rate(outcome: Outcome) -> None:
    text = verdict(with_goal(outcome, "latency", 40.0))
    assert text == (
        "Deploy trial 1 instead of TorchServe's default (trial 0): at 20 requests/s its p99 "
        "latency is 0.1 s instead of 0.4 s, with 800 MiB of memory instead of 1,500 MiB. It "
        "sustains 90 requests/s instead of 40."
    )


def test_goal_verdict_leads_with_the_memory_at_the_rate(outcome: Outcome) -> None:
    text = verdict(with_goal(outcome, "footprint", 40.0))
    assert (
        "at 20 requests/s it needs 800 MiB of memory instead of 1,500 MiB and 2 workers instead "
        "of 4, with a p99 latency of 0.1 s instead of 0.4 s."
    ) in text


@pytest.mark.parametrize("kind", ["latency", "footprint"])
def test_goal_verdict_says_what_today_misses(outcome: Outcome, kind: str) -> None:
    text = verdict(given := with_goal(outcome, kind, 10.0))
    assert "TorchServe's default (trial 0) misses the goal: sustained rate 10 rps" in text
    assert "instead of 1,500" not in text and "times today's" not in certainty(given)


def test_goal_verdict_keeps_what_is_the_best_already(outcome: Outcome) -> None:
    given = with_goal(outcome, "latency", 40.0)
    kept = replace(given, results=given.results[:1], best=given.results[0])
    assert verdict(kept).startswith(
        "Change nothing: no configuration was better than TorchServe's default (trial 0). At 20 "
        "requests/s its p99 latency is 0.4 s, with 1,500 MiB of memory."
    )
