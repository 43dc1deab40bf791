"""Settings in an archive's model-config.yaml, which takes precedence over config.properties."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from serving.archive import MANIFEST, Archive
from serving.archive_files import copy_archive, open_archive, replace_file, unpack
from serving.configuration.config import ARCHIVE_KEYS, MODEL_KEYS, ServerConfig
from serving.errors import ArchiveError
from serving.safe_yaml import load_yaml


def overrides(archive: Archive, config: ServerConfig) -> bool:
    """Return whether the archive's model-config.yaml would change settings of a configuration."""
    return any(
        archive.settings.get(key) != value
        for key, value in archive_settings(config).items()
        if key in archive.overridden_keys
    )


def archive_settings(config: ServerConfig) -> dict[str, int]:
    """Return the settings that an archive's model-config.yaml can hold, by its keys."""
    settings = {
        key: getattr(config, name)
        for name, keys in ARCHIVE_KEYS.items()
        for key in keys
        if getattr(config, name) is not None
    }
    timeout = {k: int(v) for k, v in config.model_properties.items() if k == "startupTimeout"}
    return {**settings, **timeout}


def without_archive_settings(config: ServerConfig) -> ServerConfig:
    """Return the settings that an archive cannot hold, for files beside it.

    job_queue_size is in both, because the server's value applies to its other models.
    """
    rest = {k: v for k, v in config.model_properties.items() if k == "runtimeType"}
    unset: dict[str, Any] = dict.fromkeys(MODEL_KEYS)
    return replace(config, **unset, model_properties=rest, models={})


def rebuild_archive(archive: Archive, settings: Mapping[str, int], path: Path) -> str:
    """Write a copy of the archive to `path` with these settings in its model-config.yaml.

    Other settings in its model-config.yaml stay.

    Returns:
        The text of the new model-config.yaml.

    Raises:
        ArchiveError: the archive's model-config.yaml is not a YAML mapping.
    """
    name, changed = _changed_files(archive, settings)
    copy_archive(archive.path, changed, path)
    return changed[name]


def unpack_with_settings(archive: Archive, settings: Mapping[str, int], folder: Path) -> str:
    """Unpack or link the archive to `folder`, with these settings in its model-config.yaml.

    TorchServe serves a folder in its model store through symbolic links.

    Returns:
        The text of the new model-config.yaml.

    Raises:
        ArchiveError: the archive's model-config.yaml is not a YAML mapping.
    """
    name, changed = _changed_files(archive, settings)
    unpack(archive.path, folder)
    for filename, text in changed.items():
        replace_file(folder, filename, text)
    return changed[name]


def _changed_files(archive: Archive, settings: Mapping[str, int]) -> tuple[str, dict[str, str]]:
    """Return the path of model-config.yaml, and the new text of it and of the manifest by path."""
    with open_archive(archive.path) as read:
        manifest = json.loads(read(MANIFEST))
        name: str = manifest["model"].setdefault("configFile", "model-config.yaml")
        try:
            before = read(name).decode()
        except KeyError:
            before = ""
    try:
        old_settings = load_yaml(before) or {}
    except yaml.YAMLError as error:
        raise ArchiveError(f"{archive.path}: {name} is not valid YAML: {error}") from None
    if not isinstance(old_settings, dict):
        raise ArchiveError(f"{archive.path}: {name} must be a mapping of settings")
    text = _edit_yaml(before, old_settings, settings)
    return name, {MANIFEST: json.dumps(manifest, indent=2), name: text}


def _edit_yaml(text: str, old_settings: Mapping[str, Any], settings: Mapping[str, int]) -> str:
    """Return the YAML with other values at its top level; other lines and comments stay."""
    expected = {**old_settings, **settings}
    changed = {key: value for key, value in settings.items() if old_settings.get(key) != value}
    try:
        edited = _edited_text(text, changed)
        if yaml.safe_load(edited) == expected:
            return edited
    except yaml.YAMLError:
        pass  # A form to which no line can be added, such as a mapping in braces.
    return yaml.safe_dump(expected, sort_keys=False)


def _edited_text(text: str, changed: Mapping[str, int]) -> str:
    """Return the YAML with values at its top level replaced, or added at its end."""
    root: Any = yaml.compose(text, yaml.SafeLoader)
    entries = [(key, old) for key, old in (root.value if root else ()) if key.value in changed]
    edited = text
    for key, old in reversed(entries):
        start, end = old.start_mark.index, old.end_mark.index
        if start < key.end_mark.index:  # The place of the anchor that an alias refers to.
            start, end = _alias_span(text, key.end_mark.index)
        space = " " if text[start - 1] == ":" else ""
        edited = f"{edited[:start]}{space}{changed[key.value]}{edited[end:]}"
    present = {key.value for key, _ in entries}
    line_end = "\r\n" if "\r\n" in text else "\n"
    for name, value in changed.items():
        if name not in present:
            end = "" if not edited or edited.endswith("\n") else line_end
            edited = f"{edited}{end}{name}: {value}{line_end}"
    return edited


def _alias_span(text: str, start: int) -> tuple[int, int]:
    """Return the start and the end of the next alias."""
    match = re.compile(r"\*[^\s,\]}]+").search(text, start)
    return match.span() if match else (start, start)
