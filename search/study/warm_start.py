"""Starting points and trials from an earlier run."""

from __future__ import annotations

from search.spec.schema import StudySpec
from search.study.diff import COMPARED_SECTIONS, differences
from search.study.ranking import finalists
from search.study.run_folder import Run
from search.trial.result import TrialResult
from serving.config import ServerConfig

#: Number of an earlier run's best configurations to start with.
WARM_POINTS = 3


def warm_points(spec: StudySpec) -> list[ServerConfig]:
    """Return an earlier run's best configurations; empty without a warm start."""
    if spec.search.warm_start is None:
        return []
    return finalists(Run.open(spec.search.warm_start).results(), WARM_POINTS)


def earlier_results(spec: StudySpec) -> list[TrialResult]:
    """Return an earlier run's trials; empty without a warm start."""
    return [] if spec.search.warm_start is None else Run.open(spec.search.warm_start).results()


def warm_start_differences(run: Run, spec: StudySpec) -> list[str]:
    """Return the differences from the run of the warm start."""
    if spec.search.warm_start is None or not (spec.search.warm_start / "spec.yaml").is_file():
        return []  # The earlier run may be deleted before this run is resumed.
    # If the spaces differ, the search starts with the nearest points.
    return differences(Run.open(spec.search.warm_start), run, (*COMPARED_SECTIONS, "space"))
