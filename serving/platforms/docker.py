"""A Dockerfile on a TorchServe image."""

from __future__ import annotations

import json
import posixpath
import shlex
from pathlib import Path, PurePosixPath

from serving.errors import ConfigError
from serving.platforms.command import Command, find_command
from serving.platforms.files import (
    DEFAULT_CONFIG,
    PlatformFiles,
    config_path,
    config_source,
    is_file,
    read_bytes_as_text,
    read_text,
)


def read_dockerfile(path: Path) -> PlatformFiles:
    """Read the last stage of a Dockerfile: ENV, COPY, ENTRYPOINT and CMD.

    Raises:
        ConfigError: a file that it copies is missing.
    """
    environment: dict[str, str] = {}
    copied: list[tuple[str, PurePosixPath, bool]] = []
    commands = {"ENTRYPOINT": [], "CMD": []}  # type: dict[str, list[str]]
    work_folder = PurePosixPath("/home/model-server")
    for name, rest in _instructions(path):
        if name == "FROM":
            environment, copied, commands = {}, [], {"ENTRYPOINT": [], "CMD": []}
        elif name == "ENV":
            environment |= _variables(rest)
        elif name in commands:
            commands[name] = json.loads(rest) if rest.startswith("[") else ["/bin/sh", "-c", rest]
        elif name == "WORKDIR":
            work_folder /= rest.strip()
        elif name in ("COPY", "ADD"):
            words = json.loads(rest) if rest.startswith("[") else shlex.split(rest)
            words = [word for word in words if not word.startswith("--")]
            if not rest.startswith("--from"):
                is_folder = len(words) > 2 or words[-1].endswith("/") or words[-1] == "."
                copied += [(word, work_folder / words[-1], is_folder) for word in words[:-1]]
    words = [*commands["ENTRYPOINT"], *commands["CMD"]]
    command = find_command(words, environment) or Command(())
    environment, options = {**environment, **command.variables}, command.options
    place = config_path(options, environment)
    file = _copied_file(copied, PurePosixPath(place or DEFAULT_CONFIG), path.parent)
    if file is None and place is not None:
        raise ConfigError(
            f"{path}: the image reads {place}, which no COPY provides; "
            f"it is {config_source(environment)}"
        )
    notes = () if file else ("no config.properties is copied: the image below has its own",)
    return PlatformFiles(
        "docker",
        read_bytes_as_text(file) if file else "",
        environment,
        options,
        sources=(path, file) if file else (path,),
        notes=notes,
    )


def _instructions(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in read_text(path).split("\n") if not line.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    pairs = [line.strip().partition(" ") for line in text.split("\n") if line.strip()]
    return [(name.upper(), rest.strip()) for name, _, rest in pairs]


def _variables(rest: str) -> dict[str, str]:
    words = shlex.split(rest)
    if words and "=" not in words[0]:  # The old form `ENV NAME value`.
        name, _, text = rest.partition(" ")
        return {name: text.strip()}
    pairs = [word.partition("=") for word in words]
    # Docker removes the backslash before a dollar sign, which shlex keeps.
    return {name: text.replace("\\$", "$") for name, _, text in pairs}


def _copied_file(
    copied: list[tuple[str, PurePosixPath, bool]], place: PurePosixPath, folder: Path
) -> Path | None:
    for source, target, is_folder in reversed(copied):
        # As Docker does: the folder is the root of every source.
        path = folder / posixpath.normpath(f"/{source}").lstrip("/")
        if path.is_dir() and place.is_relative_to(target):
            candidate = path / place.relative_to(target)
        else:
            candidate = path
            target = target / path.name if is_folder else target
            if target != place:
                continue
        if is_file(candidate):
            return candidate
    return None
