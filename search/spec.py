"""The specification of a study: a YAML file, validated whole before anything starts."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from loadgen.payloads import Payload, PayloadError, read_payloads
from loadgen.rate.goal import Goal
from search.loads import Offered
from search.space import DEFAULT_SETTINGS, GROUPS, Dimension, Space, build_space
from serving.archive import Archive, ArchiveError
from serving.config import ConfigError, ServerConfig, parse_environment
from serving.errors import ServerError
from serving.installation import Installation, find_installation, find_java, find_torchserve
from serving.ports import Ports, is_free
from serving.site import Site


class SpecError(ValueError):
    """Everything that is wrong with a specification, one sentence each, with its path.

    Raised within a validator, its paths begin at what is validated.
    """

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


def _beside_the_spec(path: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get("folder", Path())
    try:
        found = (folder / _expanded(path)).resolve()
        if _will_run(info) and not found.is_file():
            raise ValueError(f"{found} does not exist; paths count from the specification's folder")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return found


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} is in the home of a user who is not known") from None


def _archive(path: Path, info: ValidationInfo) -> Path:
    if not _will_run(info):
        return path
    try:
        archive = Archive.read(path)
    except ArchiveError as error:
        raise ValueError(str(error)) from None
    if info.context is not None:
        info.context["archive"] = archive
    return path


def _baseline(path: Path, info: ValidationInfo) -> Path:
    # The archive tells which entry of `models` is its own; where it is wrong, that is told.
    if archive := (info.context or {}).get("archive"):
        read_config(path, archive)  # A ConfigError is a ValueError, which pydantic takes.
    return path


def _requests(path: Path, info: ValidationInfo) -> Path:
    if not _will_run(info):
        return path
    try:
        read_payloads(path)
    except PayloadError as error:
        raise ValueError(str(error)) from None
    return path


def _will_run(info: ValidationInfo) -> bool:
    return not (info.context or {}).get("only_read")


def _found_by(find: Callable[[str | None], object]) -> AfterValidator:
    def check(named: str | None, info: ValidationInfo) -> str | None:
        if _will_run(info):
            try:
                find(named)
            except ServerError as error:
                raise ValueError(str(error)) from None
        return named

    return AfterValidator(check)


def _earlier_run(path: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get("folder", Path())
    found = (folder / _expanded(path)).resolve()
    if _will_run(info) and not (found / "spec.yaml").is_file():
        raise ValueError(f"{found} is not a run's folder: it has no spec.yaml")
    return found


def _port(port: int, info: ValidationInfo) -> int:
    others = [name for name, other in info.data.items() if port and other == port]
    if others:
        raise ValueError(f"port {port} is {others[0]}'s already")
    if port and _will_run(info) and not is_free(port):
        raise ValueError(f"port {port} is in use or not permitted; name a free one, or none")
    return port


ExistingFile = Annotated[Path, AfterValidator(_beside_the_spec)]
Port = Annotated[int, Field(ge=0, le=65535), AfterValidator(_port)]


class Section(BaseModel):
    """A part of the specification: no unknown keys, no coercion of types, unchangeable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


_LENIENT_PATH = Field(strict=False)
#: A section that the file leaves out is validated like one that is empty.
_SECTION_DEFAULT: Any = Field(default={}, validate_default=True)


class ModelSection(Section):
    """What is served, and what it is asked."""

    archive: Annotated[ExistingFile, AfterValidator(_archive), _LENIENT_PATH]
    requests: Annotated[ExistingFile, AfterValidator(_requests), _LENIENT_PATH]


class PortsSection(Section):
    """Ports that must be these; the others are chosen."""

    inference: Port = 0
    management: Port = 0
    metrics: Port = 0
    grpc_inference: Port = 0
    grpc_management: Port = 0


class ServingSection(Section):
    """Where and under what limits TorchServe runs."""

    java: Annotated[str | None, _found_by(find_java), Field(validate_default=True)] = None
    python: Annotated[str | None, _found_by(find_torchserve), Field(validate_default=True)] = None
    baseline: Annotated[ExistingFile, AfterValidator(_baseline), _LENIENT_PATH] | None = None
    ready_timeout_s: float = Field(default=180.0, gt=0)
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
_SHAPES = ("<range>", "<choices>", "<value>")
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
    def _can_be_built(self, info: ValidationInfo) -> Self:
        space = self.build()  # Settings that are right alone may not be so together.
        if not space.dimensions and not (info.context or {}).get("may_be_fixed"):
            raise ValueError("nothing varies; give a setting a range or choices")
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


def _core(core: int, info: ValidationInfo) -> int:
    if _will_run(info) and core >= (cores := os.cpu_count() or 1):
        raise ValueError(f"this host has no core {core}, but 0 to {cores - 1}")
    return core


class LoadSection(Section):
    """How load is made."""

    arrivals: Literal["constant", "poisson"] = "constant"
    timeout_s: float = Field(default=10.0, gt=0)
    processes: int = Field(default=1, ge=1, le=64)
    max_processes: int = Field(default=2, ge=1, le=64)
    cores: list[Annotated[int, Field(ge=0), AfterValidator(_core)]] = []
    seed: int = Field(default=0, ge=0)

    @property
    def most_processes(self) -> int:
        """How many load processes there may be."""
        return max(self.processes, self.max_processes)


class GoalSection(Section):
    """How exactly the sustained rate is looked for, and how long."""

    width: float = Field(default=0.05, ge=0.005, le=0.3)
    window_s: float = Field(default=5.0, ge=1)
    window_limit_s: float = Field(default=20.0, ge=1, validate_default=True)
    warmup_limit_s: float = Field(default=15.0, ge=1)
    search_limit_s: float = Field(default=55.0, ge=5, validate_default=True)
    windows: int = Field(default=2, ge=1, le=5)
    max_rate_rps: float = Field(default=100_000.0, gt=0)
    p99_s: float | None = Field(default=None, gt=0)

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
    warm_start: Annotated[Path, AfterValidator(_earlier_run), _LENIENT_PATH] | None = None
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


SweepLoad = Annotated[
    BurstLoad | SerialLoad | IntervalLoad | ClosedLoad | SustainedLoad, Field(discriminator="kind")
]


class SweepSection(Section):
    """What is measured at every point, how often, in which random order.

    The points are those listed, or else every combination of the space's choices.
    """

    loads: list[SweepLoad] = Field(min_length=1)
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

    def offered(self) -> tuple[Offered, ...]:
        """The loads, as a trial takes them."""
        found = []
        for load in self.loads:
            given = load.model_dump()
            if (interval_ms := given.pop("interval_ms", None)) is not None:
                given["rate_rps"] = 1000 / interval_ms
            found.append(Offered(**given))
        return tuple(found)


class ClusterSection(Section):
    """The Ray cluster whose hosts serve and load; one of this host alone where none is named."""

    address: str | None = None
    unlike_hosts: Literal["leave_out", "keep"] = "leave_out"


class OutputSection(Section):
    """Where a run's folder is made."""

    folder: Annotated[Path, AfterValidator(_expanded), _LENIENT_PATH] = Path("runs")
    storage: str | None = None


def _study_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
        raise ValueError("must be letters, digits, '-', '_' and '.', for it names a folder")
    return name


class StudySpec(Section):
    """A whole specification."""

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


def read_config(path: Path, archive: Archive) -> tuple[ServerConfig, dict[str, str]]:
    """Read a config.properties, and the file `environment` beside it where there is one.

    Returns:
        The configuration, and the lines of the file that servetune sets itself.

    Raises:
        ConfigError: unreadable, or holding what TorchServe does not know.
    """
    try:
        text = path.read_text()
        beside = path.with_name("environment")
        variables = parse_environment(beside.read_text()) if beside.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        return ServerConfig.parse(text, archive, variables)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def load_spec(path: Path, may_be_fixed: bool = False) -> StudySpec:
    """Read and validate a specification.

    Args:
        path: the YAML file; paths in it count from its folder.
        may_be_fixed: whether a space in which nothing varies is allowed.

    Raises:
        SpecError: with every problem that was found.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SpecError([f"{path} cannot be read: {error.strerror}"]) from None
    except (yaml.YAMLError, ValueError) as error:  # A date that is none is a ValueError.
        where = getattr(error, "problem_mark", None)
        at = f" in line {where.line + 1}, column {where.column + 1}" if where else ""
        raise SpecError([f"{path} is not YAML{at}: {getattr(error, 'problem', error)}"]) from None
    if not isinstance(data, dict):
        raise SpecError([f"{path} holds no specification: a mapping with `model:` is needed"])
    data.setdefault("name", path.stem)
    return validate(data, path.resolve().parent, may_be_fixed)


def validate(
    data: Mapping[str, Any], folder: Path, may_be_fixed: bool = False, only_read: bool = False
) -> StudySpec:
    """Validate a specification that was read; paths in it count from `folder`.

    only_read: nothing will be started, so that neither Java nor TorchServe need be here.
    """
    context = {"folder": folder, "may_be_fixed": may_be_fixed, "only_read": only_read}
    try:
        spec = StudySpec.model_validate(data, context=context)
    except ValidationError as error:
        raise SpecError(list(dict.fromkeys(_sentences(error)))) from None
    return spec


_BOUNDS = {
    "greater_than_equal": ("≥", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("≤", "le"),
    "less_than": ("<", "lt"),
}
_TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "path_type": "a path",
    "finite_number": "a finite number",
}


def _sentences(error: ValidationError) -> list[str]:
    """One sentence for each problem, with its path in the file."""
    sentences = []
    for item in error.errors():
        kind, value, context = item["type"], item["input"], item.get("ctx", {})
        path = ".".join(str(part) for part in item["loc"] if part not in _SHAPES)
        if isinstance(inner := context.get("error"), SpecError):
            sentences += [f"{path}.{problem}" for problem in inner.problems]
            continue
        if kind in _BOUNDS:
            sign, key = _BOUNDS[kind]
            what = f"must be {sign} {context[key]}, got {value!r}"
        elif kind == "extra_forbidden":
            what = f"unknown key; {_known_keys(item['loc'])}"
        elif kind == "missing":
            what = "is missing"
        elif kind in _TYPES:
            what = f"must be {_TYPES[kind]}, got {value!r}"
        elif kind == "literal_error":
            what = f"must be {context['expected']}, got {value!r}"
        elif kind == "too_short":
            what = "is empty"
        else:
            what = item["msg"].removeprefix("Value error, ")
        sentences.append(f"{path}: {what}")
    return sentences


def _known_keys(loc: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = StudySpec
    for part in loc[:-1]:
        field = section.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            section = RangeSection
            break
        section = field.annotation
    return f"known here are {', '.join(section.model_fields)}"
