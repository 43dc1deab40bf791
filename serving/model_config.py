"""Settings in an archive's model-config.yaml, which takes precedence over config.properties."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from serving.archive import MANIFEST, Archive
from serving.config import ARCHIVE_KEYS, MODEL_KEYS, ServerConfig
from serving.errors import ArchiveError


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
    return replace(config, **unset, model_properties=rest)


def rebuild_archive(archive: Archive, settings: Mapping[str, int], path: Path) -> str:
    """Write a copy of the archive to `path` with these settings in its model-config.yaml.

    Other settings in its model-config.yaml stay.

    Returns:
        The text of the new model-config.yaml.

    Raises:
        ArchiveError: the archive's model-config.yaml is not a YAML mapping.
    """
    with zipfile.ZipFile(archive.path) as old, zipfile.ZipFile(path, "w") as new:
        name, changed = _changed_members(archive, old, settings)
        for entry in old.infolist():
            if entry.filename not in changed:
                new.writestr(entry, old.read(entry))
        for filename, content in changed.items():
            new.writestr(filename, content, zipfile.ZIP_DEFLATED)
    return changed[name]


def unpack_with_settings(archive: Archive, settings: Mapping[str, int], folder: Path) -> str:
    """Unpack the archive to `folder` with these settings in its model-config.yaml.

    TorchServe serves a folder in its model store through symbolic links, so the archive is
    unpacked once, as it is without settings.

    Returns:
        The text of the new model-config.yaml.

    Raises:
        ArchiveError: the archive's model-config.yaml is not a YAML mapping.
    """
    with zipfile.ZipFile(archive.path) as mar:
        name, changed = _changed_members(archive, mar, settings)
        mar.extractall(folder)
    for filename, content in changed.items():
        (folder / filename).write_text(content)
    return changed[name]


def _changed_members(
    archive: Archive, mar: zipfile.ZipFile, settings: Mapping[str, int]
) -> tuple[str, dict[str, str]]:
    """Return the path of model-config.yaml, and the new text of it and of the manifest by path."""
    manifest = json.loads(mar.read(MANIFEST))
    name: str = manifest["model"].setdefault("configFile", "model-config.yaml")
    old_settings: Any = {}
    if name in mar.namelist():
        try:
            old_settings = yaml.safe_load(mar.read(name)) or {}
        except yaml.YAMLError as error:
            raise ArchiveError(f"{archive.path}: {name} is not valid YAML: {error}") from None
    if not isinstance(old_settings, dict):
        raise ArchiveError(f"{archive.path}: {name} must be a mapping of settings")
    text = yaml.safe_dump({**old_settings, **settings}, sort_keys=False)
    return name, {MANIFEST: json.dumps(manifest, indent=2), name: text}
