"""systemd: a unit with its EnvironmentFile."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from serving.environment import parse_environment
from serving.errors import ConfigError
from serving.limits import Limits
from serving.platforms.command import expand_words, find_command
from serving.platforms.files import (
    PlatformFiles,
    command_notes,
    config_path,
    config_place,
    config_source,
    is_file,
    parse_quantity,
    read_bytes_as_text,
    read_text,
)

#: Unlike a shell, systemd also reads lines with a semicolon as comments.
_COMMENT = re.compile(r"^[ \t]*;.*$", re.MULTILINE)


def read_systemd(path: Path) -> PlatformFiles:
    """Read a unit. A file that does not exist at its path is looked for beside the unit.

    Raises:
        ConfigError: the unit does not run TorchServe, or a file that it needs is missing.
    """
    drop_ins = _drop_ins(path)
    entries = _service_entries([path, *drop_ins])
    environment: dict[str, str] = {}
    for line in entries.get("Environment", []):
        pairs = [word.partition("=") for word in shlex.split(line)]
        environment |= {name: text for name, equals, text in pairs if equals}
    sources = [path, *drop_ins]
    for name in entries.get("EnvironmentFile", []):
        is_optional, file = name.startswith("-"), _find(name.removeprefix("-"), path)
        if file is not None:
            environment |= parse_environment(_COMMENT.sub("", read_text(file)))
            sources.append(file)
        elif not is_optional:
            raise ConfigError(f"{path}: EnvironmentFile {name} does not exist")
    lines = [shlex.split(line) for line in entries.get("ExecStart", [])]
    commands = (find_command(expand_words(words, environment), environment) for words in lines)
    command = next((found for found in commands if found), None)
    if command is None:
        raise ConfigError(f"{path}: ExecStart does not run torchserve")
    environment, options = {**environment, **command.variables}, command.options
    folder = (entries.get("WorkingDirectory") or ["/"])[-1].removeprefix("-")
    place = config_place(command, environment, folder)
    file, notes = _find(place, path), command_notes(command, [], place)
    if file is None and config_path(options, environment) is None:
        notes.append(
            f"the unit names no config.properties: TorchServe reads {place}, which exists neither "
            "there nor beside the unit"
        )
    elif file is None:
        raise ConfigError(
            f"{path}: {place} does not exist, neither there nor beside the unit; "
            f"it is {config_source(environment)}"
        )
    return PlatformFiles(
        "systemd",
        read_bytes_as_text(file) if file else "",
        environment,
        options,
        _limits(entries),
        sources=(*sources, file) if file else tuple(sources),
        notes=tuple(notes),
    )


def _drop_ins(path: Path) -> list[Path]:
    """Return the files in the folder NAME.service.d beside a unit, which are read after it."""
    folder = path.with_name(f"{path.name}.d")
    return [file for file in sorted(folder.glob("*.conf")) if is_file(file)]


def _service_entries(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Return the values of each key of the section [Service]; an empty value resets the key."""
    # Each file begins outside of any section.
    text = "\n[]\n".join(read_text(path).replace("\\\n", " ") for path in paths)
    entries: dict[str, list[str]] = {}
    section = ""
    for line in map(str.strip, text.split("\n")):
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "Service" and "=" in line and line[0] not in "#;":
            key, _, value = (part.strip() for part in line.partition("="))
            entries[key] = [*entries.get(key, []), value] if value else []
    return entries


def _find(name: str, unit: Path) -> Path | None:
    """Return a file of a unit: at its absolute path, or else beside the unit."""
    path = Path(name)
    paths = [*([path] if path.is_absolute() else []), unit.parent / path.name]
    return next((path for path in paths if is_file(path)), None)


def _limits(entries: dict[str, list[str]]) -> Limits:
    quota = next(iter(entries.get("CPUQuota", [])[-1:]), "")
    memory = next(iter(entries.get("MemoryMax", [])[-1:]), "")
    cpus = float(quota.removesuffix("%")) / 100 if quota.endswith("%") else None
    is_bytes = memory[:1].isdigit() and not memory.endswith("%")
    unit = {"K": "Ki", "M": "Mi", "G": "Gi", "T": "Ti"}.get(memory[-1:], "")
    memory_bytes = int(parse_quantity(memory.rstrip("KMGT") + unit)) if is_bytes else None
    return Limits(cpus, memory_bytes)
