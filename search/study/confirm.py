"""The confirmation: interleaved measurements of the finalists and the reference. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from search.study.ranking import finalists, rate_of
from search.study.rounds import Rounds, measurement_order
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult

#: Latencies are compared at this share of the lowest rate of all finalists.
COMPARISON_SHARE = 0.8
#: A configuration slower than this share of the search's best is not a finalist.
FINALIST_SHARE = 0.7


class RoundStore(Protocol):
    """Stores the measurements of a confirmation."""

    def record_confirmation(self, plan: str, round_number: int, result: TrialResult) -> None:
        """Record a measurement of a plan in this round."""

    def confirmation_results(self, plan: str, round_number: int) -> dict[str, TrialResult]:
        """Return the measurements of a round by the configuration's digest."""
        ...


@dataclass(frozen=True)
class Plan:
    """The configurations to measure: the reference first, then the finalists, best first."""

    requests: tuple[TrialRequest, ...]

    @classmethod
    def of(cls, results: list[TrialResult], reference: TrialResult, count: int) -> Plan:
        """Return the plan for these results.

        Args:
            results: at least one has a rate.
            count: the maximum number of finalists.
        """
        rates = [(config, rate_of(results, config) or 0.0) for config in finalists(results, count)]
        rated = [(config, rate) for config, rate in rates if rate >= FINALIST_SHARE * rates[0][1]]
        best = [config for config, _ in rated]
        comparison_rps = COMPARISON_SHARE * min(rate for _, rate in rated)
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
        """A digest of the configurations that does not depend on their order."""
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
        """Index of the request to deploy: a finalist, or the reference if it has a rate."""
        candidates = dict.fromkeys(self.plan.finalists)
        if self.plan.requests[0].known_rps:
            candidates[0] = None
        return self.rounds.winner(list(candidates))

    @property
    def is_conclusive(self) -> bool:
        """Whether the winner sustained a rate in every round, and there are at least two."""
        rates = self.rounds.rates(self.winner)
        return len(rates) > 1 and all(rates)

    def summary(self) -> dict[str, Any]:
        """Return plain JSON data; the first configuration is the reference."""
        names = [f"trial {request.number}" for request in self.plan.requests]
        return {"winner": names[self.winner], **self.rounds.summary(names)}

    @classmethod
    def read(cls, store: RoundStore, plan: Plan) -> Confirmation | None:
        """Return the complete rounds in a store; None if there is none."""
        rows: list[dict[str, TrialResult]] = []
        while len(row := store.confirmation_results(plan.name, len(rows))) == len(plan.requests):
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
    """Measure what is missing of a plan's rounds, and store it.

    Args:
        may_start: whether the round of this number may start.
        measure: measures a request in a round; writes its files to a folder, relative to the run.
    """
    for number in range(rounds):
        measured = store.confirmation_results(plan.name, number)
        if len(measured) == len(plan.requests):
            continue
        if not may_start(number):
            return
        for index in measurement_order(number, len(plan.requests)):
            request = plan.requests[index]
            if request.config.digest not in measured:
                folder = Path("confirm", plan.name, f"{number}-{request.number}")
                result = await measure(number, request, folder)
                store.record_confirmation(plan.name, number, result)
