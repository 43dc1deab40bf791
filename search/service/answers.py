"""The plots, the Pareto front and the capacity plan of a run, as responses of the API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.answer.operating_points import Role
from search.answer.pareto import pareto_points
from search.answer.picking import pick
from search.answer.plan import capacity_plan
from search.answer.predicted import predicted_points
from search.errors import SpecProblem
from search.headroom import DEFAULT_HEADROOM, MAX_HEADROOM
from search.report.plots import figures
from search.service.errors import RequestError
from search.spec.loading import problems_of
from search.study.reading import read_outcome
from search.study.run_folder import Run
from servetune.errors import InputError

_Finite = Field(gt=0, allow_inf_nan=False)


class FiguresView(BaseModel):
    """The plots of a run by name, as Plotly JSON; the heading is in `layout.meta.heading`."""

    figures: dict[str, dict[str, Any]]


class ParetoView(BaseModel):
    """The configurations of a run with their rate, latency, memory, workers and roles.

    Attributes:
        points: those with `is_measured` false are predicted; their intervals are 90 % intervals.
        unknown: what is not known of the predicted ones, and why.
    """

    points: list[dict[str, Any]]
    unknown: list[str] = []


class PlanView(BaseModel):
    """A capacity plan: replicas, latencies, memory, cost and autoscaling, with intervals."""

    plan: dict[str, Any]


class PlanQuery(BaseModel):
    """What to plan for.

    Attributes:
        rps: the load of all replicas, requests/s.
        p99_s: limit on the p99 latency, seconds.
        headroom: share of a replica's rate to keep free.
        price_per_hour: of a replica.
        pick: the configuration: max, knee, p99=SECONDS or trial=NUMBER; the recommended one if
            it is missing.
    """

    model_config = ConfigDict(extra="forbid")

    rps: Annotated[float, _Finite]
    p99_s: Annotated[float | None, _Finite] = None
    headroom: float = Field(default=DEFAULT_HEADROOM, ge=0, le=MAX_HEADROOM, allow_inf_nan=False)
    price_per_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    pick: str | None = None


def figures_view(run: Run) -> FiguresView:
    """Return every plot that the run has data for."""
    drawn = figures(read_outcome(run))
    return FiguresView(figures={name: json.loads(plot.to_json()) for name, plot in drawn.items()})


def pareto_view(run: Run) -> ParetoView:
    """Return the measured and the predicted configurations of a run."""
    outcome = read_outcome(run)
    predicted = predicted_points(outcome)
    points = [*pareto_points(outcome), *predicted.points]
    return ParetoView(points=[p.to_dict() for p in points], unknown=list(predicted.unknown))


def plan_view(run: Run, query: Mapping[str, str]) -> PlanView:
    """Return the plan that the parameters of a request ask for.

    Raises:
        RequestError: a parameter is wrong, or the run has no such plan.
    """
    try:
        wanted = PlanQuery.model_validate({k: v for k, v in query.items() if v != ""})
    except ValidationError as error:
        raise RequestError(
            422, "the plan's parameters are wrong", problems_of(error, PlanQuery)
        ) from None
    points = pareto_points(read_outcome(run))
    path = "rps"
    try:
        if wanted.pick is None:
            recommended = [p for p in points if Role.RECOMMENDED in p.roles and p.is_measured]
            point = recommended[0] if recommended else pick(points, Role.MAX)
        else:
            path = "pick"
            point = pick(points, wanted.pick)
        path = "rps" if wanted.p99_s is None else "p99_s"
        plan = capacity_plan(
            point, wanted.rps, wanted.p99_s, wanted.headroom, wanted.price_per_hour
        )
    except InputError as error:
        raise RequestError(422, "there is no such plan", [SpecProblem(path, str(error))]) from None
    return PlanView(plan=plan.to_dict())
