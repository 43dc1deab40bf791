"""What the files of a platform give to the TorchServe that it runs."""

from __future__ import annotations

import fnmatch
import itertools
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from serving.configuration.editing import edit_properties
from serving.configuration.environment import is_secret, parse_environment
from serving.errors import ConfigError, PathRefused
from serving.limits import Limits
from serving.platforms.command import Command, ReadFile
from serving.safe_yaml import load_documents

#: Where the images pytorch/torchserve have their configuration.
DEFAULT_CONFIG = "/home/model-server/config.properties"
#: Factors of the suffixes of a Kubernetes quantity.
_FACTORS = {
    "": 1.0,
    **{suffix: 1000.0**-power for power, suffix in enumerate("mun", 1)},
    **{suffix: 1000.0**power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": 1024.0**power for power, suffix in enumerate("KMGTPE", 1)},
}
_REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")
_MAX_CPU = 1 << 16
_WILDCARD = re.compile(r"[*?\[]")
_QUANTITY = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([numkKMGTPE]?i?)")
_CHECK: ContextVar[Callable[[Path], None] | None] = ContextVar("check of a path", default=None)
_ARCHIVE_CHECK: ContextVar[Callable[[Path], None] | None] = ContextVar(
    "check of an archive", default=None
)


@contextmanager
def checking_paths(
    check: Callable[[Path], None], check_archive: Callable[[Path], None] | None = None
) -> Iterator[None]:
    """Check each path before a reader of a deployment's files opens it or looks for it.

    Args:
        check: raises PathRefused for a path that must not be used.
        check_archive: the same for the path of a model archive; `check` if None.
    """
    token, archive_token = _CHECK.set(check), _ARCHIVE_CHECK.set(check_archive or check)
    try:
        yield
    finally:
        _CHECK.reset(token)
        _ARCHIVE_CHECK.reset(archive_token)


def check_archive(path: Path) -> None:
    """Check the path of a model archive before it is opened or looked for.

    Raises:
        PathRefused: it must not be used.
    """
    if (check := _ARCHIVE_CHECK.get()) is not None:
        check(path)


def _check(path: Path) -> None:
    if (check := _CHECK.get()) is not None:
        check(path)


@dataclass(frozen=True)
class PlatformFiles:
    """The files of one deployment, read as its platform reads them.

    Attributes:
        platform: its name, as in `servetune export --format`.
        properties: the text of config.properties, one character for each byte; None if the
            platform writes it from the environment.
        environment: variables of the container or unit.
        arguments: options of the command `torchserve`.
        limits: those of the container or unit.
        secrets: names of variables whose values are kept elsewhere.
        sources: the paths that were read.
        notes: what could not be read from the files, a sentence each.
    """

    platform: str
    properties: str | None
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    secrets: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def effective_properties(self) -> str | None:
        """The text of config.properties with what the command's options override in it."""
        models = ",".join(option_values(self.arguments, "--models"))
        if self.properties is None or not models:
            return self.properties
        return edit_properties(self.properties, {"load_models": models})


def find_option(arguments: Sequence[str], *names: str) -> str | None:
    """Return the value of the last of these options: `--name value` or `--name=value`."""
    value = None
    for index, argument in enumerate(arguments):
        name, equals, text = argument.partition("=")
        if name in names:
            value = text if equals else next(iter(arguments[index + 1 :]), None)
    return value


def option_values(arguments: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the values of an option that takes several words."""
    for index, argument in enumerate(arguments):
        option, equals, text = argument.partition("=")
        if option == name:
            rest = itertools.takewhile(
                lambda word: not word.startswith("-"), arguments[index + 1 :]
            )
            return (*([text] if equals else []), *rest)
    return ()


def config_path(options: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return the path of the config.properties that the command or its variables name.

    The variable takes precedence, as in TorchServe.
    """
    return environment.get("TS_CONFIG_FILE") or find_option(options, "--ts-config")


def config_place(command: Command | None, environment: Mapping[str, str], folder: str) -> str:
    """Return the absolute path of the config.properties that TorchServe reads.

    Args:
        command: None for that of the image pytorch/torchserve.
        environment: the variables of the command.
        folder: the working folder.
    """
    if command is None:
        name, changed = environment.get("TS_CONFIG_FILE") or DEFAULT_CONFIG, ""
    else:
        name = config_path(command.options, environment) or "config.properties"
        changed = command.folder
    return posixpath.normpath(posixpath.join(folder, changed, name))


#: Where a command without a folder is looked for, beside the working folder.
_PROGRAM_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")


def script_reader(folder: str, read: ReadFile) -> ReadFile:
    """Return a function that returns the text of a script that a command names.

    Args:
        folder: the working folder.
        read: returns the text of the file at an absolute path, one character for each byte; None
            if there is none.
    """

    def read_script(name: str) -> str | None:
        for place in (folder, *(() if "/" in name else _PROGRAM_FOLDERS)):
            # A note says that the command is not known.
            with suppress(ConfigError, PathRefused, OSError):
                if (text := read(posixpath.normpath(posixpath.join(place, name)))) is not None:
                    return text.encode("latin-1", "replace").decode(errors="replace")
        return None

    return read_script


#: The ENTRYPOINT of the image pytorch/torchserve.
_ENTRYPOINT = "dockerd-entrypoint.sh"


def command_notes(command: Command | None, words: Sequence[str], place: str) -> list[str]:
    """Return what is not known of how a container or unit starts TorchServe, a sentence each.

    Args:
        words: those that `command` was found in.
        place: the path of the config.properties.
    """
    if command is None:
        # The script of the image pytorch/torchserve starts TorchServe for the word `serve`.
        if [word for word in words if PurePosixPath(word).name != _ENTRYPOINT] in ([], ["serve"]):
            return []
        return [
            f"the command {words[0]} does not name torchserve: servetune does not know which "
            "options and variables it sets, and whether it changes config.properties"
        ]
    name = PurePosixPath(place).name
    changing = dict.fromkeys(w[0] for w in command.before if any(name in word for word in w))
    return [
        *command.notes,
        *(change_note(f"the command runs {first} on {name}") for first in changing),
    ]


def change_note(what: str) -> str:
    """Return the note on a command that may change the config.properties."""
    return (
        f"{what}, and servetune runs nothing: if it changes the file, pass the changed "
        "config.properties"
    )


def passed_variables(names: Sequence[str], origin: str) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of secrets among variables of the host, and a note on the others.

    Args:
        origin: what has the values, for the note.
    """
    secrets = tuple(name for name in names if is_secret(name, ""))
    others = sorted({*names} - {*secrets})
    note = f"variables {origin}, whose values are not in these files: {', '.join(others)}"
    return secrets, [note] if others else []


def config_source(environment: Mapping[str, str]) -> str:
    """Return what names the path of `config_path`, for an error message."""
    if environment.get("TS_CONFIG_FILE"):
        return "named by the variable TS_CONFIG_FILE, which takes precedence over --ts-config"
    return "named by the option --ts-config"


def parse_quantity(text: object) -> float:
    """Return a Kubernetes quantity as a number: cores or bytes.

    >>> parse_quantity("500m"), parse_quantity("2Gi"), parse_quantity(4)
    (0.5, 2147483648.0, 4.0)

    Raises:
        ConfigError: it is not a quantity.
    """
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None or match[2] not in _FACTORS:
        raise ConfigError(f"{text!r} is not a quantity such as 500m or 2Gi")
    try:
        return float(match[1]) * _FACTORS[match[2]]
    except ValueError:
        raise ConfigError(f"{text!r} is not a quantity such as 500m or 2Gi") from None


def read_limits(resources: Mapping[str, Any]) -> Limits:
    """Return the limits in the `resources` of a container; its requests limit nothing.

    Raises:
        ConfigError: a limit is not a quantity.
    """
    limits = resources.get("limits") or {}
    cpu, memory = limits.get("cpu"), limits.get("memory")
    return Limits(
        None if cpu is None else parse_quantity(cpu),
        None if memory is None else int(parse_quantity(memory)),
    )


def count_cpus(text: str) -> int:
    """Return the number of CPUs in a list.

    >>> count_cpus("0-2,4"), count_cpus("0 1")
    (4, 2)

    Raises:
        ValueError: it is not a list of numbers and ranges.
    """
    cpus = set[int]()
    for part in text.replace(",", " ").split():
        first, _, last = part.partition("-")
        if int(last or first) > _MAX_CPU:
            raise ValueError(f"{part!r} is not a CPU")
        cpus |= {*range(int(first), int(last or first) + 1)}
    if not cpus:
        raise ValueError(f"{text!r} has no CPU")
    return len(cpus)


def expand_references(text: str, variables: Mapping[str, str]) -> str:
    """Fill in references `$(NAME)` as Kubernetes does; `$$` is a dollar sign.

    >>> expand_references("$(A) $$(A) $(B)", {"A": "1"})
    '1 $(A) $(B)'
    """
    return _REFERENCE.sub(
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]), text
    )


def is_file(path: Path) -> bool:
    """Return whether a deployment has a file."""
    _check(path)
    return path.is_file()


def is_folder(path: Path) -> bool:
    """Return whether a deployment has a folder."""
    # A file in it, since the check accepts regular files only.
    _check(path / ".servetune")
    return path.is_dir()


def matching_paths(folder: Path, pattern: str) -> list[Path]:
    """Return the files and folders of a deployment that a shell's pattern matches, sorted.

    Raises:
        ConfigError: a folder cannot be read.
    """
    found = [folder]
    for part in PurePosixPath(pattern).parts:
        if _WILDCARD.search(part):
            folders = [path for path in found if is_folder(path)]
            found = [path / name for path in folders for name in fnmatch.filter(_names(path), part)]
        else:
            found = [path / part for path in found]
    return [path for path in found if is_folder(path) or is_file(path)]


def list_folder(folder: Path) -> list[Path]:
    """Return the paths in a folder of a deployment, sorted; they are not checked.

    Raises:
        ConfigError: it cannot be read.
    """
    _check(folder / ".servetune")
    return [folder / name for name in _names(folder)]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """Return the text of a file of a deployment.

    Raises:
        ConfigError: it cannot be read.
    """
    _check(path)
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} cannot be read: it is not UTF-8 text") from None


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Add a file's path to each ConfigError that does not have it."""
    try:
        yield
    except ConfigError as error:
        if str(path) in str(error):
            raise
        raise ConfigError(f"{path}: {error}") from None


def read_environment(path: Path) -> dict[str, str]:
    """Return the variables in an environment file of a deployment.

    Raises:
        ConfigError: it cannot be read, or is no environment file.
    """
    with naming_file(path):
        return parse_environment(read_text(path))


def read_bytes_as_text(path: Path) -> str:
    """Return a config.properties; as in Java, each byte is one character.

    Raises:
        ConfigError: it cannot be read.
    """
    _check(path)
    try:
        return path.read_bytes().decode("latin-1")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def read_documents(path: Path) -> list[dict[str, Any]]:
    """Return the mappings in a YAML file of one or more documents; lists `kind: List` are opened.

    Raises:
        ConfigError: it cannot be read, or is not valid YAML.
    """
    try:
        documents = list(load_documents(read_text(path)))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    found: list[dict[str, Any]] = []
    for document in documents:
        if isinstance(document, dict):
            items = document.get("items")
            if document.get("kind") == "List" and isinstance(items, list):
                found += [item for item in items if isinstance(item, dict)]
            else:
                found.append(document)
    return found


def one(found: Sequence[Any], what: str, where: Path) -> Any:
    """Return the only element.

    Raises:
        ConfigError: there is none, or more than one.
    """
    if len(found) != 1:
        number = len(found) or "no"
        raise ConfigError(f"{where} has {number} {what}; pass files with exactly one")
    return found[0]
