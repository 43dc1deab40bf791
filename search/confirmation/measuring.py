"""The confirmation: short interleaved visits to the finalists and the reference."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from search.confirmation.confirmation import Confirmation
from search.confirmation.plan import Plan
from search.confirmation.steps import Step, next_curves, next_round, verifications
from search.confirmation.visits import VisitStore
from search.trial.request import TrialRequest
from search.trial.result import TrialResult


async def confirm(
    store: VisitStore,
    plan: Plan,
    read: Callable[[], Confirmation],
    may_start: Callable[[Step], bool],
    measure: Callable[[Step, TrialRequest, Path], Awaitable[TrialResult]],
    expected_s: Callable[[Step], float] = lambda step: 0.0,
) -> None:
    """Measure rounds until the race is over or time is, then verify the winner's rate.

    At last the latency curves of others, the shortest first. Each measurement is stored when it
    ends, so that a later call continues.

    Args:
        read: returns what is stored of the plan.
        may_start: whether there is time for a step.
        measure: measures a request; writes its files to a folder, relative to the run.
        expected_s: returns the expected duration of a step, seconds.
    """

    async def carry_out(step: Step) -> None:
        for request in step.requests:
            folder = Path("confirm", plan.name, f"{step.stage}-{request.number}")
            store.record_visit(plan.name, step.stage, await measure(step, request, folder))

    def next_step() -> Step | None:
        confirmation = read()
        curves = sorted(next_curves(confirmation), key=expected_s)
        steps = (*verifications(confirmation), *curves)
        return next((step for step in steps if may_start(step)), None)

    while (step := next_round(read(), store.visits(plan.name))) and may_start(step):
        await carry_out(step)
    while step := next_step():
        await carry_out(step)


def confirming(step: Step) -> str:
    """Return what a step of the confirmation measures, and why, in plain words."""
    if step.is_curve:
        return "measuring the latency of a configuration that the winner is compared with"
    if step.is_verification:
        return "verifying that the winner sustains its rate, and measuring its latency"
    return "measuring the best configurations again in fresh servers: one result may be luck"
