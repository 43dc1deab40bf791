"""The sections of a specification about the load, the search and its results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from loadgen.rate.goal import MAX_TIMEOUT_S, Goal
from search.errors import SpecError
from search.spec.model_loads import BackgroundSection, section_problems
from search.spec.section import HttpUrl, Section, UserPath

#: With more load generator processes on a host, they only disturb each other.
MAX_LOAD_PROCESSES = 64


class ModelSection(Section):
    """The model archive and the requests to send to it."""

    archive: UserPath = Field(description="A `.mar` file made by `torch-model-archiver`.")
    requests: UserPath = Field(
        description="A file with one request per line. See [Requests](requests.md)."
    )


class LoadSection(Section):
    """How requests are sent."""

    arrivals: Literal["constant", "poisson"] = Field(
        default="constant",
        description="Time between requests, constant or exponentially distributed.",
    )
    timeout_s: float = Field(
        default=Goal.timeout_s,
        gt=0,
        le=MAX_TIMEOUT_S,
        description=(
            "A request fails if it is not answered within this time after its due time, in seconds."
        ),
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=MAX_LOAD_PROCESSES,
        description="Number of load generator processes to start with.",
    )
    max_processes: int = Field(
        default=2,
        ge=1,
        le=MAX_LOAD_PROCESSES,
        description=(
            "Maximum number of load generator processes. servetune adds one if the generator "
            "cannot send on time."
        ),
    )
    cores: list[Annotated[int, Field(ge=0)]] = Field(
        default=[], description="CPU cores to pin the load generator processes to."
    )
    seed: int = Field(
        default=Goal.seed,
        ge=0,
        description="Seed of the arrival times and of the order of requests.",
    )
    mix: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={},
        description=(
            "Shares of several models in all requests, for example `{a: 3, b: 1}`. The sustained "
            "rate is then the total rate of the mix. See [Several models](several-models.md)."
        ),
    )
    requests: dict[str, UserPath] = Field(
        default={},
        description="Requests files of the models in `mix` other than that of `model.archive`.",
    )
    background: list[BackgroundSection] = Field(
        default=[], description="Loads of other models of the server in every window."
    )

    @model_validator(mode="after")
    def _has_consistent_loads(self) -> Self:
        if problems := list(section_problems(self.mix, self.requests, self.background)):
            raise SpecError(problems)
        return self

    @property
    def process_total(self) -> int:
        """Maximum number of load generator processes, with one for each background load."""
        return self.process_limit + len(self.background)

    @property
    def process_limit(self) -> int:
        """Maximum number of load generator processes, at least `processes`."""
        return max(self.processes, self.max_processes)


class SearchSection(Section):
    """When the search stops, and its seed."""

    trials: int = Field(default=30, ge=1, description="Maximum number of trials.")
    time_budget_s: float | None = Field(
        default=None,
        gt=0,
        description="Maximum time of the run in seconds, including the confirmation.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this number of trials without an improvement.",
    )
    min_improvement_probability: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description=(
            "Stop when the probability that any untried configuration is more than 3 % faster is "
            "lower than this. 0 never stops the search."
        ),
    )
    target_rps: float | None = Field(
        default=None,
        gt=0,
        description="Stop when a configuration sustains this rate, in requests per second.",
    )
    warm_start: UserPath | None = Field(
        default=None,
        description=(
            "Folder of an earlier run of the same model, also on another host. Its best "
            "configurations are tried first, and its trials guide the search by as much as they "
            "predict the first trials here."
        ),
    )
    seed: int = Field(default=0, ge=0, description="Seed of the sampler.")
    probes: bool = Field(
        default=False,
        description=(
            "Whether a trial, after its own measurement, scales its server down and observes other "
            "configurations with fewer workers or smaller batches. What it observes only guides "
            "the search."
        ),
    )
    incumbent_every: int = Field(
        default=8,
        ge=2,
        description="Measure the best configuration again after this number of trials.",
    )


class ConfirmSection(Section):
    """The confirmation: short interleaved visits to the best configurations and the reference."""

    rounds: int = Field(
        default=40,
        ge=0,
        le=100,
        description=(
            "Maximum number of rounds; 0 for no confirmation. Each round visits the finalists that "
            "are left, in fresh servers. The confirmation ends earlier if its intervals are narrow."
        ),
    )
    finalists: int = Field(
        default=3, ge=1, le=10, description="Maximum number of configurations to confirm."
    )
    time_limit_s: float = Field(
        default=900,
        gt=0,
        description=(
            "Maximum time of the visits in seconds; three rounds are measured in any case. "
            "`search.time_budget_s` includes it."
        ),
    )


class ClusterSection(Section):
    """The Ray cluster to use."""

    address: str | None = Field(
        default=None,
        description=(
            "Address of a Ray cluster, `HOST:PORT`. Without it, servetune runs everything on this "
            "host."
        ),
    )
    heterogeneous_hosts: Literal["leave_out", "keep"] = Field(
        default="leave_out",
        description=(
            "What to do with a serving host that is more than 10 % faster or slower than the "
            "others."
        ),
    )


class OutputSection(Section):
    """Where results are written."""

    folder: UserPath = Field(
        default=Path("runs"),
        description="Folder that holds the run folders. Relative to the current folder.",
    )
    storage: str | None = Field(
        default=None,
        description=(
            "SQLAlchemy URL of the Optuna storage. The default is a SQLite file in the run folder."
        ),
    )
    mlflow: HttpUrl | None = Field(
        default=None,
        description=(
            "URL of an MLflow tracking server. The run and each of its trials are logged there. "
            "Needs `pip install 'servetune[mlflow]'`."
        ),
    )


class NotifySection(Section):
    """A webhook: a signed HTTP request when the run ends."""

    url: HttpUrl = Field(description="The URL that receives the request, by POST.")
    on: list[Literal["finished", "failed", "stopped"]] = Field(
        default=["finished", "failed"],
        min_length=1,
        description="The ends of a run that are reported: `finished`, `failed`, `stopped`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, data: Any) -> Any:
        # YAML 1.1 reads the key `on` as true.
        return (
            {"on" if k is True else k: v for k, v in data.items()}
            if isinstance(data, dict)
            else data
        )
