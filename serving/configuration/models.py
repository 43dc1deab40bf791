"""The models of a config.properties: `load_models`, `models` and `model_snapshot`.

Source: ModelServer.initModelStore, ModelManager.registerAndUpdateModel, SnapshotManager and
ConfigManager.getJsonIntValue of 0.12.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from serving.archive import Archive
from serving.configuration import gson
from serving.configuration.environment import redacted
from serving.configuration.properties import read_int
from serving.errors import ConfigError

#: Keys that TorchServe requires in each model of a snapshot.
_SNAPSHOT_NUMBERS = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay")
_SNAPSHOT_KEYS = (*_SNAPSHOT_NUMBERS, "defaultVersion", "marName")
RUNTIMES = ("python", "python3", "LSP")
_KEYED = "property {} must be a JSON object keyed by model name, then by version"
#: Characters of a value that a message shows.
_SHOWN = 40


@dataclass(frozen=True)
class OtherModel:
    """A model that a server has beside the tuned one.

    Attributes:
        name: the name that it is registered with; a guess from the name of the file if
            `is_certain` is false.
        version: the version in its entry; empty without one.
        file: the name of its archive in the model store.
        entry: its entry in `models` or `model_snapshot`; empty without one.
    """

    name: str
    version: str
    file: str
    entry: Mapping[str, Any] = field(default_factory=dict)
    is_certain: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True)
class Models:
    """What a config.properties says about the models.

    Attributes:
        name: the name that the archive's model is registered with.
        version: the version in its entry; TorchServe does not read that of a snapshot.
        entry: its entry in `models` or `model_snapshot`; empty without one.
        others: the server's other models.
        loads_all: whether the server loads every archive in its model store.
        is_snapshot: whether the file has a `model_snapshot`. TorchServe then reads neither
            `models` nor `load_models`, and the snapshot's numbers win over the archive's.
        notes: what a reader of the file may not expect.
    """

    name: str
    version: str
    entry: Mapping[str, Any]
    others: tuple[OtherModel, ...]
    is_snapshot: bool = False
    loads_all: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A part of the property `load_models`.

    Attributes:
        alias: the name that it is registered with; empty for the manifest's.
        file: the name of the archive in the model store.
        is_found: whether TorchServe looks for it in the model store.
    """

    alias: str
    file: str
    is_found: bool = True

    @property
    def guess(self) -> str:
        """The alias, or the stem of the file: the manifest's name is not known."""
        return self.alias or self.file.removesuffix(".mar").removesuffix(".tar.gz")


def parse_load_models(load_models: str) -> list[Loaded]:
    """Return the parts of the property `load_models`, which TorchServe does not strip."""
    loaded = []
    for part in load_models.split(","):
        alias, equals, url = part.partition("=")
        if url := url if equals else alias:
            file = _file_of(url)
            is_found = file == file.strip() and alias == alias.strip() and ".." not in url
            loaded.append(Loaded(alias if equals else "", file, is_found))
    return loaded


def without_urls(load_models: str) -> str:
    """Return the property `load_models` with the names of the files in place of URLs."""
    parts = (f"{part.alias}={part.file}" for part in parse_load_models(load_models))
    return ",".join(part.removeprefix("=") for part in parts)


def _file_of(url: str) -> str:
    """Return the name of the file that TorchServe reads from, or downloads to, the model store."""
    path = urlsplit(url).path if "://" in url else url
    return path.rpartition("/")[2]


def find_models(lines: Mapping[str, str], archive: Archive) -> Models:
    """Return what the properties say about the archive's model and about others.

    A snapshot registers each `marName` under its key, `load_models` under the alias if it has one.

    Raises:
        ConfigError: TorchServe would not start with an entry, or servetune cannot measure it.
    """
    if "model_snapshot" in lines:
        return _snapshot_models(lines, archive)
    models = parse_json("models", lines.get("models", "{}"))
    entries = _entries("models", models)
    load_models = lines.get("load_models", "")
    loads_all = load_models.upper() == "ALL"
    parts = [] if loads_all else parse_load_models(load_models)
    loaded = [part for part in parts if part.is_found]
    file = archive.path.name
    own = next((part for part in loaded if part.file == file), None)
    is_loaded = loads_all or own is not None
    alias = own.alias if own else ""
    name = alias or (archive.manifest_name if is_loaded else "") or archive.name
    key = (name, archive.version)
    entry = entries.pop(key, {})
    if (versions := models.member(name)) is not None and versions.data is None:
        raise ConfigError(f"property models: {name} is null; TorchServe does not load it")
    known = {other for other, _ in entries}
    files = {
        part.alias or archive.manifest_name or archive.name if part.file == file else part.guess: (
            part.file
        )
        for part in loaded
        if part is not own
    }
    others = set(files)
    # A file without an alias is registered under the name in its manifest, which is not known.
    is_certain = not any(
        p.guess not in known for p in loaded if not p.alias and p.file not in (file, "")
    )
    idle = {other for other in known if parts and is_certain and other not in {*others, name}}
    served = [
        _other_model(model, entry, files.get(model[0]))
        for model, entry in entries.items()
        if model[0] not in idle
    ]
    # One file is one version.
    unread = [m for m in served if m.name == name and parts and is_loaded and name not in files]
    served = [model for model in served if model not in unread]
    aliases = {part.alias for part in loaded} | {archive.manifest_name or archive.name}
    served += [
        OtherModel(other, "", files[other], is_certain=other in aliases)
        for other in sorted(others - known)
    ]
    notes = [
        f"load_models: TorchServe does not find {_file_of(part.file)!r}: it does not strip "
        "spaces, and accepts no path with '..'"
        for part in parts
        if not part.is_found
    ]
    if parts and not is_loaded:
        shown = redacted({"load_models": load_models})["load_models"]
        notes.append(f"load_models={shown} does not load {file}")
    if idle:
        notes.append(f"models: load_models does not load {', '.join(sorted(idle))}")
    if unread:
        notes.append(
            f"models: TorchServe does not read the entry of {', '.join(map(str, unread))}, because "
            f"the version of {file} is {archive.version}"
        )
    return Models(
        name, archive.version, entry, tuple(served), loads_all=loads_all, notes=tuple(notes)
    )


def _other_model(
    model: tuple[str, str], entry: Mapping[str, Any], file: str | None = None
) -> OtherModel:
    return OtherModel(*model, file or str(entry.get("marName") or f"{model[0]}.mar"), entry)


def list_models(lines: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return the name, the version and the file of each model that the properties load.

    Raises:
        ConfigError: the JSON cannot be read.
    """
    files = {}
    if "model_snapshot" in lines:
        entries, _ = _snapshot_entries(lines["model_snapshot"])
    else:
        entries = _entries("models", parse_json("models", lines.get("models", "{}")))
        if (load_models := lines.get("load_models", "")).upper() != "ALL":
            parts = parse_load_models(load_models)
            files = {part.guess: part.file for part in parts if part.is_found}
    found = {
        (name, version): str(entry.get("marName", ""))
        for (name, version), entry in entries.items()
        if not files or name in files
    }
    found |= {(n, "1.0"): f for n, f in files.items() if n not in {name for name, _ in found}}
    return [
        (name, version, files.get(name) or file or f"{name}.mar")
        for (name, version), file in found.items()
    ]


def _snapshot_models(lines: Mapping[str, str], archive: Archive) -> Models:
    key = "model_snapshot"
    entries, count = _snapshot_entries(lines[key])
    file = archive.path.name
    same_file = [model for model, entry in entries.items() if entry["marName"] == file]
    preferred = [model for model in same_file if model[0] == archive.name]
    own = next(iter(preferred or same_file), (archive.name, archive.version))
    entry = entries.pop(own, {})
    for number in _SNAPSHOT_NUMBERS if entry else ():
        # TorchServe takes these as they are; 0 is no default, and servetune cannot set it.
        if read_model_int(number, entry.get(number)) is None:
            raise ConfigError(
                f"property {key}: {number} must be at least 1 to be measured "
                f"(got {entry[number]!r})"
            )
    notes = []
    if beside := [name for name in ("models", "load_models") if name in lines]:
        notes.append(f"model_snapshot: TorchServe does not read {' and '.join(beside)} beside it")
    if entry and count < 1:
        notes.append(
            f"model_snapshot: modelCount is {count}, so that TorchServe loads no model; set it "
            f"to {len(entries) + 1}"
        )
    if entry and entry["marName"] != file:
        notes.append(f"model_snapshot: the entry of {own[0]} names {entry['marName']}, not {file}")
    if not entry:
        notes.append(f"model_snapshot has no entry for {file}: TorchServe does not load it")
    others = tuple(_other_model(model, data) for model, data in entries.items())
    return Models(*own, entry, others, True, notes=tuple(notes))


def _snapshot_entries(text: str) -> tuple[dict[tuple[str, str], dict[str, Any]], int]:
    """Return the entries of a snapshot by name and version, and its number of models."""
    key = "model_snapshot"
    snapshot = parse_json(key, text)
    models = snapshot.member("models")
    if models is None or models.data is None:
        raise ConfigError(f"{_KEYED.format(key)} (found null)")
    entries = _entries(key, models)
    count = snapshot.member("modelCount")
    for (name, version), entry in entries.items():
        missing = [k for k in _SNAPSHOT_KEYS if entry.get(k) is None]
        if missing:
            raise ConfigError(
                f"property {key}: the entry of {name} {version} has no {missing[0]}; TorchServe "
                "does not start without it"
            )
        if (runtime := entry.get("runtimeType", "python")) not in RUNTIMES:
            raise ConfigError(
                f"property {key}: runtimeType of {name} must be one of {', '.join(RUNTIMES)} "
                f"(got {runtime!r})"
            )
    return entries, 0 if count is None else read_model_int("modelCount", count.plain()) or 0


def parse_json(key: str, text: str) -> gson.Value:
    """Parse the JSON of `models` or `model_snapshot` as TorchServe's parser, Gson, does.

    Raises:
        ConfigError: Gson would refuse the text.
    """
    try:
        value = gson.parse(text)
    except gson.GsonError as error:
        if error.position >= len(text.rstrip()) or text.strip() in ("{", "["):
            raise ConfigError(
                f"the JSON of property {key} has no end (found {text[-_SHOWN:]!r}); JSON over "
                "several lines needs a backslash at the end of each line but the last"
            ) from None
        found = text[error.position : error.position + _SHOWN]
        raise ConfigError(
            f"{_KEYED.format(key)}, and is not valid JSON from {found!r} on"
        ) from None
    if value.data is None:
        raise ConfigError(
            f"property {key} is empty, and TorchServe does not start with that; remove the line"
        )
    return value


def _entries(key: str, models: gson.Value) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the entries by name and version.

    Raises:
        ConfigError: they are not keyed by name, then by version.
    """
    return {(name, version): entry.plain() for name, version, entry in entry_values(key, models)}


def entry_values(key: str, models: gson.Value) -> Iterable[tuple[str, str, gson.Value]]:
    """Return the name, the version and the entry of each model.

    Raises:
        ConfigError: they are not keyed by name, then by version.
    """
    found = []
    for model in _members(key, models, ""):
        if model.value.data is None and key == "models":
            continue  # TorchServe does not look at it before it loads the model.
        for version in _members(key, model.value, f" for {model.name}"):
            if not version.value.is_object:
                raise ConfigError(
                    f"property {key}: the entry of {model.name} {version.name} must be a mapping"
                )
            found.append((model.name, version.name, version.value))
    return found


def _members(key: str, value: gson.Value, place: str) -> list[gson.Member]:
    try:
        return list(gson.as_map(value))
    except gson.RepeatedName as error:
        raise ConfigError(
            f"property {key} has {error.name}{place} twice; TorchServe does not start with that"
        ) from None
    except gson.GsonError:
        raise ConfigError(f"{_KEYED.format(key)} (found {value.text[:_SHOWN]}{place})") from None


def read_model_int(key: str, value: Any) -> int | None:
    """Return a number of a model's entry; None if TorchServe takes its default instead.

    Raises:
        ConfigError: TorchServe would not start with this value.
    """
    if isinstance(value, list):  # Gson takes the item of an array that has only one.
        return read_model_int(key, value[0]) if len(value) == 1 else None
    if isinstance(value, gson.Number):
        number: int | None = gson.to_int(value)
    else:
        number = read_int(value) if isinstance(value, str) else None
    if number is None:
        raise ConfigError(f"the models' {key} must be an integer (got {value!r})")
    return number if number > 0 else None
