"""A Dockerfile on a TorchServe image."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from serving.configuration.environment import is_secret
from serving.errors import ConfigError
from serving.platforms.command import Command, expand, find_command
from serving.platforms.files import (
    DEFAULT_CONFIG,
    PlatformFiles,
    change_note,
    command_notes,
    config_path,
    config_place,
    config_source,
    find_option,
    is_file,
    is_folder,
    matching_paths,
    read_bytes_as_text,
    read_text,
    script_reader,
)

_HEREDOC = re.compile(r"\d*<<(-?)([\"']?)([\w.-]+)\2")
#: A word with its quotes, and the options before the sources of COPY.
_WORD = re.compile(r"(?:\\.|\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\s\"'\\])+", re.DOTALL)
_OPTIONS = re.compile(r"(?:--\S+\s+)*")
#: Each stage may be copied from several times, so that their number can grow exponentially.
_MAX_LOOKUPS = 1000
#: ADD unpacks these.
_UNPACKED = re.compile(r".*\.(?:tar|tar\.\w+|tgz|tbz2?|txz)")
_HOME = PurePosixPath(DEFAULT_CONFIG).parent
#: A piece of text: an escaped character, a reference to a variable, or any other character.
_PIECE = re.compile(r"\\.|\$(?:\w+|\{[^{}]*\})|.", re.DOTALL)


@dataclass(frozen=True)
class _Document:
    """A here-document."""

    name: str
    text: str
    is_literal: bool  #: Whether its variables are left.


@dataclass(frozen=True)
class _Instruction:
    name: str
    rest: str
    documents: tuple[_Document, ...] = ()


@dataclass
class _Copied:
    """A source of COPY or ADD.

    Attributes:
        source: its name.
        target: an absolute path.
        is_folder: whether the target is the folder that gets the source.
        text: that of a here-document.
        stage: the one that has the source; None for the folder of the build.
        is_elsewhere: whether another image or host has the source, or an archive.
        shown: the instruction, for notes.
    """

    source: str
    target: PurePosixPath
    is_folder: bool
    text: str | None = None
    stage: Stage | None = None
    is_elsewhere: bool = False
    shown: str = ""

    def is_at(self, place: PurePosixPath) -> bool:
        """Return whether the copy of the source, if it is a file, is at a path."""
        name = PurePosixPath(self.source).name
        return place.match(str(self.target / name if self.is_folder else self.target))

    def may_be_folder(self) -> bool:
        return "." not in PurePosixPath(self.source).name or self.is_unpacked()

    def is_unpacked(self) -> bool:
        return self.shown.startswith("ADD") and _UNPACKED.fullmatch(self.source) is not None


@dataclass
class Stage:
    """What the instructions of a stage give to its image.

    Attributes:
        base: the name of the image that it begins with.
        commands: the words of ENTRYPOINT and CMD.
        scripts: those of RUN.
        has_own_cmd: whether the stage itself sets CMD.
    """

    base: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    copied: list[_Copied] = field(default_factory=list)
    commands: dict[str, list[str]] = field(default_factory=dict)
    work_folder: PurePosixPath = _HOME
    scripts: list[str] = field(default_factory=list)
    has_own_cmd: bool = False

    def words(self) -> list[str]:
        """Return the words of the command that a container runs."""
        return [*self.commands.get("ENTRYPOINT", ()), *self.commands.get("CMD", ())]

    def may_run_torchserve(self) -> bool:
        """Return whether the command or the name of the image has torchserve."""
        found = find_command(self.words(), self.environment)
        return found is not None or "torchserve" in self.base

    def next(self) -> Stage:
        """Return a stage that begins with this one."""
        return Stage(
            self.base,
            {**self.environment},
            [*self.copied],
            {**self.commands},
            self.work_folder,
            [*self.scripts],
        )


@dataclass(frozen=True)
class Provided:
    """What a stage has at a path: the text, its file, the scripts that may change it, and notes.

    Attributes:
        is_known: whether the text, or that there is none, is known from the files.
    """

    text: str | None = None
    file: Path | None = None
    scripts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_known: bool = True


def read_dockerfile(path: Path) -> PlatformFiles:
    """Read the last stage of a Dockerfile: ARG, ENV, COPY, ENTRYPOINT and CMD.

    Raises:
        ConfigError: a file that it copies is missing.
    """
    stage = read_stage(read_text(path))
    words = stage.words()
    scripts = script_reader(
        str(stage.work_folder),
        lambda place: copied_file(stage, PurePosixPath(place), path.parent).text,
    )
    found = find_command(words, stage.environment, scripts)
    command = found or Command(())
    environment = {**stage.environment, **command.variables}
    place = PurePosixPath(config_place(found, environment, str(stage.work_folder)))
    provided = copied_file(stage, place, path.parent)
    text, file = provided.text, provided.file
    is_named = config_path(command.options, environment) is not None
    if text is None and is_named and provided.is_known:
        raise ConfigError(
            f"{path}: the image reads {place}, which no COPY provides; "
            f"it is {config_source(environment)}"
        )
    if text is None and is_named:
        raise ConfigError(f"{path}: {provided.notes[0]}")
    notes = [*provided.notes, *command_notes(found, words, str(place))]
    if text is None and provided.is_known:
        notes.append("no config.properties is copied: the base image has one")
    return PlatformFiles(
        "docker",
        text or "",
        environment,
        command.options,
        sources=(path, file) if file else (path,),
        notes=tuple(notes),
    )


def may_run_torchserve(path: Path) -> bool:
    """Return whether a Dockerfile names torchserve, or leaves the command to its base image.

    Raises:
        ConfigError: the file cannot be read.
    """
    text = read_text(path)
    return "torchserve" in text or not read_stage(text).words()


def read_stage(text: str, given: Mapping[str, str] | None = None, target: str = "") -> Stage:
    """Return a stage of a Dockerfile.

    Args:
        text: that of the Dockerfile.
        given: the values of build arguments.
        target: the name or number of the stage; empty for the last one.
    """
    given = given or {}
    stage, named, arguments = Stage(), dict[str, Stage](), dict[str, str]()
    count = 0
    global_arguments: dict[str, str] = {}
    for instruction in _instructions(text):
        name = instruction.name
        variables = {**arguments, **stage.environment}
        rest = _expanded(instruction.rest, variables)
        if name == "FROM":
            words = [word for word in rest.split() if not word.startswith("--")]
            # A stage may begin with an earlier one, by its name or its number.
            base = words[0] if words else ""
            stage = named.get(base.lower(), Stage(base)).next()
            global_arguments = {**arguments} if not count else global_arguments
            arguments, names = {**global_arguments}, [str(count), *words[2:3]]
            named |= {alias.lower(): stage for alias in names}
            count += 1
        elif name == "ARG":
            for word in shlex.split(rest):
                key, equals, value = word.partition("=")
                if key in given:
                    arguments[key] = given[key]
                elif equals:
                    arguments.setdefault(key, value)
        elif name == "ENV":
            stage.environment |= _variables(rest)
        elif name in ("ENTRYPOINT", "CMD"):
            written = instruction.rest
            is_list = written.startswith("[")
            stage.commands[name] = json.loads(written) if is_list else ["/bin/sh", "-c", written]
            stage.has_own_cmd |= name == "CMD"
            if not stage.has_own_cmd:  # That of the base image belongs to its ENTRYPOINT.
                stage.commands.pop("CMD", None)
        elif name == "WORKDIR":
            stage.work_folder /= rest
        elif name == "RUN":
            texts = (document.text for document in instruction.documents)
            stage.scripts.append(" ".join((instruction.rest, *texts)))
        elif name in ("COPY", "ADD"):
            stage.copied += _copied(instruction, rest, variables, stage, named)
    return named[target.lower()] if target else stage


def _copied(
    instruction: _Instruction,
    rest: str,
    variables: Mapping[str, str],
    stage: Stage,
    named: Mapping[str, Stage],
) -> Iterator[_Copied]:
    options = _OPTIONS.match(rest)
    text = rest[options.end() :] if options else rest
    *sources, last = json.loads(text) if text.startswith("[") else shlex.split(text)
    target = PurePosixPath(posixpath.normpath(stage.work_folder / last))
    is_folder = len(sources) > 1 or last.endswith("/") or last == "."
    for document in instruction.documents:
        text = document.text if document.is_literal else expand(document.text, variables)
        yield _Copied(document.name, target, is_folder, text.encode().decode("latin-1"))
    origin = find_option(rest.split(), "--from")
    shown = f"{instruction.name} {' '.join(instruction.rest.split())}"[:80]
    shown = f"{instruction.name} …" if is_secret("", instruction.rest) else shown
    for source in sources[len(instruction.documents) :]:
        copied = _Copied(source, target, is_folder, shown=shown)
        if origin is not None:
            copied.stage = named.get(origin.lower())
        is_unread = origin is not None and copied.stage is None
        copied.is_elsewhere = is_unread or "://" in source or copied.is_unpacked()
        yield copied


def _instructions(text: str) -> Iterator[_Instruction]:
    lines = iter(text.replace("\r\n", "\n").split("\n"))
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        while line.rstrip().endswith("\\"):
            following = next(lines, "")
            if following.lstrip().startswith("#"):  # A comment in the middle is left out.
                continue
            line = f"{line.rstrip()[:-1]} {following}"
        name, *rest = line.split(None, 1)
        words = rest[0].strip() if rest else ""
        marks = map(_HEREDOC.fullmatch, _WORD.findall(words))
        has_documents = name.upper() in ("ADD", "COPY", "RUN")
        documents = [_document(mark, lines) for mark in marks if mark and has_documents]
        yield _Instruction(name.upper(), words, tuple(documents))


def _document(mark: re.Match[str], lines: Iterator[str]) -> _Document:
    """Read the lines of a here-document."""
    body: list[str] = []
    for line in lines:
        line = line.lstrip("\t") if mark[1] else line
        if line == mark[3]:
            break
        body.append(f"{line}\n")
    return _Document(mark[3], "".join(body), bool(mark[2]))


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


def copied_file(stage: Stage, place: PurePosixPath, folder: Path) -> Provided:
    """Return what a stage has at a path, with a note for each RUN that may change it.

    Args:
        folder: that of the build.

    Raises:
        ConfigError: a file that is copied there does not exist.
    """
    found = _provided(stage, place, folder, iter(range(_MAX_LOOKUPS)))
    notes = (
        change_note(f"RUN {shown} names {place.name}")
        for shown in (" ".join(script.split())[:80] for script in found.scripts)
    )
    return replace(found, notes=(*found.notes, *notes))


def _provided(stage: Stage, place: PurePosixPath, folder: Path, lookups: Iterator[int]) -> Provided:
    """Return what a stage has at a path.

    Args:
        folder: that of the build.
        lookups: one number for each stage that may be looked into.

    Raises:
        ConfigError: a file that is copied there does not exist, or there are too many stages.
    """
    if next(lookups, None) is None:
        raise ConfigError(f"more than {_MAX_LOOKUPS} COPY --from may provide {place}")
    scripts = tuple(script for script in stage.scripts if place.name in script)
    notes: list[str] = []
    for copied in reversed(stage.copied):
        is_named = copied.is_at(place)
        if copied.text is not None and is_named:
            return Provided(copied.text, None, scripts, tuple(notes))
        if copied.text is not None or not place.is_relative_to(copied.target):
            continue
        found = _source(copied, place, folder, lookups)
        if found.text is not None:
            return replace(found, scripts=(*found.scripts, *scripts), notes=(*notes, *found.notes))
        if is_named and not found.is_known:
            note = (
                f"{place} is from `{copied.shown}`, which servetune cannot read; pass the "
                "config.properties of the image"
            )
            return Provided(None, None, scripts, (note, *notes), is_known=False)
        if not found.is_known and copied.may_be_folder():
            notes.append(
                f"`{copied.shown}` may provide {place}, and servetune cannot read it; if it does, "
                "pass the config.properties of the image"
            )
    return Provided(scripts=scripts, notes=tuple(notes))


def _source(
    copied: _Copied, place: PurePosixPath, folder: Path, lookups: Iterator[int]
) -> Provided:
    """Return what a source of COPY has for a path."""
    if copied.is_elsewhere:
        return Provided(is_known=False)
    if copied.stage is not None:
        source = PurePosixPath("/", copied.source)
        if not copied.is_at(place):
            source /= place.relative_to(copied.target)
        found = _provided(copied.stage, source, folder, lookups)
        return replace(found, is_known=found.text is not None)
    # As Docker does: the folder is the root of every source.
    pattern = posixpath.normpath(f"/{copied.source}").lstrip("/")
    paths = matching_paths(folder, pattern)
    for path in reversed(paths):
        if is_folder(path):
            is_below = place.is_relative_to(copied.target)
            file = path / place.relative_to(copied.target) if is_below else path
        else:
            is_inside = copied.is_folder or len(paths) > 1
            target = copied.target / path.name if is_inside else copied.target
            file = path if target == place else folder
        if is_file(file):
            return Provided(read_bytes_as_text(file), file)
    if not paths and copied.is_at(place):
        raise ConfigError(f"`{copied.shown}`: {folder / pattern} does not exist; copy it there")
    return Provided(is_known=bool(paths))
