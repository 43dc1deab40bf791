"""The starting points that an earlier run gives."""

from __future__ import annotations

from search.spec.schema import StudySpec
from search.study.diff import COMPARED, differences
from search.study.ranking import finalists
from search.study.run_folder import Run
from serving.config import ServerConfig

#: This many of an earlier run's best configurations are tried first.
WARM_POINTS = 3


def warm_points(spec: StudySpec) -> list[ServerConfig]:
    """Return an earlier run's best configurations; none if no warm start is asked for."""
    if spec.search.warm_start is None:
        return []
    return finalists(Run.open(spec.search.warm_start).results(), WARM_POINTS)


def warm_start_differences(run: Run, spec: StudySpec) -> list[str]:
    """Return what differs from the run that the warm start reads."""
    if spec.search.warm_start is None or not (spec.search.warm_start / "spec.yaml").is_file():
        return []  # It is read once; a resumed run does not need it any more.
    # If the spaces differ, the points nearest to the earlier run's best are taken.
    return differences(Run.open(spec.search.warm_start), run, (*COMPARED, "space"))
