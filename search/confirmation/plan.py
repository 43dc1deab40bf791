"""The configurations that a confirmation measures. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from loadgen.rate.goal import Depth
from search.spec.schema import StudySpec
from search.trial.objective import Objective
from search.trial.ranking import RATE, figures_of, finalists, rate_of, reference_of, share_of
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialResult
from serving.configuration.config import ServerConfig

#: Latencies are compared at this share of the lowest rate of all finalists.
COMPARISON_SHARE = 0.8
#: A configuration slower than this share of the search's best is not a finalist.
FINALIST_SHARE = 0.7
#: Stage of the measurements that verify a sustained rate, after those of the rounds "0", "1", ….
VERIFICATION = "verification"


@dataclass(frozen=True)
class Plan:
    """The configurations to measure: the reference first, then the finalists, best first."""

    requests: tuple[TrialRequest, ...]
    objective: Objective = RATE

    @classmethod
    def of(
        cls,
        results: list[TrialResult],
        reference: TrialResult,
        count: int,
        nominated: Sequence[str] = (),
        objective: Objective = RATE,
    ) -> Plan:
        """Return the plan for these results.

        Args:
            results: at least one has a rate, and meets the objective's limits.
            count: the maximum number of finalists.
            nominated: digests of the configurations that come first; see `finalists`.
        """
        figures = figures_of(results)
        configs = finalists(results, count, nominated, objective)
        scores = [objective.score(figures[config.digest]) for config in configs]
        best = [
            config
            for config, score in zip(configs, scores, strict=True)
            if score >= FINALIST_SHARE * max(scores)
        ]
        comparison_rps = None
        if objective.maximizes_rate:
            comparison_rps = COMPARISON_SHARE * min(rate_of(results, c) or 0.0 for c in best)
        numbers = {r.config.digest: r.number for r in results if r.sustained_rps}
        others = [config for config in best if config != reference.config]
        requests = [
            TrialRequest(
                numbers.get(config.digest, reference.number),
                TrialOrigin.CONFIRMATION,
                config,
                known_rps=rate_of(results, config) or None,
                known_share=share_of(results, config),
                comparison_rps=comparison_rps if config in best else None,
            )
            for config in (reference.config, *others)
        ]
        return cls(tuple(requests), objective)

    @property
    def name(self) -> str:
        """A digest of the configurations that does not depend on their order."""
        digests = sorted(request.config.digest for request in self.requests)
        return hashlib.sha256(",".join(digests).encode()).hexdigest()[:12]

    def index_of(self, config: ServerConfig) -> int | None:
        """Return the index of a configuration; None if it is none of the plan."""
        return next((n for n, r in enumerate(self.requests) if r.config == config), None)

    @property
    def finalists(self) -> list[int]:
        """Indices of the finalists; the reference is none of them."""
        return list(range(1, len(self.requests)))

    @property
    def reference_share(self) -> float | None:
        """The rate of the reference ÷ that of the best finalist, in the search."""
        if len(self.requests) < 2 or not self.objective.maximizes_rate:
            return None
        return (self.requests[0].known_rps or 0.0) / (self.requests[1].known_rps or 1.0)

    def visit(self, index: int) -> TrialRequest:
        """Return the request of a short visit: the server starts, a closed loop, it stops.

        With limits of the latency, a window at the rate that is expected to meet them follows, and
        lower rates if it does not. With `goal.for_rps`, a window at that rate follows.
        """
        depth = Depth.ESTIMATE if self.objective.compares_capacities else Depth.SCREEN
        depth = depth if self.objective.maximizes_rate else Depth.ESTIMATE
        return replace(self.requests[index], depth=depth, comparison_rps=None)

    @property
    def reference_rps(self) -> float | None:
        """The rate of the reference, if rates are compared: the latency at it is of interest."""
        return self.requests[0].known_rps if self.objective.maximizes_rate else None

    def verification(
        self, index: int, is_compared: bool, has_curve: bool = True, at_reference_rate: bool = False
    ) -> TrialRequest:
        """Return the request that verifies a sustained rate.

        Args:
            is_compared: whether latencies are compared with those of other finalists.
            has_curve: whether latencies below the rate are measured.
            at_reference_rate: whether that at the reference's rate is one of them.
        """
        request = replace(
            self.requests[index],
            depth=Depth.FULL,
            latency_curve=has_curve,
            curve_from_rps=self.reference_rps if has_curve and at_reference_rate else None,
        )
        return request if is_compared else replace(request, comparison_rps=None)


def plan_confirmation(
    spec: StudySpec, results: list[TrialResult], nominated: Sequence[str] = ()
) -> Plan | None:
    """Return the plan of the confirmation; None if there is nothing to confirm.

    Args:
        nominated: digests of the configurations to confirm first; see `finalists`.
    """
    reference = reference_of(results)
    if spec.confirm is None or not spec.confirmation_rounds or reference is None:
        return None
    objective = Objective.of(spec.goal)
    if not finalists(results, 1, objective=objective):
        return None
    return Plan.of(results, reference, spec.confirm.finalists, nominated, objective)
