"""The section `goal` of a specification: what is optimized, its limits, and the rate search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from loadgen.rate.goal import Goal
from search.errors import SpecError, SpecProblem
from search.headroom import DEFAULT_HEADROOM, MAX_HEADROOM
from search.spec.section import Section, optional_section

Seconds = Annotated[float, Field(gt=0)]


class GoalLimitsSection(Section):
    """What a configuration must not exceed, whatever the objective."""

    p99_s: Seconds | None = Field(
        default=None,
        description=(
            "99th percentile of the latency in seconds, at the certified rate or at `for_rps`, "
            "with Poisson arrivals."
        ),
    )
    p95_s: Seconds | None = Field(
        default=None,
        description="95th percentile of the latency in seconds, at the same rate.",
    )
    memory_mb: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Peak memory in MiB of the server and its workers (PSS). Trials may exceed it; to run "
            "them under a limit, set `serving.limits.memory_mb`."
        ),
    )
    workers: int | None = Field(
        default=None, ge=1, description="Worker processes of all models together."
    )

    @field_validator("p95_s")
    @classmethod
    def _quantiles_are_ordered(cls, p95_s: float | None, info: ValidationInfo) -> float | None:
        p99_s = info.data.get("p99_s")
        if p95_s is not None and p99_s is not None and p95_s > p99_s:
            raise ValueError(
                f"{p95_s:g} is above p99_s ({p99_s:g}), so that it limits nothing; lower it or "
                "remove it"
            )
        return p95_s

    @property
    def has_latency(self) -> bool:
        """Whether a latency is limited."""
        return self.p99_s is not None or self.p95_s is not None

    @property
    def given(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name, value in self if value is not None}


class GoalSection(Section):
    """What is optimized, under which limits; precision and time limits of the rate search."""

    objective: Literal["rate", "latency", "footprint"] = Field(
        default="rate",
        description=(
            "`rate`: the highest sustained rate. `latency`: the lowest p99 latency at `for_rps`. "
            "`footprint`: the least memory and the fewest workers that sustain `for_rps` with "
            "`headroom`. See [Objectives](objectives.md)."
        ),
    )
    for_rps: float | None = Field(
        default=None,
        gt=0,
        description=(
            "The rate that the deployment gets, in requests per second. Needed for `latency` and "
            "`footprint`, and for these only."
        ),
    )
    headroom: float | None = Field(
        default=None,
        ge=0,
        le=MAX_HEADROOM,
        description=(
            "Share of the sustained rate that stays free at `for_rps`: 0.3 asks for a sustained "
            "rate of at least `for_rps` ÷ 0.7. The default is 0.3 for `footprint` and 0 for "
            "`latency`."
        ),
    )
    limits: GoalLimitsSection = optional_section(
        "What a configuration must not exceed, whatever the objective."
    )
    width: float = Field(
        default=Goal.width,
        ge=0.005,
        le=0.3,
        description=(
            "Precision of the sustained rate, as a fraction: a window fails if the backlog grows "
            "by more than half of this share of the offered rate. For a short queue or a limit of "
            "the p99 latency, the search ends when its bounds are this close."
        ),
    )
    window_s: float = Field(
        default=Goal.window_s,
        ge=1,
        description=(
            "Minimum length of a window that verifies a rate, in seconds. It lasts 20 rounds of "
            "batches if those take longer."
        ),
    )
    window_limit_s: float = Field(
        default=Goal.window_limit_s,
        ge=1,
        validate_default=True,
        description=(
            "Maximum length of a window, in seconds. If 12 rounds of batches take longer, it "
            "lasts those."
        ),
    )
    warmup_limit_s: float = Field(
        default=Goal.warmup_limit_s,
        ge=1,
        description=(
            "Maximum length of the warm-up, in seconds. A model with slow batches gets up to four "
            "times as long for six rounds of batches."
        ),
    )
    search_limit_s: float = Field(
        default=Goal.search_limit_s,
        ge=5,
        validate_default=True,
        description=(
            "Maximum length of bracketing in one trial, in seconds. It is needed for short queues "
            "and for a limit of the p99 latency only; a model with slow batches gets five windows."
        ),
    )
    max_rate_rps: float = Field(
        default=Goal.max_rate_rps,
        gt=0,
        description="Highest rate to offer, in requests per second.",
    )

    @field_validator("window_limit_s", "search_limit_s")
    @classmethod
    def _holds_a_window(cls, limit_s: float, info: ValidationInfo) -> float:
        if limit_s < (window_s := info.data.get("window_s", 0)):
            raise ValueError(f"must be at least window_s, which is {window_s} (got {limit_s})")
        return limit_s

    @model_validator(mode="before")
    @classmethod
    def _has_no_old_limit(cls, data: Any) -> Any:
        if isinstance(data, dict) and "p99_s" in data:
            raise SpecError(
                [SpecProblem("p99_s", "is now goal.limits.p99_s; move its value there")]
            )
        return data

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if problems := list(self._contradictions()):
            raise SpecError(problems)
        return self

    def _contradictions(self) -> Iterator[SpecProblem]:
        if self.objective == "rate":
            for name in ("for_rps", "headroom"):
                if getattr(self, name) is not None:
                    yield SpecProblem(
                        name,
                        "the objective `rate` looks for the highest rate; remove it, or set "
                        "goal.objective to latency or footprint",
                    )
            return
        if self.for_rps is None:
            yield SpecProblem(
                "for_rps",
                f"is missing; the objective `{self.objective}` needs the rate that the deployment "
                "gets, in requests per second",
            )
        elif (required_rps := self.required_rps or 0.0) > self.max_rate_rps:
            yield SpecProblem(
                "for_rps",
                f"needs a sustained rate of {required_rps:g} rps with its headroom, above "
                f"max_rate_rps, which is {self.max_rate_rps:g}",
            )

    @property
    def required_rps(self) -> float | None:
        """The sustained rate that `for_rps` needs with its headroom; None for `rate`."""
        if self.for_rps is None:
            return None
        default = DEFAULT_HEADROOM if self.objective == "footprint" else 0.0
        return self.for_rps / (1 - (default if self.headroom is None else self.headroom))

    def rate_search(self) -> dict[str, Any]:
        """Return the arguments of `Goal` that this section holds."""
        names = ("width", "window_s", "window_limit_s", "warmup_limit_s", "search_limit_s")
        return {
            **{name: getattr(self, name) for name in (*names, "max_rate_rps", "for_rps")},
            "p99_s": self.limits.p99_s,
            "p95_s": self.limits.p95_s,
        }
