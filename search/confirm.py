"""The finalists of a search against what is in use, measured again by turns in fresh servers."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.optimizer import Study, finalists, rate_of
from search.result import Kind, Task, TrialResult
from search.rounds import Rounds, order

#: Latencies are compared at this share of the least rate of all finalists.
COMMON = 0.8
#: What the search found to be slower than this share of its best is no finalist.
NEAR = 0.7


@dataclass(frozen=True)
class Plan:
    """What is measured: the reference first, then the finalists, best first."""

    tasks: tuple[Task, ...]

    @classmethod
    def of(cls, results: list[TrialResult], reference: TrialResult, count: int) -> Plan:
        """The plan for a search that came to these results, at least one of them with a rate."""
        rates = [(config, rate_of(results, config) or 0.0) for config in finalists(results, count)]
        near = [(config, rate) for config, rate in rates if rate >= NEAR * rates[0][1]]
        best, common_rps = [config for config, _ in near], COMMON * min(rate for _, rate in near)
        numbers = {r.config.digest: r.number for r in results if r.sustained_rps}
        others = [config for config in best if config != reference.config]
        tasks = [
            Task(
                numbers.get(config.digest, reference.number),
                Kind.CONFIRMED,
                config,
                known_rps=rate_of(results, config) or None,
                common_rps=common_rps if config in best else None,
            )
            for config in (reference.config, *others)
        ]
        return cls(tuple(tasks))

    @property
    def name(self) -> str:
        """The same for the same configurations, in whatever order."""
        digests = sorted(task.config.digest for task in self.tasks)
        return hashlib.sha256(",".join(digests).encode()).hexdigest()[:12]

    @property
    def finalists(self) -> list[int]:
        """Which of the tasks are the search's best, the reference among them where it is one."""
        return [i for i, task in enumerate(self.tasks) if task.common_rps]


@dataclass(frozen=True)
class Confirmation:
    """What the rounds of a plan came to."""

    plan: Plan
    rounds: Rounds

    @property
    def winner(self) -> int:
        """Which of the plan's tasks to take: the reference, too, where it beats all finalists."""
        may_win = dict.fromkeys(self.plan.finalists)
        if self.plan.tasks[0].known_rps:
            may_win[0] = None
        return self.rounds.winner(list(may_win))

    @property
    def is_sure(self) -> bool:
        """Whether the winner sustained a rate in every round, and there were several."""
        rates = self.rounds.rates(self.winner)
        return len(rates) > 1 and all(rates)

    def summary(self) -> dict[str, Any]:
        """Plain JSON data; the first configuration is the reference."""
        names = [f"trial {task.number}" for task in self.plan.tasks]
        return {"winner": names[self.winner], **self.rounds.summary(names)}

    @classmethod
    def read(cls, study: Study, plan: Plan) -> Confirmation | None:
        """What a study knows; whole rounds alone count. None where there is none."""
        rows: list[dict[str, TrialResult]] = []
        while len(row := study.confirmed(plan.name, len(rows))) == len(plan.tasks):
            rows.append(row)
        if not rows:
            return None
        digests = [task.config.digest for task in plan.tasks]
        return cls(plan, Rounds(tuple(tuple(row[d] for row in rows) for d in digests)))


async def confirm(
    study: Study,
    plan: Plan,
    rounds: int,
    may_start: Callable[[int], bool],
    measure: Callable[[int, Task, Path], Awaitable[TrialResult]],
) -> None:
    """Measure what of the plan's rounds the study does not know yet.

    Args:
        may_start: whether a round, by its number, may begin.
        measure: is told the round, the task and the name of a folder.
    """
    for number in range(rounds):
        known = study.confirmed(plan.name, number)
        if len(known) == len(plan.tasks):
            continue
        if not may_start(number):
            return
        for index in order(number, len(plan.tasks)):
            task = plan.tasks[index]
            if task.config.digest not in known:
                where = Path("confirm", plan.name, f"{number}-{task.number}")
                study.confirm(plan.name, number, await measure(number, task, where))
