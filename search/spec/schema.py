"""The specification as a whole: its sections, what contradicts in them, what they name."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from loadgen.background import BackgroundLoad
from loadgen.payloads import Payload, combine, read_payloads
from loadgen.rate.goal import Goal
from search.errors import SpecError, SpecProblem
from search.spec.config_file import find_key_pair, read_config
from search.spec.dimension import Dimension, split_model
from search.spec.goal import GoalSection
from search.spec.model_loads import model_problems, payloads_of
from search.spec.other_models import add_models
from search.spec.section import Section, optional_section
from search.spec.sections import (
    ClusterSection,
    ConfirmSection,
    LoadSection,
    ModelSection,
    NotifySection,
    OutputSection,
    SearchSection,
)
from search.spec.serving_section import ServingSection
from search.spec.settings import SpaceSection
from search.spec.space import Space
from search.spec.space_building import essential_settings
from search.spec.sweep import SweepSection
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.configuration.deployment import Deployment, archived_settings
from serving.configuration.environment import REDACTED
from serving.configuration.key_pair import KeyPair
from serving.configuration.versions import NEWEST, TorchServeVersion, find_version
from serving.errors import ConfigError
from serving.installation import Installation, find_installation, probe_interpreter
from serving.limits import affinity_cores, available_cores
from serving.ports import Ports
from serving.site import Site


def _is_study_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
        raise ValueError(
            "must consist of letters, digits, '-', '_' and '.', and not start with '.', because it "
            f"names a folder (got {name!r})"
        )
    return name


def _range_of(d: Dimension) -> dict[str, Any]:
    """Return a dimension as a range of a specification."""
    return {"low": d.low, "high": d.high, "log": d.log, "widen_to": d.widen_to}


class StudySpec(Section):
    """A complete specification."""

    format_version: Literal[5] = Field(
        default=5, description="Version of the format of specifications."
    )
    name: Annotated[str, BeforeValidator(str), AfterValidator(_is_study_name)] = Field(
        default="study",
        description=(
            "Name of the study and of its run folders. Letters, digits, `-`, `_` and `.`. The "
            "default is the file's name without its suffix."
        ),
    )
    model: ModelSection = Field(description="The model archive and the requests to send to it.")
    serving: ServingSection = optional_section("How TorchServe runs.")
    space: SpaceSection = optional_section(
        "The settings to search. Without this section, six settings vary over ranges that fit "
        "the host."
    )
    load: LoadSection = optional_section("How requests are sent.")
    goal: GoalSection = optional_section(
        "What is optimized, under which limits; precision and time limits of the rate search."
    )
    search: SearchSection = optional_section("When the search stops, and its seed.")
    confirm: ConfirmSection | None = Field(
        default=ConfirmSection(),
        description=(
            "Measure the best configurations again at the end. `null` or `rounds: 0` turns the "
            "confirmation off."
        ),
    )
    sweep: SweepSection | None = Field(
        default=None, description="The sweep; `servetune sweep` runs a file with this section."
    )
    cluster: ClusterSection = optional_section("The Ray cluster to use.")
    output: OutputSection = optional_section("Where results are written.")
    notify: list[NotifySection] = Field(
        default=[],
        max_length=10,
        description="Webhooks: signed HTTP requests when the run ends.",
    )

    @model_validator(mode="after")
    def _has_a_consistent_goal(self) -> Self:
        if problems := list(self._goal_problems()):
            raise SpecError(problems)
        return self

    def _goal_problems(self) -> Iterator[SpecProblem]:
        """Yield what contradicts the goal in other sections."""
        goal, limits = self.goal, self.goal.limits
        for name in ("p99_s", "p95_s"):
            limit_s = getattr(limits, name)
            if limit_s is not None and limit_s >= self.load.timeout_s:
                yield SpecProblem(
                    f"goal.limits.{name}",
                    f"must be below load.timeout_s, which is {self.load.timeout_s:g} (got "
                    f"{limit_s:g}): a request that takes longer fails in any case",
                )
        served_mb = self.serving.limits.memory_mb
        if limits.memory_mb is not None and served_mb is not None and limits.memory_mb > served_mb:
            yield SpecProblem(
                "goal.limits.memory_mb",
                f"is above serving.limits.memory_mb, which is {served_mb} (got "
                f"{limits.memory_mb}): no trial can exceed it",
            )
        if goal.objective != "rate" and self.search.target_rps is not None:
            yield SpecProblem(
                "search.target_rps",
                f"ends a search for the highest rate, but goal.objective is {goal.objective}; "
                "remove it",
            )
        if self.sweep is not None and goal.objective != "rate":
            yield SpecProblem(
                "goal.objective", f"a sweep optimizes nothing; remove it (got {goal.objective!r})"
            )
        for name in ("memory_mb", "workers"):
            if self.sweep is not None and getattr(limits, name) is not None:
                yield SpecProblem(f"goal.limits.{name}", "a sweep measures every point; remove it")
        if limits.workers is not None and self.sweep is None:
            fewest = self.build_space().fewest_workers
            if fewest > limits.workers:
                yield SpecProblem(
                    "goal.limits.workers",
                    f"is below the fewest workers of the space, {fewest} (got {limits.workers})",
                )

    @model_validator(mode="after")
    def _can_be_swept(self) -> Self:
        if self.sweep is None:
            return self
        for path, value in (
            ("load.mix", self.load.mix),
            ("load.background", self.load.background),
            ("space.models", self.space.models),
        ):
            if value:
                raise ValueError(f"{path}: a sweep measures one model; remove it")
        ranges = [d.name for d in self.build_space().dimensions if not d.choices]
        if ranges:
            raise ValueError(
                f"space.{ranges[0]}: is a range, but a sweep measures every value; give a list of "
                "choices"
            )
        if self.sweep.points and (name := self._setting_in_conflict_with_points()):
            raise ValueError(
                "sweep.points: if points are listed, space may only fix settings that no point "
                f"names; remove space.{name}"
            )
        return self

    def _setting_in_conflict_with_points(self) -> str | None:
        """Return a setting of the space that varies, or that the listed points have too."""
        assert self.sweep is not None
        listed = self.sweep.dimensions()
        for name, entry in self.space.entries().items():
            if name in listed or isinstance(entry, Dimension):
                return name
        return None

    def build_space(
        self,
        cores: int | None = None,
        threads: int | None = None,
        in_use: ServerConfig | None = None,
        space: SpaceSection | None = None,
    ) -> Space:
        """Return the search space on a host, under the limits of this specification.

        In a sweep, only the settings that are given vary.

        Args:
            cores: of the host; those of this host if None.
            threads: default thread count of torch on the host; `cores` if None.
            in_use: the configuration whose settings hold where nothing else is said.
            space: the section to build; that of this specification if None.
        """
        if cores is None:
            cores, threads = available_cores(), affinity_cores()
        # The limits apply to the JVM, not to the default thread count of torch.
        threads = threads or cores
        cores = self.serving.limits.limits().cores(cores)
        built = (space or self.space).build(
            cores,
            with_defaults=self.sweep is None,
            additional=self.sweep.dimensions() if self.sweep else {},
            in_use=in_use,
            threads=threads,
        )
        most = self.goal.limits.workers
        return built if most is None else built.limited_to_workers(most)

    def points(self) -> list[ServerConfig]:
        """Return the configurations that a sweep measures, in its random order."""
        assert self.sweep is not None
        space = self.study_space()
        axes = [d.choices for d in space.dimensions]
        names = [d.name for d in space.dimensions]
        grid = (dict(zip(names, values, strict=True)) for values in itertools.product(*axes))
        points = [point.entries() for point in self.sweep.points] or grid
        configs = [space.config(point) for point in points for _ in range(self.sweep.repeats)]
        random.Random(self.sweep.seed).shuffle(configs)
        return configs

    def resolved(self, cores: int | None = None) -> dict[str, Any]:
        """Return plain data with every default, including the default ranges for the cores."""
        data = self.model_dump(mode="json")
        if self.sweep is not None:
            given = self.model_dump(mode="json", exclude_unset=True)
            data["space"] = given.get("space", {})
            data["sweep"]["points"] = given["sweep"].get("points", [])
            return data
        section = self.space
        if section.models:
            section = section.for_model(self.archive().name)
        dimensions = self.build_space(cores, space=section).dimensions
        ranges = {
            d.name: _range_of(d)
            for d in dimensions
            if d.name not in section.model_fields_set and "." not in d.name
        }
        space = section.model_dump(mode="json", exclude_unset=True)
        for d in dimensions:
            if (of_model := split_model(d.name)) is not None:
                space["models"][of_model[0]].setdefault(of_model[1], _range_of(d))
        return {**data, "space": {**ranges, **space}}

    def on_cluster(self, address: str | None) -> Self:
        """Return this specification with another cluster address; unchanged if it is None."""
        if address is None:
            return self
        cluster = self.cluster.model_copy(update={"address": address})
        return self.model_copy(update={"cluster": cluster})

    def study_space(self, cores: int | None = None, threads: int | None = None) -> Space:
        """Return the search space, with the settings in use where nothing else is said.

        Raises:
            ConfigError: a setting in use and one of the specification do not fit together.
            SpecError: a setting is given twice, or another model of the server is not found.
        """
        in_use = self.in_use()
        section = self.space.for_model(in_use.archive.name)
        problems = model_problems(
            in_use.archive.name,
            [archive.name for archive in in_use.beside],
            self.load.mix,
            self.load.requests,
            self.model.requests,
            self.load.background,
            section.models,
        )
        if found := list(problems):
            raise SpecError(found)
        space = self.build_space(cores, threads, in_use.config, section)
        default = essential_settings(space.common, section.models)
        models = dict(default.models)
        for archive in in_use.beside:
            if archive.name in section.models and (archived := archived_settings(archive)):
                archived.pop("job_queue_size", None)
                models[archive.name] = {**models.get(archive.name, {}), **archived}
        archived = archived_settings(in_use.archive)
        return replace(space, default_config=replace(default, models=models, **archived))

    def torchserve(self) -> TorchServeVersion:
        """Return the version of TorchServe; the newest if this host does not have it."""
        versions = probe_interpreter(self.serving.python or sys.executable)
        return find_version(versions.get("torchserve")) or NEWEST

    def in_use(self) -> Deployment:
        """Read the deployment in use today; without a baseline, only the archive is known.

        Raises:
            ConfigError, ArchiveError: a file cannot be read.
            SpecError: another model of the server is not found.
        """
        return add_models(self.tuned_in_use(), self.serving.models, self._model_stores())

    def tuned_in_use(self) -> Deployment:
        """Read the deployment in use today without its other models.

        Raises:
            ConfigError, ArchiveError: a file cannot be read.
        """
        archive, files = Archive.read(self.model.archive), self.serving.baseline
        later = self.torchserve().later_model_keys
        settings = {key: value for key, value in archive.settings.items() if key not in later}
        archive = replace(archive, settings=settings)
        if files is None:
            return Deployment.of_archive(archive)
        # A copy of a run may be read where its secrets are not.
        secrets, original = (
            path if path and path.exists() else None for path in (files.secrets, files.original)
        )
        return read_config(files.properties, archive, files.environment, secrets, original)

    def _model_stores(self) -> list[Path]:
        """Return the folders that hold the archives of other models."""
        files = self.serving.baseline
        beside = files.properties.parent if files and files.properties else Path()
        return [beside, self.model.archive.parent]

    def baseline(self) -> ServerConfig | None:
        """Read the configuration in use today; None if the specification names none."""
        return self.in_use().config if self.serving.baseline else None

    def baseline_notes(self) -> list[str]:
        """Return what the user must know about the baseline; empty without one."""
        if self.serving.baseline is None:
            return []
        in_use = self.in_use()
        notes = in_use.summary(self.installation())
        tuned_alone = replace(essential_settings(in_use.config), models={})
        if essential := tuned_alone.lines(in_use.archive):
            notes.append(
                "TorchServe's default is measured with what the model may need of the baseline: "
                f"{', '.join(essential)}"
            )
        return notes

    def archive(self) -> Archive:
        """Read the model archive; its name is the one that the baseline registers."""
        return self.in_use().archive

    def payloads(self) -> list[Payload]:
        """Read the requests; those of a mix with their weights, paths and models (as `group`).

        Raises:
            PayloadError: a file cannot be read, or has a line that is not a request.
        """
        own = read_payloads(self.model.requests)
        if not self.load.mix:
            return own
        requests = self.load.requests
        return combine(
            {
                name: (payloads_of(name, requests[name]) if name in requests else own, share)
                for name, share in self.load.mix.items()
            }
        )

    def background_loads(self) -> tuple[BackgroundLoad, ...]:
        """Read the loads of the background.

        Raises:
            PayloadError: a file cannot be read, or has a line that is not a request.
        """
        return tuple(
            BackgroundLoad(
                each.model,
                each.rate_rps,
                tuple(payloads_of(each.model, each.requests)),
                each.arrivals == "poisson",
                self.load.seed + index,
            )
            for index, each in enumerate(self.load.background, 1)
        )

    def installation(self) -> Installation:
        """Find the TorchServe and the Java that this specification names."""
        return find_installation(self.serving.python, self.serving.java)

    def site(self, installation: Installation) -> Site:
        """Return the archive, installation, limits and ports for TorchServe on this host.

        Raises:
            ConfigError: a file of the baseline cannot be read, or a secret is not known.
        """
        in_use = self.in_use()
        key_pair = self.key_pair()
        if unknown := [name for name, text in in_use.secrets.items() if REDACTED in text]:
            raise ConfigError(
                f"the value of {', '.join(unknown)} is not known: it is a secret, and neither "
                "serving.baseline.secrets nor serving.baseline.original names a file with it"
            )
        return Site(
            in_use.archive,
            installation,
            self.serving.ready_timeout_s,
            self.serving.limits.limits(),
            Ports(**self.serving.ports.model_dump()),
            in_use=in_use.config,
            secrets={**in_use.secrets, **(key_pair.variables() if key_pair else {})},
            key_pair=key_pair,
            others=in_use.beside,
        )

    def key_pair(self) -> KeyPair | None:
        """Return the baseline's key pair with absolute paths; None if it is not https.

        Raises:
            ConfigError: a file does not exist, or the keystore's password is not known.
        """
        files = self.serving.baseline
        return find_key_pair(self.in_use(), files.properties if files else None)

    def rate_goal(self) -> Goal:
        """Return the goal of the rate search in a trial."""
        load = self.load
        return Goal(
            arrivals=load.arrivals,
            timeout_s=load.timeout_s,
            seed=load.seed,
            **self.goal.rate_search(),
        )

    @property
    def confirmation_rounds(self) -> int:
        """The maximum number of rounds of the confirmation; 0 without one."""
        return 0 if self.confirm is None or self.sweep is not None else self.confirm.rounds

    def run_root(self) -> Path:
        """Return the absolute path of the folder that holds the runs."""
        return self.output.folder.resolve()
