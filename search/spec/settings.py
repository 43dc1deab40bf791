"""The sections of a specification that hold settings of TorchServe."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    model_validator,
)

from search.errors import SpecError, SpecProblem
from search.spec.dimension import GROUPS, Dimension, model_dimension
from search.spec.section import Section
from search.spec.space import Space
from search.spec.space_building import (
    DEFAULT_MODEL_SETTINGS,
    DEFAULT_SETTINGS,
    build_space,
    default_dimension,
    in_use_entries,
)
from serving.configuration.config import MAX_SETTING, ServerConfig
from serving.configuration.properties import UNBATCHED_ENVELOPES
from serving.errors import ConfigError

Natural = Annotated[int, Field(ge=1, lt=MAX_SETTING + 1)]


class RangeSection(Section):
    """A setting that varies over the integers from `low` to `high`."""

    low: Natural = Field(description="Lowest value.")
    high: Natural = Field(description="Highest value.")
    log: bool = Field(default=False, description="Whether to sample on a logarithmic scale.")
    widen_to: Natural | None = Field(
        default=None,
        description=(
            "The search raises `high` up to this value while the best configuration is on it. "
            "Without it, the range is not widened."
        ),
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: the range is empty")
        if self.widen_to is not None and self.widen_to < self.high:
            raise ValueError(f"widen_to {self.widen_to} is below high {self.high}")
        return self


#: The forms of a setting as parts of pydantic's error paths; no key can have such a name.
FORM_TAGS = ("<range>", "<choices>", "<value>")


def _form_tag(value: Any) -> str:
    """Return the form of a setting, by its type alone."""
    if isinstance(value, dict | RangeSection):
        return "<range>"
    return "<choices>" if isinstance(value, list) else "<value>"


def _is_scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"must be a number, a string, true or false (got {value!r})")
    if isinstance(value, str) and value != value.strip():
        raise ValueError(f"must have no leading or trailing spaces (got {value!r})")
    return value


Scalar = Annotated[Any, AfterValidator(_is_scalar)]
#: A range, a list of choices, one value for all trials, or null for TorchServe's default.
NumberSetting = Annotated[
    Annotated[RangeSection, Tag("<range>")]
    | Annotated[list[Natural], Field(min_length=1), Tag("<choices>")]
    | Annotated[Natural | None, Tag("<value>")],
    Discriminator(_form_tag),
]
#: An entry of a group of settings: a range, a list of choices, or one value for all trials.
GroupEntry = Annotated[
    Annotated[RangeSection, Tag("<range>")]
    | Annotated[list[Scalar], Field(min_length=1), Tag("<choices>")]
    | Annotated[Scalar, Tag("<value>")],
    Discriminator(_form_tag),
]


def _is_accepted(entries: dict[str, GroupEntry], info: ValidationInfo) -> dict[str, GroupEntry]:
    problems = []
    others_fixed = dict.fromkeys(DEFAULT_SETTINGS)
    for name, entry in entries.items():
        try:
            build_space({**others_fixed, f"{info.field_name}.{name}": _space_entry(entry)}, cores=1)
        except ConfigError as error:
            problems.append(SpecProblem(name, str(error)))
    if problems:
        raise SpecError(problems)
    return entries


SettingGroup = Annotated[dict[str, GroupEntry], AfterValidator(_is_accepted)]


class ModelSettingsSection(Section):
    """The settings of one model; of another model, the first three vary if they are not given."""

    workers: NumberSetting = Field(
        default=None,
        description="Worker processes of the model. Default range: 1 to 2 × cores.",
    )
    batch_size: NumberSetting = Field(
        default=None,
        description="Maximum number of requests in a batch. Default range: 1 to 128, logarithmic.",
    )
    max_batch_delay_ms: NumberSetting = Field(
        default=None,
        description=(
            "How long a worker waits for a batch to fill, in milliseconds. Default range: 1 to "
            "200, logarithmic."
        ),
    )
    response_timeout_s: NumberSetting = Field(
        default=None,
        description=(
            "Seconds after which TorchServe kills a worker that has not answered. Does not vary "
            "unless given."
        ),
    )


class SettingsSection(ModelSettingsSection):
    """The settings of TorchServe."""

    netty_threads: NumberSetting = Field(
        default=None,
        description=(
            "Event loop threads of the HTTP front end. Default range: 1 to 2 × cores, logarithmic."
        ),
    )
    netty_client_threads: NumberSetting = Field(
        default=None,
        description=(
            "Event loop threads between the front end and the workers. Default range: 1 to "
            "2 × cores, logarithmic."
        ),
    )
    mkl_threads: NumberSetting = Field(
        default=None,
        description=(
            "`MKL_NUM_THREADS` and `OMP_NUM_THREADS` of every worker. Default range: 1 to the "
            "number of cores, logarithmic."
        ),
    )
    job_queue_size: NumberSetting = Field(
        default=None,
        description=(
            "Requests that may wait in the queue of the model. Unless given, it does not vary: it "
            "is 2 × workers × batch_size, of several models the largest, and at least that of the "
            "baseline."
        ),
    )
    properties: SettingGroup = Field(
        default={},
        description=(
            "Other keys of `config.properties`. A key that TorchServe does not read is an error."
        ),
    )
    environment: SettingGroup = Field(
        default={}, description="Environment variables of the server and its workers."
    )
    jvm: SettingGroup = Field(
        default={},
        description=(
            'JVM arguments, for example `{-Xmx: 2g, "-XX:+UseSerialGC": [true, false]}`. `true` '
            "and `false` switch a flag on and off."
        ),
    )

    def entries(self) -> dict[str, Dimension | Any]:
        """Return the settings that are given, as `build_space` takes them."""
        settings = {
            name: _space_entry(getattr(self, name))
            for name in SettingsSection.model_fields
            if name in self.model_fields_set and name not in GROUPS
        }
        grouped = {
            f"{group}.{name}": _space_entry(value)
            for group in GROUPS
            for name, value in getattr(self, group).items()
        }
        return {**settings, **grouped}


class SpaceSection(SettingsSection):
    """The settings to search. A setting that is not given varies over its default range."""

    models: dict[str, ModelSettingsSection] = Field(
        default={},
        description=(
            "Settings of several models that are tuned at once, by model. Those of the model of "
            "`model.archive` may be here or beside. Each needs a share of `load.mix`. See "
            "[Several models](several-models.md)."
        ),
    )

    def for_model(self, name: str) -> Self:
        """Return the section with the settings of the model of `model.archive` beside `models`.

        Raises:
            SpecError: a setting is in both places.
        """
        own = self.models.get(name)
        if own is None:
            return self
        given = {key: getattr(own, key) for key in own.model_fields_set}
        if twice := sorted(given.keys() & self.model_fields_set):
            problem = f"sets the same as space.{twice[0]}; remove one"
            raise SpecError([SpecProblem(f"space.models.{name}.{twice[0]}", problem)])
        others = {model: section for model, section in self.models.items() if model != name}
        return self.model_copy(update={**given, "models": others})

    def model_entries(self, cores: int) -> dict[str, Dimension | Any]:
        """Return the settings of `models`, as `build_space` takes them; all if they are missing."""
        entries = {}
        for model, section in self.models.items():
            for name in type(section).model_fields:
                dimension = model_dimension(model, name)
                if name in section.model_fields_set:
                    entries[dimension] = _space_entry(getattr(section, name))
                elif name in DEFAULT_MODEL_SETTINGS:
                    entries[dimension] = default_dimension(name, cores)
        return entries

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self.build(cores=1)  # Settings that are valid alone may conflict.
        return self

    def build(
        self,
        cores: int,
        with_defaults: bool = True,
        additional: Mapping[str, Dimension] = MappingProxyType({}),
        in_use: ServerConfig | None = None,
        threads: int | None = None,
    ) -> Space:
        """Return the search space.

        Args:
            cores: of the serving host.
            with_defaults: whether the default settings vary if they are not given.
            additional: dimensions besides those of this section.
            in_use: the configuration whose settings hold where nothing else is said.
            threads: default thread count of torch; `cores` if None.

        Raises:
            ConfigError: settings that are valid alone do not fit together.
        """
        in_use = in_use or ServerConfig()
        left_out = {} if with_defaults else dict.fromkeys(DEFAULT_SETTINGS)
        given = {**self.entries(), **self.model_entries(cores), **additional}
        tuned = {*given, *(DEFAULT_SETTINGS if with_defaults else ())}
        entries = {**left_out, **in_use_entries(in_use, tuned), **given}
        if entries.get("properties.service_envelope") in UNBATCHED_ENVELOPES:
            entries |= {
                model_dimension(model, "batch_size"): 1
                for model, section in self.models.items()
                if "batch_size" not in section.model_fields_set
            }
        model_properties = {
            key: value
            for key, value in in_use.model_properties.items()
            if key != "maxWorkers" or "workers" not in tuned
        }
        sizes_queue = with_defaults and "job_queue_size" not in given
        return build_space(entries, cores, threads, model_properties, sizes_queue)


class PointSection(SettingsSection):
    """One value for each setting that varies over the points of a sweep."""

    @model_validator(mode="after")
    def _has_single_values(self) -> Self:
        for name, entry in self.entries().items():
            if entry is None or isinstance(entry, Dimension):
                raise ValueError(f"{name} must be one value, not a range, a list or null")
        return self


def _space_entry(value: Any) -> Dimension | Any:
    """Return a validated setting as `build_space` takes it."""
    if isinstance(value, RangeSection):
        return Dimension("", low=value.low, high=value.high, log=value.log, widen_to=value.widen_to)
    if isinstance(value, list):
        return Dimension("", choices=tuple(value))
    return value
