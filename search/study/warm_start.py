"""Starting points and trials from an earlier run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from search.spec.schema import StudySpec
from search.study.diff import COMPARED_SECTIONS, differences
from search.study.run_folder import Run
from search.trial.objective import Objective
from search.trial.ranking import finalists
from search.trial.result import TrialResult
from serving.configuration.config import ServerConfig
from serving.configuration.defaults import torchserve_defaults

#: Number of an earlier run's best configurations to start with.
WARM_POINTS = 3


def warm_points(spec: StudySpec) -> list[ServerConfig]:
    """Return an earlier run's best configurations; empty without a warm start."""
    if spec.search.warm_start is None:
        return []
    results = Run.open(spec.search.warm_start).results()
    # An earlier run without the figures of this objective still knows which rates are high.
    best = finalists(results, WARM_POINTS, objective=Objective.of(spec.goal))
    return best or finalists(results, WARM_POINTS)


def earlier_results(spec: StudySpec) -> list[TrialResult]:
    """Return an earlier run's trials; empty without a warm start.

    Settings that were unset have the values that they had there: on a host with other cores, the
    defaults differ.
    """
    if spec.search.warm_start is None:
        return []
    return [_with_defaults(result) for result in Run.open(spec.search.warm_start).results()]


def _with_defaults(result: TrialResult) -> TrialResult:
    if (cores := result.host.cores) is None:
        return result
    defaults = torchserve_defaults(cores, result.host.facts.get("affinity_cores"))
    known = {**defaults, **result.server.settings}
    unset: dict[str, Any] = {
        name: known[name]
        for name in defaults
        if name in known and getattr(result.config, name, 0) is None
    }
    return replace(result, config=replace(result.config, **unset))


def warm_start_differences(run: Run, spec: StudySpec) -> list[str]:
    """Return the differences from the run of the warm start."""
    if spec.search.warm_start is None or not (spec.search.warm_start / "spec.yaml").is_file():
        return []  # The earlier run may be deleted before this run is resumed.
    # If the spaces differ, the search starts with the nearest points.
    return differences(Run.open(spec.search.warm_start), run, (*COMPARED_SECTIONS, "space"))
