"""The schema of a specification: sections, types, bounds, defaults."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from loadgen.payloads import Payload, read_payloads
from loadgen.rate.goal import Goal
from search.errors import SpecError
from search.spec.config_file import read_config
from search.spec.space import DEFAULT_SETTINGS, GROUPS, Dimension, Space, build_space
from search.spec.sweep_loads import SweepLoad
from serving.archive import Archive
from serving.config import ServerConfig
from serving.errors import ConfigError
from serving.installation import Installation, find_installation
from serving.ports import Ports
from serving.site import Site

Port = Annotated[int, Field(ge=0, le=65535)]


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} is in the home of a user who does not exist") from None


class Section(BaseModel):
    """A part of the specification: no unknown keys, no coercion of types, unchangeable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


#: A path as text; the home of a user is filled in, a relative one is resolved by `loading`.
AnyPath = Annotated[Path, Field(strict=False), AfterValidator(_expanded)]
#: A section that the file leaves out is validated like one that is empty.
_SECTION_DEFAULT: Any = Field(default={}, validate_default=True)


class ModelSection(Section):
    """What is served, and what it is asked."""

    archive: AnyPath
    requests: AnyPath


class PortsSection(Section):
    """Fixed ports; 0 stands for any free one."""

    inference: Port = 0
    management: Port = 0
    metrics: Port = 0
    grpc_inference: Port = 0
    grpc_management: Port = 0

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        owners: dict[int, str] = {}
        problems = [
            f"{name}: port {port} is also the port of {owners[port]}"
            for name in type(self).model_fields
            if (port := getattr(self, name)) and owners.setdefault(port, name) != name
        ]
        if problems:
            raise SpecError(problems)
        return self


class ServingSection(Section):
    """Where and under what limits TorchServe runs."""

    java: str | None = None
    python: str | None = None
    baseline: AnyPath | None = None
    ready_timeout_s: float = Field(default=Site.ready_timeout_s, gt=0)
    memory_limit_mb: int | None = Field(default=None, ge=1)
    ports: PortsSection = _SECTION_DEFAULT


#: TorchServe's numbers are Java's.
Natural = Annotated[int, Field(ge=1, lt=2**31)]


class RangeSection(Section):
    """A setting that varies over the integers from low to high."""

    low: Natural
    high: Natural
    log: bool = False

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: the range is empty")
        return self


def _shape(value: Any) -> str:
    """Which kind of entry of the space this is meant to be; told by its shape alone."""
    if isinstance(value, dict | RangeSection):
        return "<range>"
    return "<choices>" if isinstance(value, list) else "<value>"


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"must be a number, a text, true or false, got {value!r}")
    return value


#: None of them can be a key's own name.
SHAPES = ("<range>", "<choices>", "<value>")
Scalar = Annotated[Any, AfterValidator(_scalar)]
#: A range, a list of choices, one value for all trials, or null: left to TorchServe.
Number = Annotated[
    Annotated[RangeSection, Tag("<range>")]
    | Annotated[list[Natural], Field(min_length=1), Tag("<choices>")]
    | Annotated[Natural | None, Tag("<value>")],
    Discriminator(_shape),
]
NamedEntry = Annotated[
    Annotated[RangeSection, Tag("<range>")]
    | Annotated[list[Scalar], Field(min_length=1), Tag("<choices>")]
    | Annotated[Scalar, Tag("<value>")],
    Discriminator(_shape),
]


def _settable(entries: dict[str, NamedEntry], info: ValidationInfo) -> dict[str, NamedEntry]:
    wrong = []
    alone = dict.fromkeys(DEFAULT_SETTINGS)
    for name, entry in entries.items():
        try:
            build_space({**alone, f"{info.field_name}.{name}": _entry(entry)}, cores=1)
        except ConfigError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise SpecError(wrong)
    return entries


Named = Annotated[dict[str, NamedEntry], AfterValidator(_settable)]


class Settings(Section):
    """The settings of TorchServe, each with what it may be."""

    workers: Number = None
    batch_size: Number = None
    max_batch_delay_ms: Number = None
    netty_threads: Number = None
    netty_client_threads: Number = None
    mkl_threads: Number = None
    job_queue_size: Number = None
    response_timeout_s: Number = None
    properties: Named = {}
    environment: Named = {}
    jvm: Named = {}

    def entries(self) -> dict[str, Dimension | Any]:
        """What is named, as `build_space` takes it."""
        settings = {
            name: _entry(getattr(self, name))
            for name in type(self).model_fields
            if name in self.model_fields_set and name not in GROUPS
        }
        named = {
            f"{group}.{name}": _entry(value)
            for group in GROUPS
            for name, value in getattr(self, group).items()
        }
        return {**settings, **named}


class SpaceSection(Settings):
    """Which settings vary, over what; a setting that is not named has its default range."""

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self.build(cores=1)  # Settings that are valid alone may conflict.
        return self

    def build(
        self,
        cores: int | None = None,
        whole: bool = True,
        more: Mapping[str, Dimension] = MappingProxyType({}),
    ) -> Space:
        """The search space on a host with this many cores; this host's where not given.

        Args:
            whole: the default settings vary where they are not named.
            more: what varies besides what is named here.
        """
        unnamed = {} if whole else dict.fromkeys(DEFAULT_SETTINGS)
        entries = {**unnamed, **self.entries(), **more}
        return build_space(entries, cores or len(os.sched_getaffinity(0)))


class PointSection(Settings):
    """One value of each setting that a sweep's list varies."""

    @model_validator(mode="after")
    def _is_one_point(self) -> Self:
        for name, entry in self.entries().items():
            if entry is None or isinstance(entry, Dimension):
                raise ValueError(f"{name} must be one value: a point has one of each setting")
        return self


#: More load generator processes than this on a host only disturb each other.
MAX_LOAD_PROCESSES = 64


class LoadSection(Section):
    """How load is made."""

    arrivals: Literal["constant", "poisson"] = "constant"
    timeout_s: float = Field(default=Goal.timeout_s, gt=0)
    processes: int = Field(default=1, ge=1, le=MAX_LOAD_PROCESSES)
    max_processes: int = Field(default=2, ge=1, le=MAX_LOAD_PROCESSES)
    cores: list[Annotated[int, Field(ge=0)]] = []
    seed: int = Field(default=Goal.seed, ge=0)

    @property
    def process_limit(self) -> int:
        """How many load processes there may be."""
        return max(self.processes, self.max_processes)


class GoalSection(Section):
    """How exactly the sustained rate is looked for, and how long."""

    width: float = Field(default=Goal.width, ge=0.005, le=0.3)
    window_s: float = Field(default=Goal.window_s, ge=1)
    window_limit_s: float = Field(default=Goal.window_limit_s, ge=1, validate_default=True)
    warmup_limit_s: float = Field(default=Goal.warmup_limit_s, ge=1)
    search_limit_s: float = Field(default=Goal.search_limit_s, ge=5, validate_default=True)
    windows: int = Field(default=Goal.windows, ge=1, le=5)
    max_rate_rps: float = Field(default=Goal.max_rate_rps, gt=0)
    p99_s: float | None = Field(default=Goal.p99_s, gt=0)

    @field_validator("window_limit_s", "search_limit_s")
    @classmethod
    def _holds_a_window(cls, limit_s: float, info: ValidationInfo) -> float:
        if limit_s < (window_s := info.data.get("window_s", 0)):
            raise ValueError(f"must be ≥ window_s {window_s}, got {limit_s}")
        return limit_s


class SearchSection(Section):
    """How long is searched, and from what seed."""

    trials: int = Field(default=30, ge=1)
    time_budget_s: float | None = Field(default=None, gt=0)
    patience: int | None = Field(default=None, ge=1)
    target_rps: float | None = Field(default=None, gt=0)
    warm_start: AnyPath | None = None
    seed: int = Field(default=0, ge=0)
    incumbent_every: int = Field(default=8, ge=2)


class ConfirmSection(Section):
    """The best of a search measured again, by turns with what is in use, in fresh servers."""

    rounds: int = Field(default=5, ge=2, le=50)
    finalists: int = Field(default=3, ge=1, le=10)


class BurstLoad(Section):
    """Requests all at once."""

    kind: Literal["burst"]
    requests: int = Field(ge=1, le=8000)


class SerialLoad(Section):
    """Requests one after another."""

    kind: Literal["serial"]
    requests: int = Field(ge=1)


class IntervalLoad(Section):
    """One request every so often, whether or not earlier ones were answered."""

    kind: Literal["interval"]
    interval_ms: float | None = Field(default=None, gt=0)
    rate_rps: float | None = Field(default=None, gt=0)
    duration_s: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.interval_ms is None) == (self.rate_rps is None):
            raise ValueError("needs interval_ms or rate_rps, and not both")
        return self


class ClosedLoad(Section):
    """Users that wait for their answers."""

    kind: Literal["closed"]
    users: int = Field(ge=1, le=8000)
    duration_s: float = Field(default=10.0, gt=0)


class SustainedLoad(Section):
    """The search for the sustained rate."""

    kind: Literal["sustained"]


SweepLoadSection = Annotated[
    BurstLoad | SerialLoad | IntervalLoad | ClosedLoad | SustainedLoad, Field(discriminator="kind")
]


class SweepSection(Section):
    """What is measured at every point, how often, in which random order.

    The points are those listed, or else every combination of the space's choices.
    """

    loads: list[SweepLoadSection] = Field(min_length=1)
    points: list[PointSection] = []
    repeats: int = Field(default=3, ge=1, le=100)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _name_the_same(self) -> Self:
        named = [point.entries() for point in self.points]
        for number, entries in enumerate(named):
            if odd := sorted(entries.keys() ^ named[0].keys()):
                raise ValueError(
                    f"every point names the same settings; points.{number} and points.0 differ "
                    f"in {', '.join(odd)}"
                )
        return self

    def varied(self) -> dict[str, Dimension]:
        """The settings of the listed points, each with its values."""
        named = [point.entries() for point in self.points]
        return {
            name: Dimension(name, choices=tuple(dict.fromkeys(each[name] for each in named)))
            for name in (named[0] if named else ())
        }

    def offered(self) -> tuple[SweepLoad, ...]:
        """The loads, as a trial takes them."""
        found = []
        for load in self.loads:
            given = load.model_dump()
            if (interval_ms := given.pop("interval_ms", None)) is not None:
                given["rate_rps"] = 1000 / interval_ms
            found.append(SweepLoad(**given))
        return tuple(found)


class ClusterSection(Section):
    """The Ray cluster whose hosts serve and load; one of this host alone where none is named."""

    address: str | None = None
    heterogeneous_hosts: Literal["leave_out", "keep"] = "leave_out"


class OutputSection(Section):
    """Where a run's folder is made."""

    folder: AnyPath = Path("runs")
    storage: str | None = None


def _study_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
        raise ValueError("must be letters, digits, '-', '_' and '.', for it names a folder")
    return name


class StudySpec(Section):
    """A whole specification."""

    format_version: Literal[2] = 2
    name: Annotated[str, BeforeValidator(str), AfterValidator(_study_name)] = "study"
    model: ModelSection
    serving: ServingSection = _SECTION_DEFAULT
    space: SpaceSection = _SECTION_DEFAULT
    load: LoadSection = _SECTION_DEFAULT
    goal: GoalSection = _SECTION_DEFAULT
    search: SearchSection = _SECTION_DEFAULT
    confirm: ConfirmSection | None = None
    sweep: SweepSection | None = None
    cluster: ClusterSection = _SECTION_DEFAULT
    output: OutputSection = _SECTION_DEFAULT

    @model_validator(mode="after")
    def _can_be_swept(self) -> Self:
        if self.sweep is not None:
            ranges = [d.name for d in self.build_space().dimensions if not d.choices]
            if ranges:
                raise ValueError(
                    f"space.{ranges[0]}: a sweep measures every point: give a list of choices"
                )
            if self.sweep.points and (twice := self._varied_twice()):
                raise ValueError(
                    f"sweep.points: {twice} has a place in space already; where points are listed, "
                    "space holds what they have in common"
                )
        return self

    def _varied_twice(self) -> str | None:
        """A setting of the space that varies, or that the listed points have too."""
        assert self.sweep is not None
        listed = self.sweep.varied()
        for name, entry in self.space.entries().items():
            if name in listed or isinstance(entry, Dimension):
                return name
        return None

    def build_space(self, cores: int | None = None) -> Space:
        """The search space on a host with this many cores.

        What a sweep does not name is left to TorchServe.
        """
        if self.sweep is None:
            return self.space.build(cores)
        return self.space.build(cores, whole=False, more=self.sweep.varied())

    def points(self) -> list[ServerConfig]:
        """What a sweep measures, in its random order."""
        assert self.sweep is not None
        space = self.build_space()
        axes = [d.choices for d in space.dimensions]
        names = [d.name for d in space.dimensions]
        grid = (dict(zip(names, values, strict=True)) for values in itertools.product(*axes))
        points = [point.entries() for point in self.sweep.points] or grid
        every = [space.config(point) for point in points for _ in range(self.sweep.repeats)]
        random.Random(self.sweep.seed).shuffle(every)
        return every

    def resolved(self, cores: int | None = None) -> dict[str, Any]:
        """Plain data with every default written out, the ranges for so many cores among them."""
        if self.sweep is not None:
            named = self.model_dump(mode="json", exclude_unset=True)
            whole = self.model_dump(mode="json")
            whole["space"] = named.get("space", {})
            whole["sweep"]["points"] = named["sweep"].get("points", [])
            return whole
        ranges = {
            d.name: {"low": d.low, "high": d.high, "log": d.log}
            for d in self.build_space(cores).dimensions
            if d.name not in self.space.model_fields_set and "." not in d.name
        }
        space = self.space.model_dump(mode="json", exclude_unset=True)
        return {**self.model_dump(mode="json"), "space": {**ranges, **space}}

    def on_cluster(self, address: str | None) -> Self:
        """The same, to be carried out on this cluster; unchanged where none is named."""
        if address is None:
            return self
        cluster = self.cluster.model_copy(update={"address": address})
        return self.model_copy(update={"cluster": cluster})

    def baseline(self) -> ServerConfig | None:
        """The configuration in use today, where the specification names its file."""
        path = self.serving.baseline
        return read_config(path, self.archive())[0] if path else None

    def archive(self) -> Archive:
        """The model."""
        return Archive.read(self.model.archive)

    def payloads(self) -> list[Payload]:
        """The requests."""
        return read_payloads(self.model.requests)

    def installation(self) -> Installation:
        """The TorchServe and the Java that will run."""
        return find_installation(self.serving.python, self.serving.java)

    def site(self, installation: Installation) -> Site:
        """Where TorchServe runs on this host."""
        limit = self.serving.memory_limit_mb
        return Site(
            self.archive(),
            installation,
            self.serving.ready_timeout_s,
            None if limit is None else limit << 20,
            Ports(**self.serving.ports.model_dump()),
        )

    def goal_of_search(self) -> Goal:
        """What a trial looks for."""
        load = self.load
        return Goal(
            arrivals=load.arrivals,
            timeout_s=load.timeout_s,
            seed=load.seed,
            **self.goal.model_dump(),
        )

    def run_root(self) -> Path:
        """The folder that holds the runs: beside the current folder, or absolute."""
        return self.output.folder.resolve()


def _entry(value: Any) -> Dimension | Any:
    """A pydantic value as `build_space` takes it."""
    if isinstance(value, RangeSection):
        return Dimension("", low=value.low, high=value.high, log=value.log)
    if isinstance(value, list):
        return Dimension("", choices=tuple(value))
    return value
