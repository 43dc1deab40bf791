"""Check a specification against a host: files, ports, Java, TorchServe. Nothing is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loadgen.errors import PayloadError
from loadgen.payloads import read_payloads
from search.errors import SpecError, SpecProblem
from search.spec.schema import StudySpec
from search.spec.settings import SettingsSection
from serving.archive import Archive
from serving.configuration.versions import NEWEST, TorchServeVersion, find_version
from serving.errors import ArchiveError, ConfigError, ServerError
from serving.installation import find_java, find_torchserve
from serving.limits import available_cores
from serving.ports import is_port_free
from serving.unsupported import find_grpc_only, find_streaming_handler


@dataclass(frozen=True)
class HostFacts:
    """The facts of a host that a specification is checked against.

    Attributes:
        cores: number of cores that this process may use.
        cpu_count: number of all cores.
        is_port_free: returns whether a TCP port can be bound.
    """

    cores: int
    cpu_count: int
    is_port_free: Callable[[int], bool] = is_port_free

    @classmethod
    def of_this_host(cls) -> HostFacts:
        """Return the facts of this host."""
        return cls(available_cores(), os.cpu_count() or 1)


def preflight(
    spec: StudySpec, host: HostFacts | None = None, allow_fixed_space: bool = False
) -> None:
    """Check that a run of this specification can start on a host.

    Args:
        host: this host if None.
        allow_fixed_space: whether a space without dimensions is allowed.

    Raises:
        SpecError: with every problem.
    """
    host = host or HostFacts.of_this_host()
    problems = [SpecProblem(path, problem) for path, problem in _problems(spec, host)]
    if not allow_fixed_space and not spec.build_space(host.cores).dimensions:
        problems.append(
            SpecProblem("space", "no setting varies; give at least one a range or choices")
        )
    if problems:
        raise SpecError(problems)


def _problems(spec: StudySpec, host: HostFacts) -> Iterator[tuple[str, str]]:
    archive = None
    if problem := _file_problem(spec.model.archive, may_be_folder=True):
        yield "model.archive", problem
    else:
        try:
            archive = Archive.read(spec.model.archive)
            if problem := find_streaming_handler(archive):
                yield "model.archive", problem
        except ArchiveError as error:
            yield "model.archive", str(error)
    files = {"model.requests": spec.model.requests}
    files |= {f"load.requests.{name}": path for name, path in spec.load.requests.items()}
    for index, each in enumerate(spec.load.background):
        files[f"load.background.{index}.requests"] = each.requests
    for path, file in files.items():
        if problem := _file_problem(file):
            yield path, problem
        else:
            try:
                read_payloads(file)
            except PayloadError as error:
                yield from ((path, problem) for problem in error.problems)
    yield from _serving_problems(spec, host, archive)
    for index, core in enumerate(spec.load.cores):
        if core >= host.cpu_count:
            yield (
                f"load.cores.{index}",
                f"this host has no core {core}; its cores are 0 to {host.cpu_count - 1}",
            )
    earlier_run = spec.search.warm_start
    if earlier_run is not None and not (earlier_run / "spec.yaml").is_file():
        yield "search.warm_start", f"{earlier_run} is not a run folder: it has no spec.yaml"


def _serving_problems(
    spec: StudySpec, host: HostFacts, archive: Archive | None
) -> Iterator[tuple[str, str]]:
    try:
        find_java(spec.serving.java)
    except ServerError as error:
        yield "serving.java", str(error)
    try:
        version = find_version(find_torchserve(spec.serving.python)["torchserve"])
    except ServerError as error:
        yield "serving.python", str(error)
    else:
        yield from _later_keys(spec, version or NEWEST)
    baseline, problems = spec.serving.baseline, {}
    if baseline is not None:
        problems = {
            name: problem
            for name in type(baseline).model_fields
            if (path := getattr(baseline, name))
            and (problem := _file_problem(path, may_be_folder=name == "properties"))
        }
        for name, problem in problems.items():
            yield f"serving.baseline.{name}", problem
    if archive is not None and not problems:
        yield from _model_problems(spec, host)
    for name in type(spec.serving.ports).model_fields:
        port = getattr(spec.serving.ports, name)
        if port and not host.is_port_free(port):
            yield (
                f"serving.ports.{name}",
                f"port {port} is in use or not permitted; set a free port, or 0 for any free port",
            )


def _later_keys(spec: StudySpec, version: TorchServeVersion) -> Iterator[tuple[str, str]]:
    """Yield each property that only later versions of TorchServe read."""
    sections: dict[str, SettingsSection] = {"space": spec.space}
    for number, point in enumerate(spec.sweep.points if spec.sweep else ()):
        sections[f"sweep.points.{number}"] = point
    for path, section in sections.items():
        for key in section.properties:
            if problem := version.problem_with(key):
                yield f"{path}.properties.{key}", problem


def _model_problems(spec: StudySpec, host: HostFacts) -> Iterator[tuple[str, str]]:
    """Yield the problems of the models in use, of their settings, and of their load."""
    try:
        spec.study_space(host.cores)
        spec.key_pair()
        if problem := find_grpc_only(spec.in_use().config.environment):
            yield "serving.baseline", problem
    except ConfigError as error:
        yield "serving.baseline", str(error)
    except SpecError as error:
        yield from ((problem.path, problem.message) for problem in error.records)


def _file_problem(path: Path, may_be_folder: bool = False) -> str | None:
    try:
        if path.is_file() or (may_be_folder and path.is_dir()):
            return None
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return (
        f"{path} does not exist; relative paths are resolved against the folder of the "
        "specification"
    )
