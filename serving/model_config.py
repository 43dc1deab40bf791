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
from serving.config import ARCHIVE_KEYS, MODEL_KEYS, ServerConfig
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
    edited = text
    for key, value in settings.items():
        if old_settings.get(key) == value:
            continue
        line = re.compile(rf"^((['\"]?){key}\2[ \t]*:[ \t]*)[^#\s]+", re.MULTILINE)
        if line.search(edited):
            edited = line.sub(rf"\g<1>{value}", edited)
        else:
            end = "" if not edited or edited.endswith("\n") else "\n"
            edited = f"{edited}{end}{key}: {value}\n"
    try:
        if yaml.safe_load(edited) == expected:
            return edited
    except yaml.YAMLError:
        pass  # A form that cannot be edited line by line, such as a mapping in braces.
    return yaml.safe_dump(expected, sort_keys=False)
