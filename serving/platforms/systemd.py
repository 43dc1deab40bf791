"""systemd: a unit with its EnvironmentFile."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from serving.configuration.environment import parse_environment
from serving.errors import ConfigError
from serving.limits import Limits
from serving.platforms.command import Command, find_command
from serving.platforms.files import (
    PlatformFiles,
    change_note,
    command_notes,
    config_path,
    config_place,
    config_source,
    count_cpus,
    is_file,
    matching_paths,
    naming_file,
    parse_quantity,
    passed_variables,
    read_bytes_as_text,
    read_text,
    script_reader,
)

_CONTINUATION = re.compile(r"\\\r?\n")
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)")
_EMBEDDED_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_]\w*)\}")
_SPECIFIER = re.compile(r"%(.?)")
#: Those of the system's units.
_FOLDERS = {
    **{"C": "/var/cache", "E": "/etc", "L": "/var/log", "S": "/var/lib", "T": "/tmp"},
    **{"V": "/var/tmp", "h": "/root", "t": "/run"},
}


def read_systemd(path: Path) -> PlatformFiles:
    """Read a unit. Its files may be beside it instead of at their paths.

    Raises:
        ConfigError: the unit does not run TorchServe, or a file that it needs is missing.
    """
    drop_ins = [file for file in matching_paths(_drop_in_folder(path), "*.conf") if is_file(file)]
    unit = _Unit(path, _service_entries([path, *drop_ins]))
    environment = unit.variables()
    files = [f for name in unit.values("EnvironmentFile") for f in unit.environment_files(name)]
    for file in files:
        environment |= unit.read_environment(file)
    folder = (unit.values("WorkingDirectory") or ["/"])[-1].removeprefix("-")
    command = unit.command(environment, folder)
    if command is None:
        raise ConfigError(f"{path}: ExecStart does not run torchserve")
    environment, options = {**environment, **command.variables}, command.options
    place = config_place(command, environment, folder)
    properties = next(iter(unit.find(place)), None)
    unit.notes += command_notes(command, [], place)
    if properties is None and config_path(options, environment) is None:
        unit.notes.append(
            f"the unit names no config.properties: TorchServe reads {place}, which exists neither "
            "there nor beside the unit"
        )
    elif properties is None:
        raise ConfigError(
            f"{path}: {place} does not exist, neither there nor beside the unit; "
            f"it is {config_source(environment)}"
        )
    name = PurePosixPath(place).name
    if any(name in line for line in unit.entries.get("ExecStartPre", [])):
        unit.notes.append(change_note(f"ExecStartPre names {name}"))
    secrets = unit.passed_secrets(environment)
    return PlatformFiles(
        "systemd",
        read_bytes_as_text(properties) if properties else "",
        environment,
        options,
        unit.limits(),
        secrets,
        sources=(path, *drop_ins, *files, *([properties] if properties else [])),
        notes=tuple(unit.notes),
    )


def may_run_torchserve(path: Path) -> bool:
    """Return whether the command of a unit has torchserve.

    Raises:
        ConfigError: the unit cannot be read.
    """
    return _Unit(path, _service_entries([path])).command({}, "/") is not None


@dataclass
class _Unit:
    """The section [Service] of a unit; `notes` has what could not be read."""

    path: Path
    entries: Mapping[str, list[str]]
    notes: list[str] = field(default_factory=list)

    def variables(self) -> dict[str, str]:
        words = [word for line in self.entries.get("Environment", []) for word in shlex.split(line)]
        expanded = [(word, self._with_specifiers(word)) for word in words if "=" in word]
        if unknown := sorted(word.partition("=")[0] for word, text in expanded if text is None):
            self.notes.append(
                "variables with a specifier whose value is not known here, left out: "
                f"{', '.join(unknown)}"
            )
        pairs = [text.partition("=") for _, text in expanded if text is not None]
        return {name: text for name, _, text in pairs}

    def passed_secrets(self, environment: Mapping[str, str]) -> tuple[str, ...]:
        """Return the names of the secrets of the service manager; note its other variables."""
        names = {name for line in self.entries.get("PassEnvironment", []) for name in line.split()}
        passed = sorted(names - environment.keys())
        secrets, notes = passed_variables(passed, "of the service manager")
        self.notes += notes
        return secrets

    def values(self, key: str) -> list[str]:
        """Return the values of a key with their specifiers filled in."""
        return self._filled_in(key, self.entries.get(key, []))

    def _filled_in(self, key: str, words: Sequence[str]) -> list[str]:
        expanded = [self._with_specifiers(word) for word in words]
        if None in expanded:
            self.notes.append(
                f"{key} has a specifier whose value is not known here: it is read as it is written"
            )
        return [word if text is None else text for word, text in zip(words, expanded, strict=True)]

    def environment_files(self, name: str) -> list[Path]:
        """Return the files that a value of EnvironmentFile names.

        Raises:
            ConfigError: there is none, and it is not optional.
        """
        is_optional, name = name.startswith("-"), name.removeprefix("-")
        if not name.startswith("/"):
            self.notes.append(f"EnvironmentFile {name} is no absolute path: systemd ignores it")
            return []
        files = self.find(name)
        if not files and not is_optional:
            raise ConfigError(
                f"{self.path}: EnvironmentFile {name} does not exist, neither there nor beside the "
                "unit"
            )
        if not files:
            self.notes.append(
                f"the optional EnvironmentFile {name} exists neither there nor beside the unit: "
                "its variables are not known"
            )
        return files

    def read_environment(self, path: Path) -> dict[str, str]:
        """Read an environment file; unlike a shell, systemd also has comments with `;`."""
        lines = _CONTINUATION.sub("", read_text(path)).split("\n")
        lines = [line.strip() for line in lines if not line.lstrip().startswith((";", "#"))]
        if any(line and "=" not in line for line in lines):
            self.notes.append(f"{path} has lines that are not NAME=value: systemd ignores them")
        with naming_file(path):
            return parse_environment("\n".join(line for line in lines if "=" in line))

    def command(self, environment: Mapping[str, str], folder: str) -> Command | None:
        scripts = script_reader(
            folder, lambda place: next(map(read_bytes_as_text, self.find(place)), None)
        )
        for line in self.entries.get("ExecStart", []):
            words: list[str] = []
            for word in self._filled_in("ExecStart", shlex.split(line)):
                if match := _VARIABLE.fullmatch(word):
                    words += environment.get(match[1], word).split()
                else:
                    words.append(_with_variables(word, environment))
            if (found := find_command(words, environment, scripts)) is not None:
                return found
        return None

    def find(self, name: str) -> list[Path]:
        """Return the files that a pattern of paths matches, beside the unit or else there.

        The folder of the unit comes first, since the files in it belong to the same deployment.
        """
        for folder, pattern in (
            (self.path.parent, PurePosixPath(name).name),
            (Path("/"), name.lstrip("/")),
        ):
            if found := [file for file in matching_paths(folder, pattern) if is_file(file)]:
                return found
        return []

    def limits(self) -> Limits:
        """Return the limits of the unit; note those that depend on the host."""
        cpus = [
            float(quota.removesuffix("%")) / 100
            for quota in self.entries.get("CPUQuota", [])[-1:]
            if quota.endswith("%")
        ]
        for key in ("AllowedCPUs", "CPUAffinity"):
            text = " ".join(self.entries.get(key, []))
            if "numa" in text:
                self.notes.append(f"{key}={text} is not read: it depends on the host")
            elif text:
                cpus.append(float(count_cpus(text)))
        key = "MemoryMax" if "MemoryMax" in self.entries else "MemoryLimit"
        memory = next(iter(self.entries.get(key, [])[-1:]), "")
        if memory.endswith("%"):
            self.notes.append(f"{key}={memory} is not read: it depends on the host's memory")
        is_bytes = memory[:1].isdigit() and not memory.endswith("%")
        unit = {"K": "Ki", "M": "Mi", "G": "Gi", "T": "Ti"}.get(memory[-1:], "")
        memory_bytes = int(parse_quantity(memory.rstrip("KMGT") + unit)) if is_bytes else None
        return Limits(min(cpus, default=None), memory_bytes)

    def _with_specifiers(self, text: str) -> str | None:
        """Fill in specifiers such as `%i`; None if one is not known."""
        prefix, _, instance = self.path.stem.partition("@")
        known = {"%": "%", "N": self.path.stem, "n": self.path.name, "p": prefix, **_FOLDERS}
        known |= {"i": instance, "I": instance.replace("-", "/")} if instance else {}
        if not known.keys() >= {*_SPECIFIER.findall(text)}:
            return None
        return _SPECIFIER.sub(lambda found: known[found[1]], text)


def _with_variables(word: str, environment: Mapping[str, str]) -> str:
    """Fill in `${NAME}`; a shell that the unit runs fills in `$NAME`."""
    return _EMBEDDED_VARIABLE.sub(
        lambda found: "$" if found[0] == "$$" else environment.get(found[1], found[0]), word
    )


def _drop_in_folder(path: Path) -> Path:
    """Return the folder NAME.service.d beside a unit, whose files are read after it."""
    return path.with_name(f"{path.name}.d")


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
