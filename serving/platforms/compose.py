"""Docker Compose: one service, with the files that it mounts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from serving.environment import parse_environment
from serving.errors import ConfigError
from serving.limits import Limits
from serving.platforms.command import Command, find_command
from serving.platforms.files import (
    DEFAULT_CONFIG,
    PlatformFiles,
    config_path,
    config_source,
    one,
    parse_quantity,
    read_bytes_as_text,
    read_documents,
    read_text,
)

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


def read_compose(path: Path) -> PlatformFiles:
    """Read the service that runs TorchServe.

    Raises:
        ConfigError: there is not exactly one, or a file that it needs is missing.
    """
    (document, *_) = read_documents(path) or [{}]
    services = [s for s in (document.get("services") or {}).values() if isinstance(s, dict)]
    if len(services) > 1:
        services = [service for service in services if _runs_torchserve(service)]
    service = one(services, "services that run torchserve", path)
    environment: dict[str, str] = {}
    for file in _as_list(service.get("env_file")):
        name = file.get("path") if isinstance(file, dict) else file
        environment |= parse_environment(read_text(path.parent / str(name)))
    environment |= _variables(service.get("environment"))
    command = find_command(_words(service), environment) or Command(())
    environment, options = {**environment, **command.variables}, command.options
    place = config_path(options, environment)
    file = _mounted(service, place or DEFAULT_CONFIG, path.parent)
    if file is None and place is not None:
        raise ConfigError(
            f"{path}: the service reads {place}, which no volume provides; "
            f"it is {config_source(environment)}"
        )
    notes = () if file else ("no config.properties is mounted: the image has its own",)
    return PlatformFiles(
        "compose",
        read_bytes_as_text(file) if file else "",
        environment,
        options,
        _limits(service),
        sources=(path, file) if file else (path,),
        notes=notes,
    )


def _runs_torchserve(service: Mapping[str, Any]) -> bool:
    is_named = "torchserve" in str(service.get("image", ""))
    return is_named or find_command(_words(service), {}) is not None


def _words(service: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for key in ("entrypoint", "command"):
        value = service.get(key) or []
        words += shlex.split(value) if isinstance(value, str) else [str(word) for word in value]
    return words


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _variables(value: Any) -> dict[str, str]:
    if isinstance(value, list):
        pairs = [str(entry).partition("=") for entry in value]
        return {name: text for name, equals, text in pairs if equals}
    return {str(k): "" if v is None else str(v) for k, v in (value or {}).items()}


def _mounted(service: Mapping[str, Any], place: str, folder: Path) -> Path | None:
    for volume in service.get("volumes") or ():
        if isinstance(volume, dict):
            source, target = str(volume.get("source", "")), str(volume.get("target", ""))
        else:
            source, _, rest = str(volume).partition(":")
            target = rest.partition(":")[0]
        if target == place:
            return folder / source
        try:
            return folder / source / PurePosixPath(place).relative_to(target)
        except ValueError:
            continue
    return None


def _limits(service: Mapping[str, Any]) -> Limits:
    deploy = ((service.get("deploy") or {}).get("resources") or {}).get("limits") or {}
    cpus = deploy.get("cpus", service.get("cpus"))
    memory = deploy.get("memory", service.get("mem_limit"))
    return Limits(
        float(cpus) if cpus is not None else None,
        _memory_bytes(memory) if memory is not None else None,
    )


def _memory_bytes(text: object) -> int:
    """Return a size as Docker reads it: k, m and g are powers of 1024."""
    number = str(text).strip().lower().removesuffix("b")
    unit = {"k": "Ki", "m": "Mi", "g": "Gi"}.get(number[-1:], "")
    return int(parse_quantity(number.rstrip("kmg") + unit))
