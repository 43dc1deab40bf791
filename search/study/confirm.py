"""The confirmation: the finalists against the reference, interleaved, in fresh servers. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from search.study.ranking import finalists, rate_of
from search.study.rounds import Rounds, order
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult

#: Latencies are compared at this share of the lowest rate of all finalists.
COMPARISON_SHARE = 0.8
#: A configuration slower than this share of the search's best is not a finalist.
FINALIST_SHARE = 0.7


class RoundStore(Protocol):
    """Keeps the measurements of a confirmation."""

    def confirm(self, plan: str, round_number: int, result: TrialResult) -> None:
        """Record a measurement of a plan, in this round."""

    def confirmed(self, plan: str, round_number: int) -> dict[str, TrialResult]:
        """Return the measurements of a round, by the configuration's digest."""
        ...


@dataclass(frozen=True)
class Plan:
    """The configurations to be measured: the reference first, then the finalists, best first."""

    requests: tuple[TrialRequest, ...]

    @classmethod
    def of(cls, results: list[TrialResult], reference: TrialResult, count: int) -> Plan:
        """Return the plan for these results, at least one of which has a rate."""
        rates = [(config, rate_of(results, config) or 0.0) for config in finalists(results, count)]
        near = [(config, rate) for config, rate in rates if rate >= FINALIST_SHARE * rates[0][1]]
        best = [config for config, _ in near]
        comparison_rps = COMPARISON_SHARE * min(rate for _, rate in near)
        numbers = {r.config.digest: r.number for r in results if r.sustained_rps}
        others = [config for config in best if config != reference.config]
        requests = [
            TrialRequest(
                numbers.get(config.digest, reference.number),
                TrialOrigin.CONFIRMATION,
                config,
                known_rps=rate_of(results, config) or None,
                comparison_rps=comparison_rps if config in best else None,
            )
            for config in (reference.config, *others)
        ]
        return cls(tuple(requests))

    @property
    def name(self) -> str:
        """A name that is the same for the same configurations in any order."""
        digests = sorted(request.config.digest for request in self.requests)
        return hashlib.sha256(",".join(digests).encode()).hexdigest()[:12]

    @property
    def finalists(self) -> list[int]:
        """Indices of the requests that are finalists; the reference may be one."""
        return [i for i, request in enumerate(self.requests) if request.comparison_rps]


@dataclass(frozen=True)
class Confirmation:
    """The results of a plan's rounds."""

    plan: Plan
    rounds: Rounds

    @property
    def winner(self) -> int:
        """Index of the request to deploy: the reference, too, if it beats all finalists."""
        may_win = dict.fromkeys(self.plan.finalists)
        if self.plan.requests[0].known_rps:
            may_win[0] = None
        return self.rounds.winner(list(may_win))

    @property
    def is_sure(self) -> bool:
        """Whether the winner sustained a rate in each of several rounds."""
        rates = self.rounds.rates(self.winner)
        return len(rates) > 1 and all(rates)

    def summary(self) -> dict[str, Any]:
        """Return plain JSON data; the first configuration is the reference."""
        names = [f"trial {request.number}" for request in self.plan.requests]
        return {"winner": names[self.winner], **self.rounds.summary(names)}

    @classmethod
    def read(cls, store: RoundStore, plan: Plan) -> Confirmation | None:
        """Return the complete rounds that a store knows; None if there is none."""
        rows: list[dict[str, TrialResult]] = []
        while len(row := store.confirmed(plan.name, len(rows))) == len(plan.requests):
            rows.append(row)
        if not rows:
            return None
        digests = [request.config.digest for request in plan.requests]
        return cls(plan, Rounds(tuple(tuple(row[d] for row in rows) for d in digests)))


async def confirm(
    store: RoundStore,
    plan: Plan,
    rounds: int,
    may_start: Callable[[int], bool],
    measure: Callable[[int, TrialRequest, Path], Awaitable[TrialResult]],
) -> None:
    """Measure what of the plan's rounds the store does not know yet.

    Args:
        may_start: whether a round, by its number, may begin.
        measure: measures a request in this round, with its files in this folder of the run.
    """
    for number in range(rounds):
        known = store.confirmed(plan.name, number)
        if len(known) == len(plan.requests):
            continue
        if not may_start(number):
            return
        for index in order(number, len(plan.requests)):
            request = plan.requests[index]
            if request.config.digest not in known:
                where = Path("confirm", plan.name, f"{number}-{request.number}")
                store.confirm(plan.name, number, await measure(number, request, where))
