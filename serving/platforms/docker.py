"""A Dockerfile on a TorchServe image."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from serving.errors import ConfigError
from serving.platforms.command import Command, expand, find_command
from serving.platforms.files import (
    DEFAULT_CONFIG,
    PlatformFiles,
    config_path,
    config_place,
    config_source,
    is_file,
    read_bytes_as_text,
    read_text,
)

_HEREDOC = re.compile(r"<<(-?)([\"']?)(\w+)\2")
_HOME = PurePosixPath(DEFAULT_CONFIG).parent
#: A piece of text: an escaped character, a reference to a variable, or any other character.
_PIECE = re.compile(r"\\.|\$(?:\w+|\{[^{}]*\})|.", re.DOTALL)


@dataclass(frozen=True)
class _Instruction:
    name: str
    rest: str
    document: str | None = None  #: The text of a here-document.
    is_literal: bool = False  #: Whether the document's variables are left.


@dataclass
class _Copied:
    """A source of COPY or ADD: a name in the folder, or a text; the target is absolute."""

    source: str
    target: PurePosixPath
    is_folder: bool = False
    text: str | None = None


@dataclass
class _Stage:
    environment: dict[str, str] = field(default_factory=dict)
    copied: list[_Copied] = field(default_factory=list)
    commands: dict[str, list[str]] = field(default_factory=dict)
    work_folder: PurePosixPath = _HOME
    scripts: list[str] = field(default_factory=list)


def read_dockerfile(path: Path) -> PlatformFiles:
    """Read the last stage of a Dockerfile: ARG, ENV, COPY, ENTRYPOINT and CMD.

    Raises:
        ConfigError: a file that it copies is missing.
    """
    stage = _last_stage(path)
    words = [*stage.commands.get("ENTRYPOINT", ()), *stage.commands.get("CMD", ())]
    found = find_command(words, stage.environment)
    command = found or Command(())
    environment = {**stage.environment, **command.variables}
    place = PurePosixPath(config_place(found, environment, str(stage.work_folder)))
    text, file = _copied_text(stage, place, path.parent)
    if text is None and config_path(command.options, environment) is not None:
        raise ConfigError(
            f"{path}: the image reads {place}, which no COPY provides; "
            f"it is {config_source(environment)}"
        )
    notes = [] if text is not None else ["no config.properties is copied: the image below has one"]
    notes += [
        f"RUN {shown} names {place.name}, and servetune runs nothing: if it changes the file, pass "
        "the config.properties of the image"
        for shown in (
            " ".join(script.split())[:80] for script in stage.scripts if place.name in script
        )
    ]
    notes += command.notes
    return PlatformFiles(
        "docker",
        text or "",
        environment,
        command.options,
        sources=(path, file) if file else (path,),
        notes=tuple(notes),
    )


def _last_stage(path: Path) -> _Stage:
    stage, named, arguments = _Stage(), dict[str, _Stage](), dict[str, str]()
    count = 0
    global_arguments: dict[str, str] = {}
    for instruction in _instructions(path):
        name = instruction.name
        variables = {**arguments, **stage.environment}
        rest = _expanded(instruction.rest, variables)
        if name == "FROM":
            words = [word for word in rest.split() if not word.startswith("--")]
            # A stage may begin with an earlier one, by its name or its number.
            stage = deepcopy(named.get(words[0].lower(), _Stage())) if words else _Stage()
            global_arguments = {**arguments} if not count else global_arguments
            arguments, names = {**global_arguments}, [str(count), *words[2:3]]
            named |= {given.lower(): stage for given in names}
            count += 1
        elif name == "ARG":
            for word in shlex.split(rest):
                key, equals, value = word.partition("=")
                if equals:
                    arguments.setdefault(key, value)
        elif name == "ENV":
            stage.environment |= _variables(rest)
        elif name in ("ENTRYPOINT", "CMD"):
            text = instruction.rest
            is_list = text.startswith("[")
            stage.commands[name] = json.loads(text) if is_list else ["/bin/sh", "-c", text]
        elif name == "WORKDIR":
            stage.work_folder /= rest
        elif name == "RUN":
            stage.scripts.append(f"{instruction.rest} {instruction.document or ''}")
        elif name in ("COPY", "ADD"):
            stage.copied += _copied(instruction, rest, variables, stage)
    return stage


def _copied(
    instruction: _Instruction, rest: str, variables: Mapping[str, str], stage: _Stage
) -> Iterator[_Copied]:
    words = json.loads(rest) if rest.startswith("[") else shlex.split(rest)
    options = [word for word in words if word.startswith("--")]
    words = [word for word in words if not word.startswith("--")]
    if any(option.startswith("--from") for option in options):
        return
    target = stage.work_folder / words[-1]
    if (text := instruction.document) is not None:
        text = text if instruction.is_literal else expand(text, variables)
        yield _Copied("", target, text=text.encode().decode("latin-1"))
        return
    is_folder = len(words) > 2 or words[-1].endswith("/") or words[-1] == "."
    for word in words[:-1]:
        yield _Copied(word, target, is_folder)


def _instructions(path: Path) -> Iterator[_Instruction]:
    lines = iter(read_text(path).replace("\r\n", "\n").split("\n"))
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        while line.rstrip().endswith("\\"):
            following = next(lines, "")
            if following.lstrip().startswith("#"):  # A comment in the middle is left out.
                continue
            line = f"{line.rstrip()[:-1]} {following}"
        name, *rest = line.split(None, 1)
        text = rest[0].strip() if rest else ""
        document = _HEREDOC.search(text) if name.upper() in ("ADD", "COPY", "RUN") else None
        if document is None:
            yield _Instruction(name.upper(), text)
            continue
        body: list[str] = []
        for inner in lines:
            inner = inner.lstrip("\t") if document[1] else inner
            if inner == document[3]:
                break
            body.append(f"{inner}\n")
        yield _Instruction(name.upper(), text, "".join(body), bool(document[2]))


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """Fill in variables as Docker does: neither in single quotes nor after a backslash."""
    quote, pieces = "", []
    for piece in _PIECE.findall(text):
        if piece in ("'", '"') and quote in ("", piece):
            quote = "" if quote else piece
        elif piece.startswith("$") and len(piece) > 1 and quote != "'":
            value = expand(piece, variables)
            if value != piece:
                # The text is split into words later; `\$` becomes a dollar sign there.
                piece = re.sub(r'(["\\$])' if quote else r"([\s\"'\\$])", r"\\\1", value)
        pieces.append(piece)
    return "".join(pieces)


def _variables(rest: str) -> dict[str, str]:
    words = shlex.split(rest)
    if words and "=" not in words[0]:  # The old form `ENV NAME value`.
        name, text = (*rest.split(None, 1), "")[:2]
        return {name: text.strip()}
    pairs = [word.partition("=") for word in words]
    # Docker removes the backslash before a dollar sign, which shlex keeps.
    return {name: text.replace("\\$", "$") for name, _, text in pairs}


def _copied_text(
    stage: _Stage, place: PurePosixPath, folder: Path
) -> tuple[str | None, Path | None]:
    """Return the text that is copied to a place, and its file; None without one."""
    for copied in reversed(stage.copied):
        target = copied.target
        if copied.text is not None:
            if target == place:
                return copied.text, None
            continue
        # As Docker does: the folder is the root of every source.
        path = folder / posixpath.normpath(f"/{copied.source}").lstrip("/")
        if path.is_dir() and place.is_relative_to(target):
            candidate = path / place.relative_to(target)
        else:
            candidate = path
            target = target / path.name if copied.is_folder else target
            if target != place:
                continue
        if is_file(candidate):
            return read_bytes_as_text(candidate), candidate
    return None, None
