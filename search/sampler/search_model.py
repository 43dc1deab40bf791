"""What the trials of a search teach about its configurations, untried ones included."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.sampler.earlier_run import EarlierRun
from search.sampler.observations import Observation, observations_of
from search.sampler.probing import plan_probes, probe_observations
from search.sampler.sampler import CapacitySampler
from search.spec.space import Space
from search.trial.objective import Objective
from search.trial.prediction import PredictedRate
from search.trial.ranking import finalists, rate_of
from search.trial.result import TrialResult
from search.trial.server_probe import ServerProbe
from serving.configuration.config import ServerConfig


class SearchModel:
    """Asks the sampler, by the results so far.

    Args:
        space: the search space.
        seed: of the sampler.
        results: of the finished trials; the list grows during the run.
        objective: what is optimized, under which limits.

    Attributes:
        space: the search space with the widened ranges.
        sampler: proposes the next point.
    """

    def __init__(self, space: Space, seed: int, results: list[TrialResult], objective: Objective):
        self.space, self._initial_space = space, space
        self._results, self._objective = results, objective
        self.sampler = CapacitySampler(space, seed, self._observations, objective)
        self._earlier_records: Sequence[Mapping[str, Any]] = ()
        self._earlier: EarlierRun | None = None
        self._known: tuple[int, list[Observation]] | None = None

    def widen(self, highs: Mapping[str, int]) -> None:
        """Replace the upper bounds of these dimensions of the initial space."""
        # The sampler scales its features to the initial space, so that they stay comparable.
        self.space = self._initial_space.widened(highs)
        self.sampler.drawn_space = self.space

    def use_earlier(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Use the trials of an earlier run, too; see `earlier_records`."""
        self._earlier_records, self._earlier, self._known = records, None, None

    def nominees(self, count: int) -> list[ServerConfig]:
        """Return the configurations with the highest expected scores among the measured ones.

        The expected score takes all trials into account: the highest of many single measurements
        is too high by chance.
        """
        observations = self._observations()
        measured = finalists(self._results, len(self._results), objective=self._objective)
        if not measured:
            return []
        is_rate = self._objective.maximizes_rate
        posterior = self.sampler.posterior_rates if is_rate else self.sampler.posterior_scores
        expected = posterior(observations)
        points = [observation.point for observation in observations]

        def rank(config: ServerConfig) -> float:
            values = self.space.values(config)
            if values in points:
                return -expected[points.index(values)]
            return -(rate_of(self._results, config) or 0.0) if is_rate else 0.0

        return sorted(measured, key=rank)[:count]

    def predict(self, configs: Sequence[ServerConfig]) -> list[PredictedRate | None]:
        """Return the predicted rate of each configuration; None before the first success.

        None too for a configuration that is not a point of the space.
        """
        observations = self._observations()
        if not any(o.served for o in observations):
            return [None] * len(configs)
        points = [self.space.values(config) for config in configs]
        predicted = iter(self.sampler.predict(observations, [p for p in points if p is not None]))
        return [None if point is None else next(predicted) for point in points]

    def improvement_probability(self) -> float:
        """Return the probability that an untried configuration is more than 3 % faster."""
        return self.sampler.improvement_probability(self._observations())

    def plan_probes(self, config: ServerConfig) -> tuple[ServerProbe, ...]:
        """Return the probes in the server of a configuration that is about to be measured."""
        if not self._objective.compares_capacities:
            return ()
        return plan_probes(self.space, config, self._results, self._expected_gains)

    def _expected_gains(self, configs: Sequence[ServerConfig]) -> list[float]:
        """Return the expected improvement of the log rate by each configuration of the space."""
        observations = self._observations()
        points = [self.space.values(config) for config in configs]
        known = [point for point in points if point is not None]
        if len(known) < len(points) or not any(o.served and o.is_own for o in observations):
            return [math.inf] * len(configs)
        return self.sampler.expected_improvement(observations, known)

    def _observations(self) -> list[Observation]:
        """Return what the finished trials, and those of an earlier run, teach the sampler."""
        if self._known is None or self._known[0] != len(self._results):
            own = observations_of(self._results, self.space, self._objective)
            probed = probe_observations(self._results, self.space)
            if self._earlier is None and self._earlier_records:
                self._earlier = EarlierRun(self._initial_space, self._earlier_records)
            earlier = self._earlier.observations(own) if self._earlier else []
            self._known = len(self._results), [*own, *probed, *earlier]
        return self._known[1]
