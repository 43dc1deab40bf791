"""An Optuna sampler: the next configuration maximizes the expected improvement of the log rate.

The rate is predicted by `Surrogate`, and multiplied by the probability that the configuration
serves (`Feasibility`). See docs/decisions/own-sampler.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaTrialState

from search.sampler.feasibility import Feasibility
from search.sampler.features import Floats
from search.sampler.observations import Observation, Point
from search.sampler.prediction import predict_rates
from search.sampler.surrogate import MODELLED_SETTINGS, Surrogate, Walkers
from search.sampler.targets import WORTHWHILE, Targets
from search.spec.space import Space
from search.trial.objective import Objective
from search.trial.prediction import PredictedRate
from search.trial.ranking import RATE

#: Acquisition: random candidates, then rounds of local search around the best candidates.
_RANDOM_CANDIDATES, _LOCAL_STARTS, _LOCAL_ROUNDS = 300, 3, 3
#: Share of the settings of a random candidate that replace those of a good trial.
_REPLACED_SHARE = 0.5
#: The acquisition uses every n-th parameter sample.
_THIN = 2
#: Points whose rates are drawn jointly to estimate the probability of an improvement, and draws.
_DRAWN_POINTS, _DRAWS = 80, 8


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the space's dimensions as Optuna's distributions."""
    return {
        d.name: CategoricalDistribution(d.choices)
        if d.choices
        else IntDistribution(d.low, d.high, log=d.log)
        for d in space.dimensions
    }


class CapacitySampler(BaseSampler):
    """Optuna's interface to the surrogate.

    Args:
        space: the search space.
        seed: of all random draws.
        observe: returns the finished trials of the study; None to read rates and constraints from
            Optuna's trials.
        objective: what is optimized, under which limits.

    Attributes:
        drawn_space: the space to draw points from; its ranges may be wider than those of `space`.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        observe: Callable[[], Sequence[Observation]] | None = None,
        objective: Objective = RATE,
    ):
        self._space, self._observe, self._objective = space, observe, objective
        self.drawn_space = space
        self._random = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)
        self._walkers = Walkers()
        self._fitted: tuple[list[Observation], Surrogate, Targets] | None = None
        self._ranked: tuple[list[Observation], list[dict[str, Any]]] | None = None
        self._probability: tuple[list[Observation], float] | None = None

    def infer_relative_search_space(
        self, study: OptunaStudy, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space; empty if the trial's point is fixed."""
        return {} if "fixed_params" in trial.system_attrs else distributions(self.drawn_space)

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next point."""
        if not search_space:
            return {}
        states = (OptunaTrialState.COMPLETE, OptunaTrialState.RUNNING)
        trials = [
            t
            for t in study.get_trials(deepcopy=False, states=states)
            if t.params.keys() == search_space.keys()
        ]
        running = [t.params for t in trials if t.state is OptunaTrialState.RUNNING]
        if self._observe is not None:
            return self.next_point(self._observe(), running)
        complete = [t for t in trials if t.state is OptunaTrialState.COMPLETE]
        return self.propose(
            points=[t.params for t in complete],
            rates=[t.value or 0.0 for t in complete],
            violated=[any(value > 0 for value in t.constraints.values()) for t in complete],
            too_large=[bool(t.user_attrs.get("too_large", False)) for t in complete],
            running=running,
        )

    def sample_independent(
        self,
        study: OptunaStudy,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value for a setting that a fixed point lacks."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def propose(
        self,
        points: Sequence[Point],
        rates: Sequence[float],
        violated: Sequence[bool] = (),
        too_large: Sequence[bool] = (),
        running: Sequence[Point] = (),
    ) -> dict[str, Any]:
        """Return the point to try next, from plain rates; see `next_point`.

        Args:
            rates: of the points, requests/s; 0 for a failure.
            violated: whether a point violated a constraint, and may have failed because of it.
            too_large: whether a point failed for lack of memory.
            running: points in progress.
        """
        no = [False] * len(points)
        columns = zip(points, rates, violated or no, too_large or no, strict=True)
        observations = [
            Observation(point, rate, violated=is_violated, too_large=is_too_large)
            for point, rate, is_violated, is_too_large in columns
        ]
        return self.next_point(observations, running)

    def next_point(
        self, observations: Sequence[Observation], running: Sequence[Point] = ()
    ) -> dict[str, Any]:
        """Return the point to try next; a random one before the first success.

        Args:
            running: points in progress; they count with the median rate.
        """
        served = [o for o in observations if o.served and o.is_own]
        if not served:
            return self.drawn_space.draw(self._random, 1)[0]
        typical_rps = median(o.rate_rps for o in served)
        observations = [*observations, *(Observation(point, typical_rps) for point in running)]
        scored = self._candidates(observations)
        return scored[0] if scored else self.drawn_space.draw(self._random, 1)[0]

    def improvement_probability(self, observations: Sequence[Observation]) -> float:
        """Return the probability that an untried point is better by a worthwhile share.

        1 before the first success; the highest probability of meeting the limits before a point
        does. The answer for the same observations is always the same.
        """
        if self._probability is None or self._probability[0] != list(observations):
            probability = self._drawn_improvement_probability(observations)
            self._probability = list(observations), probability
        return self._probability[1]

    def _drawn_improvement_probability(self, observations: Sequence[Observation]) -> float:
        served = [o for o in observations if o.served and o.is_own]
        if not served:
            return 1.0
        candidates = self._candidates(observations)[:_DRAWN_POINTS]
        if not candidates:
            return 0.0
        targets = self._targets(observations)
        probability = Feasibility(self._space, observations).probability(candidates)
        if self._objective.has_limits:
            probability = probability * targets.probability(candidates)
        if not targets.has_met:
            return float(probability.max())
        drawn, weights = targets.drawn_gains(candidates, _DRAWS)
        serves = self._random.random(drawn.shape) < probability
        # A draw without a factor of its covariance is NaN and shows nothing.
        is_known = ~np.isnan(drawn).any(axis=1)
        known_weight = float(weights @ is_known)
        if known_weight <= 0:
            return 1.0
        gains = np.where(serves, drawn, -math.inf).max(axis=1)
        is_better = is_known & (gains > math.log1p(WORTHWHILE[self._objective.kind]))
        return float(weights @ is_better) / known_weight

    def predict(
        self, observations: Sequence[Observation], points: Sequence[Point]
    ) -> list[PredictedRate]:
        """Return the predicted rate of each point; at least one observation must have a rate."""
        surrogate = self._surrogate(observations)
        return predict_rates(self._space, observations, points, surrogate=surrogate)

    def expected_improvement(
        self, observations: Sequence[Observation], points: Sequence[Point]
    ) -> list[float]:
        """Return the expected improvement at each point × the probability that it serves.

        At least one observation must be a trial that served.
        """
        improvement = self._targets(observations).expected_improvement(points, 1)
        serves = Feasibility(self._space, observations).probability(points)
        return [float(gain) for gain in improvement * serves]

    def posterior_rates(self, observations: Sequence[Observation]) -> list[float]:
        """Return the posterior mean of the rate of each observation's point; 0 for a failure."""
        served = [o for o in observations if o.served]
        if not served:
            return [0.0] * len(observations)
        surrogate = self._surrogate(observations)
        means = np.exp(surrogate.predict([o.point for o in observations]).mean)
        return [
            float(mean) if o.served else 0.0 for o, mean in zip(observations, means, strict=True)
        ]

    def posterior_scores(self, observations: Sequence[Observation]) -> list[float]:
        """Return the posterior mean of what is maximized, for each observation's point."""
        points = [o.point for o in observations]
        return [float(score) for score in self._targets(observations).posterior_scores(points)]

    def _surrogate(self, observations: Sequence[Observation]) -> Surrogate:
        return self._fit(observations)[0]

    def _targets(self, observations: Sequence[Observation]) -> Targets:
        return self._fit(observations)[1]

    def _fit(self, observations: Sequence[Observation]) -> tuple[Surrogate, Targets]:
        """Return the models; one fit serves all questions about the same trials."""
        if self._fitted is None or self._fitted[0] != list(observations):
            surrogate = Surrogate(self._space, observations, self._random, self._walkers)
            targets = Targets(self._space, observations, self._objective, surrogate, self._random)
            self._fitted = list(observations), surrogate, targets
        return self._fitted[1:]

    def _candidates(self, observations: Sequence[Observation]) -> list[dict[str, Any]]:
        """Return untried points, random and local ones, by descending acquisition."""
        if self._ranked is None or self._ranked[0] != list(observations):
            self._ranked = list(observations), self._rank_candidates(observations)
        return self._ranked[1]

    def _rank_candidates(self, observations: Sequence[Observation]) -> list[dict[str, Any]]:
        targets = self._targets(observations)
        feasibility = Feasibility(self._space, observations)
        best = [o.point for o in targets.order()[:_LOCAL_STARTS]]
        space = self.drawn_space

        def acquisition(candidates: list[dict[str, Any]]) -> Floats:
            improvement = targets.expected_improvement(candidates, _THIN)
            likely = feasibility.probability(candidates)
            if self._objective.has_limits:
                likely = likely * targets.probability(candidates)
            return improvement * likely

        def key(point: Point) -> tuple[Any, ...]:
            return tuple(point[d.name] for d in space.dimensions)

        candidates = space.draw(self._random, _RANDOM_CANDIDATES)
        # Also vary only the modelled settings of the best point, all of them together, and a random
        # part of the settings of the best points.
        modelled = [{n: v for n, v in c.items() if n in MODELLED_SETTINGS} for c in candidates[::2]]
        mixed = [
            {n: v for n, v in c.items() if self._random.random() < _REPLACED_SHARE}
            for c in candidates[1::2]
        ]
        candidates += [{**best[0], **values} for values in modelled]
        candidates += [{**best[i % len(best)], **values} for i, values in enumerate(mixed)]
        candidates += [near for point in best for near in space.neighbours(point)]
        tried_keys = {key(o.point) for o in observations if o.is_own}
        scored: dict[tuple[Any, ...], tuple[float, dict[str, Any]]] = {}
        for _ in range(_LOCAL_ROUNDS):
            fresh = {key(c): c for c in candidates}
            fresh = {k: c for k, c in fresh.items() if k not in tried_keys and k not in scored}
            if not fresh:
                break
            scores = acquisition(list(fresh.values()))
            for (k, c), score in zip(fresh.items(), scores, strict=True):
                scored[k] = float(score), c
            top = sorted(scored.values(), key=lambda entry: -entry[0])[:_LOCAL_STARTS]
            candidates = [near for _, point in top for near in space.neighbours(point)]
        return [c for _, c in sorted(scored.values(), key=lambda entry: -entry[0])]
