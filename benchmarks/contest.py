"""One search of one surface, and what its trials cost in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.contestants import CONTESTANTS, Servetune
from benchmarks.surfaces import Simulated, Surface
from search.trial.result import TrialState

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrialCosts:
    """Duration of a trial by how it ends, seconds.

    Attributes:
        pruned_s: the closed loop shows that the trial is slower than the best so far.
        failed_s: the server does not serve, or sustains no rate.
        complete_s: the trial has a sustained rate.
    """

    pruned_s: float
    failed_s: float
    complete_s: float

    def of(self, state: TrialState) -> float:
        """Return the duration of a trial that ended in this state."""
        if state is TrialState.COMPLETE:
            return self.complete_s
        return self.pruned_s if state is TrialState.PRUNED else self.failed_s


#: By name. `full`: medians of recorded runs of the bundled model with full verification in every
#: trial (2026-11-23). `screening`: a start of 5 s, a closed loop of 6 s and a stop of 1 s. A
#: complete trial adds probes and a verifying window, 13 s. A failed one ends in them.
COSTS = {
    "full": TrialCosts(pruned_s=15, failed_s=60, complete_s=70),
    "screening": TrialCosts(pruned_s=12, failed_s=25, complete_s=25),
}


@dataclass(frozen=True)
class SearchRun:
    """The progress of one search.

    Attributes:
        ends_s: when each trial ended.
        shares: true rate of the choice after each trial ÷ the optimum, at most 1.
        stop_s: when the search would have ended by itself; infinite if it would not.
    """

    ends_s: tuple[float, ...]
    shares: tuple[float, ...]
    stop_s: float = math.inf

    def share_at(self, seconds: float) -> float:
        """Return the share of the choice at a time; 0 before the first trial ended."""
        return next(
            (
                s
                for end_s, s in zip(self.ends_s[::-1], self.shares[::-1], strict=True)
                if end_s <= seconds
            ),
            0.0,
        )

    def share_after(self, trials: int) -> float:
        """Return the share of the choice after a number of trials, or the last one; NaN if the
        search ended before by its time limit.
        """
        if trials > len(self.shares):
            return math.nan
        return self.shares[trials - 1]

    def seconds_to(self, share: float) -> float:
        """Return when the choice first had this share; infinite if never."""
        reached = (e for e, s in zip(self.ends_s, self.shares, strict=True) if s >= share)
        return next(reached, math.inf)


def search_surface(
    surface: Surface,
    name: str,
    seed: int,
    costs: TrialCosts = COSTS["screening"],
    limit_s: float = math.inf,
    trials: int = 1000,
) -> SearchRun:
    """Search a surface with a contestant until a number of trials or of seconds.

    If the contestant has no more points, its last choice stays.
    """
    if isinstance(surface, Simulated) and not surface.optimum_rps:
        surface.explore()
    contestant = CONTESTANTS[name](surface.space, seed)
    random = np.random.default_rng(seed)
    now_s, stop_s = 0.0, math.inf
    ends_s: list[float] = []
    shares: list[float] = []
    while len(ends_s) < trials and now_s < limit_s:
        if (point := contestant.ask()) is None:
            break
        rate_rps = surface.measure(point, random)
        telemetry = surface.telemetry(point, random)
        probed = []
        if isinstance(contestant, Servetune) and rate_rps > 0:
            # A host that is fast at this start is fast in its probes too.
            level = rate_rps / surface.true_rps(point)
            probed = [surface.probe(point, p, level, random) for p in contestant.probes]
        state = contestant.tell(rate_rps, surface.failure(point), telemetry, probed)
        now_s += costs.of(state) + sum(record.duration_s for record in probed)
        choice = contestant.choice()
        chosen_rps = surface.true_rps(choice) if choice is not None else 0.0
        ends_s.append(now_s)
        shares.append(min(chosen_rps / surface.optimum_rps, 1.0))
        if math.isinf(stop_s) and isinstance(contestant, Servetune) and contestant.has_converged():
            stop_s = now_s
    return SearchRun(tuple(ends_s), tuple(shares), stop_s)


def good_share(runs: Sequence[SearchRun], seconds: float, share: float) -> float:
    """Return the share of the runs whose choice at a time has at least this share."""
    return float(np.mean([run.share_at(seconds) >= share for run in runs]))
