"""Docker Compose: one service, with the files that it mounts."""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from serving.errors import ConfigError
from serving.limits import Limits
from serving.platforms.command import Command, find_command
from serving.platforms.docker import Provided, Stage, copied_file, read_stage
from serving.platforms.dotenv import fill_in, parse_dotenv
from serving.platforms.files import (
    PlatformFiles,
    command_notes,
    config_path,
    config_place,
    config_source,
    count_cpus,
    is_file,
    naming_file,
    one,
    parse_quantity,
    passed_variables,
    read_bytes_as_text,
    read_documents,
    read_text,
    script_reader,
)

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")

#: Lists that Compose joins if an override has the same key.
_JOINED = ("configs", "env_file", "volumes")


def read_compose(path: Path) -> PlatformFiles:
    """Read the service that runs TorchServe.

    Raises:
        ConfigError: there is not exactly one, or a file that it needs is missing.
    """
    variables = _project_variables(path.parent)
    loader = _Loader(variables)
    document = loader.load(path)
    service = _service(document, variables, path)
    built = _Build.read(service)
    given = _service_variables(service, variables)
    passed = [name for name, text in given.items() if text is None]
    secrets, passed_notes = passed_variables(passed, "from the shell that starts Compose")
    environment = {**built.stage.environment, **_without_none(given)}
    words = _words(service, built.stage)
    folder = posixpath.join(built.stage.work_folder, str(service.get("working_dir") or ""))
    configs = document.get("configs") or {}
    scripts = script_reader(folder, lambda place: _provided(service, configs, built, place).text)
    found = find_command(words, environment, scripts)
    command = found or Command(())
    environment, arguments = {**environment, **command.variables}, command.options
    place = config_place(found, environment, folder)
    provided = _provided(service, configs, built, place)
    notes = [*built.notes, *command_notes(found, words, place), *provided.notes]
    if provided.text is None and config_path(arguments, environment) is not None:
        problem = (
            f"the service reads {place}, which no volume provides; "
            f"it is {config_source(environment)}"
        )
        raise ConfigError(f"{path}: {problem if provided.is_known else provided.notes[0]}")
    if provided.text is None and provided.is_known:
        notes.append("no config.properties is mounted: the image has its own")
    if unknown := [name for name, value in environment.items() if "${" in value]:
        notes.append(
            f"variables with a reference that {path.parent / '.env'} does not set, left as it is: "
            f"{', '.join(sorted(unknown))}"
        )
    return PlatformFiles(
        "compose",
        provided.text or "",
        environment,
        arguments,
        _limits(service),
        secrets,
        (*loader.documents, *(file for file in (built.file, provided.file) if file)),
        (*notes, *passed_notes),
    )


def _provided(
    service: Mapping[str, Any], configs: Mapping[str, Any], built: _Build, place: str
) -> Provided:
    """Return what a service has at a path: a config, a mounted file, or one of its image."""
    configured = _configured(service, configs, place)
    if isinstance(configured, str):
        return Provided(configured)
    if (file := configured or _mounted(service, place)) is not None:
        return Provided(read_bytes_as_text(file), file)
    if built.folder is None:
        return Provided()
    return copied_file(built.stage, PurePosixPath(place), built.folder)


def _service_variables(
    service: Mapping[str, Any], variables: Mapping[str, str]
) -> dict[str, str | None]:
    """Return the variables of a service; None for a value that is not in the project's files.

    Args:
        variables: those of the project.
    """
    given: dict[str, str | None] = {}
    for entry in service.get("env_file") or ():
        file = Path(entry["path"])
        if entry.get("required") is not False or is_file(file):
            given |= _read_dotenv(file, variables, entry.get("format") == "raw")
    given |= _variables(service.get("environment"))
    return {name: variables.get(name) if text is None else text for name, text in given.items()}


def may_run_torchserve(path: Path) -> bool:
    """Return whether a file has only one service, or one whose command or image has torchserve.

    Raises:
        ConfigError: the file cannot be read.
    """
    services = _Loader(_project_variables(path.parent)).load(path).get("services") or {}
    return len(services) == 1 or any(map(_may_run_torchserve, services.values()))


def is_compose(documents: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the documents of a file are those of a compose file."""
    return any(isinstance(d.get("services"), dict) and "kind" not in d for d in documents[:1])


def _project_variables(folder: Path) -> dict[str, str]:
    """Return the variables that the compose files in a folder refer to."""
    variables = {"PWD": str(folder)}
    if is_file(env := folder / ".env"):
        variables |= _without_none(_read_dotenv(env, variables))
    return variables


def _read_dotenv(
    path: Path, variables: Mapping[str, str], is_raw: bool = False
) -> dict[str, str | None]:
    with naming_file(path):
        return parse_dotenv(read_text(path), variables, is_raw)


def _without_none(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in variables.items() if text is not None}


@dataclass
class _Loader:
    """Reads compose files with those that they include and extend.

    Attributes:
        variables: those that the files refer to.
        documents: the files that were read, by path.
    """

    variables: Mapping[str, str]
    documents: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def load(self, path: Path) -> dict[str, Any]:
        """Return a file and the override that Compose adds, merged."""
        override = path.with_name(f"{path.stem}.override{path.suffix}")
        found = self._load(path)
        return _merged(found, self._load(override)) if is_file(override) else found

    def _load(self, path: Path) -> dict[str, Any]:
        document = self._document(path)
        services = document.get("services") or {}
        extended = {
            name: self._extended(service, services, path)
            for name, service in services.items()
            if isinstance(service, dict)
        }
        included: dict[str, Any] = {}
        for entry in _as_list(document.get("include")):
            for name in _as_list(entry.get("path") if isinstance(entry, dict) else entry):
                if (file := _located(path.parent, name)) not in self.documents:
                    included = _merged(included, self._load(file))
        return _merged(included, {**document, "services": extended})

    def _document(self, path: Path) -> dict[str, Any]:
        if path in self.documents:
            return self.documents[path]
        (found, *_) = read_documents(path) or [{}]
        document: dict[str, Any] = _filled_in(found, self.variables)
        for kind in ("services", "configs"):
            for entry in (document.get(kind) or {}).values():
                if isinstance(entry, dict):
                    _locate(entry, path.parent)
        self.documents[path] = document
        return document

    def _extended(
        self, service: dict[str, Any], services: Mapping[str, Any], path: Path
    ) -> dict[str, Any]:
        """Return a service merged with the one that it extends."""
        if (given := service.get("extends")) is None:
            return service
        given = given if isinstance(given, dict) else {"service": given}
        if file := given.get("file"):
            path = _located(path.parent, file)
            services = self._document(path).get("services") or {}
        if (name := str(given.get("service"))) not in services:
            raise ConfigError(f"{path} has no service {name}, which another one extends")
        base = self._extended(services[name], services, path)
        return _merged(base, {key: value for key, value in service.items() if key != "extends"})


def _located(folder: Path, name: object) -> Path:
    return Path(os.path.normpath(folder / str(name)))


def _locate(entry: dict[str, Any], folder: Path) -> None:
    """Let the paths in a service or config start in the folder of its file."""
    if "file" in entry:
        entry["file"] = str(_located(folder, entry["file"]))
    files = _as_list(entry.get("env_file"))
    files = [file if isinstance(file, dict) else {"path": file} for file in files]
    entry["env_file"] = [{**file, "path": _located(folder, file.get("path"))} for file in files]
    volumes = []
    for volume in entry.get("volumes") or ():
        if not isinstance(volume, dict):
            source, _, rest = str(volume).partition(":")
            kind = "bind" if source.startswith((".", "/", "~")) else "volume"
            volume = {"type": kind, "source": source, "target": rest.partition(":")[0]}
        if volume.get("type") == "bind":
            volume = {**volume, "source": _located(folder, volume.get("source"))}
        volumes.append(volume)
    entry["volumes"] = volumes
    if build := entry.get("build"):
        build = build if isinstance(build, dict) else {"context": build}
        context = str(build.get("context") or ".")
        is_remote = "://" in context or context.startswith("git@")
        entry["build"] = {**build, "context": context if is_remote else _located(folder, context)}


def _filled_in(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled_in(entry, variables) for key, entry in value.items()}
    if isinstance(value, list):
        return [_filled_in(entry, variables) for entry in value]
    return fill_in(value, variables) if isinstance(value, str) else value


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return two mappings of compose files merged as Compose does; the second takes precedence."""
    merged = {**first}
    for key, value in second.items():
        found = merged.get(key)
        if key == "environment" and found and value:
            merged[key] = {**_variables(found), **_variables(value)}
        elif isinstance(found, dict) and isinstance(value, dict):
            merged[key] = _merged(found, value)
        elif key in _JOINED and found is not None and value is not None:
            # The last file with variables counts, and the first volume at a path.
            pair = (value, found) if key in ("configs", "volumes") else (found, value)
            merged[key] = [entry for part in pair for entry in _as_list(part)]
        else:
            merged[key] = value
    return merged


def _configured(
    service: Mapping[str, Any], configs: Mapping[str, Any], place: str
) -> str | Path | None:
    """Return the text or the path of the config that a service has at a path; None for none."""
    for entry in service.get("configs") or ():
        given = entry if isinstance(entry, dict) else {"source": entry}
        name = str(given.get("source"))
        if posixpath.normpath(str(given.get("target") or f"/{name}")) == place:
            config = configs.get(name) or {}
            if "content" in config:
                return str(config["content"]).encode().decode("latin-1")
            return Path(str(config["file"])) if "file" in config else None
    return None


@dataclass
class _Build:
    """The image of a service, as far as a Dockerfile describes it.

    Attributes:
        folder: that of the build; None if the image is not built.
        file: the Dockerfile; None without one.
    """

    stage: Stage = field(default_factory=Stage)
    folder: Path | None = None
    file: Path | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, service: Mapping[str, Any]) -> _Build:
        build = service.get("build") or {}
        if not (folder := build.get("context")):
            return cls()
        if not isinstance(folder, Path):
            # Its URL may have a password.
            return cls(
                notes=("the image is built from a repository, which servetune does not read",)
            )
        file = None
        if (text := build.get("dockerfile_inline")) is None:
            file = folder / str(build.get("dockerfile") or "Dockerfile")
            if not is_file(file):
                return cls(notes=(f"the image is built from {file}, which does not exist",))
            text = read_text(file)
        arguments = _without_none(_variables(build.get("args")))
        stage = read_stage(str(text), arguments, str(build.get("target") or ""))
        return cls(stage, folder, file)


def _service(
    document: Mapping[str, Any], variables: Mapping[str, str], path: Path
) -> Mapping[str, Any]:
    """Return the service that runs TorchServe: of several, the one that is started by default.

    Raises:
        ConfigError: there is not exactly one.
    """
    services = [s for s in (document.get("services") or {}).values() if isinstance(s, dict)]
    if len(services) > 1:
        services = [service for service in services if _may_run_torchserve(service)]
    active = {*variables.get("COMPOSE_PROFILES", "").split(",")}
    started = [
        service
        for service in services
        if not service.get("profiles") or "*" in active or active & {*service["profiles"]}
    ]
    service: Mapping[str, Any] = one(started or services, "services that run torchserve", path)
    return service


def _may_run_torchserve(service: Mapping[str, Any]) -> bool:
    stage = _Build.read(service).stage
    if "torchserve" in str(service.get("image", "")) or stage.may_run_torchserve():
        return True
    return find_command(_words(service, stage), stage.environment) is not None


def _words(service: Mapping[str, Any], stage: Stage) -> list[str]:
    """Return the command of a service, which may have that of its image."""
    entrypoint, command = (
        shlex.split(value) if isinstance(value, str) else value and [str(word) for word in value]
        for value in (service.get("entrypoint"), service.get("command"))
    )
    if entrypoint is None:
        entrypoint = stage.commands.get("ENTRYPOINT", [])
        command = stage.commands.get("CMD", []) if command is None else command
    return [*entrypoint, *(command or ())]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _variables(value: Any) -> dict[str, str | None]:
    """Return variables by name; None for the value of one that Compose passes on."""
    if isinstance(value, list):
        pairs = [str(entry).partition("=") for entry in value]
        return {name: text if equals else None for name, equals, text in pairs}
    return {str(k): None if v is None else str(v) for k, v in (value or {}).items()}


def _mounted(service: Mapping[str, Any], place: str) -> Path | None:
    """Return the file at a place in the container: of several volumes, that of the longest path."""
    found: dict[int, Path] = {}
    for volume in service.get("volumes") or ():
        path = PurePosixPath(str(volume.get("target", "")))
        # Docker copies the image's files to a new volume that has a name.
        if volume.get("type") == "bind" and PurePosixPath(place).is_relative_to(path):
            file = Path(volume["source"]) / PurePosixPath(place).relative_to(path)
            found.setdefault(len(path.parts), file)
    return found[max(found)] if found else None


def _limits(service: Mapping[str, Any]) -> Limits:
    deploy = ((service.get("deploy") or {}).get("resources") or {}).get("limits") or {}
    cpus = deploy.get("cpus", service.get("cpus"))
    memory = deploy.get("memory", service.get("mem_limit"))
    given = [float(cpus)] if cpus is not None else []
    if cpuset := service.get("cpuset"):
        given.append(float(count_cpus(str(cpuset))))
    return Limits(
        min(given, default=None),
        _memory_bytes(memory) if memory is not None else None,
    )


def _memory_bytes(text: object) -> int:
    """Return a size as Docker reads it: k, m and g are powers of 1024."""
    number = str(text).strip().lower().removesuffix("b")
    unit = {"k": "Ki", "m": "Mi", "g": "Gi"}.get(number[-1:], "")
    return int(parse_quantity(number.rstrip("kmg") + unit))
