"""An earlier run as prior knowledge: as strong as it predicts the trials of this run. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from search.sampler.observations import Observation
from search.sampler.surrogate import Surrogate
from search.spec.space import Space

#: Maximum number of earlier trials that count: the fastest, and others spread over the rest.
_MAX_EARLIER = 24
#: Expected deviation of log rates between the runs, and the trials that this belief is worth.
_EXPECTED_SD, _EXPECTED_TRIALS = 0.3, 2
#: With a larger deviation, the earlier run teaches nothing about this one.
_MAX_SD = 0.8
#: Errors of earlier trials are alike: any larger number of them counts as this one.
_INDEPENDENT = 4


def earlier_records(observations: Sequence[Observation]) -> list[dict[str, Any]]:
    """Return the observations to keep of an earlier run, as plain JSON data."""
    served = sorted((o for o in observations if o.served), key=lambda o: -o.rate_rps)
    fastest = served[: _MAX_EARLIER // 2]
    rest = served[_MAX_EARLIER // 2 :]
    step = max(math.ceil(len(rest) / (_MAX_EARLIER - len(fastest) or 1)), 1)
    kept = [*fastest, *rest[::step]]
    return [{"point": dict(o.point), "rate_rps": o.rate_rps} for o in kept]


class EarlierRun:
    """The trials of an earlier run.

    Args:
        space: of this run.
        records: see `earlier_records`.
    """

    def __init__(self, space: Space, records: Sequence[Mapping[str, Any]]):
        names = {d.name for d in space.dimensions}
        self._known = [
            Observation(record["point"], record["rate_rps"], is_own=False)
            for record in records
            if record["point"].keys() == names
        ]
        random = np.random.default_rng(0)
        self._surrogate = Surrogate(space, self._known, random) if self._known else None

    def observations(self, own: Sequence[Observation]) -> list[Observation]:
        """Return the earlier trials at the level of this run, with their uncertainty.

        The level, a factor of all rates, and the deviation from it come from the rates of this run
        compared with those that the earlier run predicts. Empty before the first rate, and if the
        earlier run does not predict this one.
        """
        measured = [o for o in own if o.served]
        if self._surrogate is None or not measured:
            return []
        predicted = self._surrogate.predict([o.point for o in measured]).mean
        errors = np.log([o.rate_rps for o in measured]) - predicted
        level = float(np.median(errors))
        squares = float(((errors - level) ** 2).sum()) + _EXPECTED_TRIALS * _EXPECTED_SD**2
        freedom = max(len(errors) - 1, 0) + _EXPECTED_TRIALS
        deviation = math.sqrt(squares / freedom)
        if deviation > _MAX_SD:
            return []
        extra_sd = deviation * math.sqrt(max(len(self._known) / _INDEPENDENT, 1.0))
        return [
            replace(o, rate_rps=o.rate_rps * math.exp(level), extra_sd=extra_sd)
            for o in self._known
        ]
