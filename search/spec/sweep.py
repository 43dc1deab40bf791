"""The section of a specification that describes a sweep."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from search.spec.dimension import Dimension
from search.spec.section import Section
from search.spec.settings import PointSection
from search.spec.sweep_loads import SweepLoad


class BurstSection(Section):
    """Requests that are all sent at once."""

    kind: Literal["burst"] = Field(description="The kind of load.")
    requests: int = Field(ge=1, le=8000, description="Number of requests.")


class SerialSection(Section):
    """Requests that are sent one after another."""

    kind: Literal["serial"] = Field(description="The kind of load.")
    requests: int = Field(ge=1, description="Number of requests.")


class IntervalSection(Section):
    """Requests at a fixed interval, whether or not earlier ones are answered."""

    kind: Literal["interval"] = Field(description="The kind of load.")
    interval_ms: float | None = Field(
        default=None,
        gt=0,
        description="Time between requests in milliseconds. Give this or `rate_rps`.",
    )
    rate_rps: float | None = Field(
        default=None, gt=0, description="Requests per second. Give this or `interval_ms`."
    )
    duration_s: float = Field(default=10.0, gt=0, description="Length of the load in seconds.")

    @model_validator(mode="after")
    def _has_one_rate(self) -> Self:
        if (self.interval_ms is None) == (self.rate_rps is None):
            raise ValueError("needs interval_ms or rate_rps, and not both")
        return self


class ClosedSection(Section):
    """Users that each send the next request when the previous one is answered."""

    kind: Literal["closed"] = Field(description="The kind of load.")
    users: int = Field(ge=1, le=8000, description="Number of users.")
    duration_s: float = Field(default=10.0, gt=0, description="Length of the load in seconds.")


class SustainedSection(Section):
    """The rate search of a trial: it finds the sustained rate."""

    kind: Literal["sustained"] = Field(description="The kind of load.")


LoadKindSection = Annotated[
    BurstSection | SerialSection | IntervalSection | ClosedSection | SustainedSection,
    Field(discriminator="kind"),
]


class SweepSection(Section):
    """The points of a sweep and the loads to measure at each."""

    loads: list[LoadKindSection] = Field(
        min_length=1, description="The loads to measure at each point. See the kinds below."
    )
    points: list[PointSection] = Field(
        default=[],
        description=(
            "The points to measure, for example `[{workers: 1, batch_size: 8}]`. Without it, "
            "every combination of the lists in `space`."
        ),
    )
    repeats: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Number of times that each point is measured, each in a fresh server.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the random order.")

    @model_validator(mode="after")
    def _points_have_the_same_settings(self) -> Self:
        points = [point.entries() for point in self.points]
        for number, point in enumerate(points):
            if different := sorted(point.keys() ^ points[0].keys()):
                raise ValueError(
                    f"every point must name the same settings; points.{number} and points.0 differ "
                    f"in {', '.join(different)}"
                )
        return self

    def dimensions(self) -> dict[str, Dimension]:
        """Return the settings of `points`, each with its values as choices."""
        points = [point.entries() for point in self.points]
        return {
            name: Dimension(name, choices=tuple(dict.fromkeys(point[name] for point in points)))
            for name in (points[0] if points else ())
        }

    def sweep_loads(self) -> tuple[SweepLoad, ...]:
        """Return the loads as a trial takes them."""
        sweep_loads = []
        for load in self.loads:
            fields = load.model_dump()
            if (interval_ms := fields.pop("interval_ms", None)) is not None:
                fields["rate_rps"] = 1000 / interval_ms
            sweep_loads.append(SweepLoad(**fields))
        return tuple(sweep_loads)
