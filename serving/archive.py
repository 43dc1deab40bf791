"""Model archives and their manifest, read before a server starts."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from serving.archive_files import digest, open_archive
from serving.errors import ArchiveError
from serving.safe_yaml import load_yaml

MANIFEST = "MAR-INF/MANIFEST.json"
#: Of a model with a model-config.yaml.
DEFAULT_TIMEOUT_S = 120
#: The highest number of Java's `int`.
MAX_INT = 2**31 - 1


@dataclass(frozen=True)
class Archive:
    """A model archive on this host: a .mar file, a .tar.gz file or a folder.

    Attributes:
        name, version: the registered name and version, keys of the property `models`.
        settings: its model-config.yaml, which takes precedence over config.properties.
        manifest_name: the name in the manifest, under which TorchServe registers the model
            unless `load_models` or a snapshot has an alias.
    """

    path: Path
    name: str
    version: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    manifest_name: str = ""

    @property
    def load_models(self) -> str:
        """The archive's entry in the property `load_models`."""
        is_alias = self.name != (self.manifest_name or self.name)
        return f"{self.name}={self.path.name}" if is_alias else self.path.name

    def registered_as(self, name: str) -> Archive:
        """Return this archive under a name that may differ from the manifest's."""
        return replace(self, name=name, manifest_name=self.manifest_name or self.name)

    @property
    def effective_settings(self) -> Mapping[str, int]:
        """The numbers of the model-config.yaml as TorchServe takes them, by key.

        With any such file, TorchServe takes both timeouts from it, or 120 s. It takes the workers
        only if there are at least minWorkers in maxWorkers. A batch size or minWorkers below 1
        is 1. A value that is no `int` of Java's is ignored.
        Source: ModelConfig.build, ModelManager.createModel and ModelServer.initModelStore of
        0.12.0.
        """
        if not self.settings:
            return {}
        numbers = {
            key: value
            for key, value in self.settings.items()
            if type(value) is int and -MAX_INT - 1 <= value <= MAX_INT
        }
        for key in ("minWorkers", "batchSize"):
            if key in numbers:
                numbers[key] = max(1, numbers[key])
        settings = dict.fromkeys(("responseTimeout", "startupTimeout"), DEFAULT_TIMEOUT_S)
        for key in (*settings, "batchSize", "maxBatchDelay", "jobQueueSize"):
            if numbers.get(key, 0) > 0:
                settings[key] = numbers[key]
        if 0 < numbers.get("minWorkers", 0) <= numbers.get("maxWorkers", 0):
            settings |= {key: numbers[key] for key in ("minWorkers", "maxWorkers")}
        return settings

    @property
    def overridden_keys(self) -> frozenset[str]:
        """Keys of a model's entry in config.properties that the model-config.yaml overrides."""
        return frozenset(self.effective_settings)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, or of the names and files of the folder, hexadecimal."""
        return digest(self.path)

    @classmethod
    def read(cls, path: Path) -> Archive:
        """Read the manifest and the model-config.yaml of the archive at `path`.

        Raises:
            ArchiveError: the file is missing, is not an archive, or names no model or handler.
        """
        path = path.resolve()
        if not path.is_file():  # The files in a folder may change without it.
            return _read(path)
        status = path.stat()
        return _read_once(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _read_once(path: Path, *_status: int) -> Archive:
    """Read an archive file again only if it changed: a .tar.gz must be decompressed whole."""
    return _read(path)


def _read(path: Path) -> Archive:
    try:
        with open_archive(path) as read:
            manifest = json.loads(read(MANIFEST))
            model = manifest.get("model") if isinstance(manifest, dict) else None
            config_file = model.get("configFile") if isinstance(model, dict) else None
            settings = load_yaml(read(str(config_file))) if config_file else None
    except FileNotFoundError:
        raise ArchiveError(f"model archive {path} does not exist") from None
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        gzip.BadGzipFile,
        zlib.error,
    ) as error:
        raise ArchiveError(_not_an_archive(path, error)) from error
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ArchiveError(f"{path}: {config_file} is not valid YAML: {error}") from None
    except (KeyError, ValueError) as error:
        raise ArchiveError(_not_an_archive(path, error)) from error
    if not isinstance(model, dict) or not model.get("modelName") or not model.get("handler"):
        raise ArchiveError(f"{path}: the manifest has no modelName or no handler")
    if config_file and not isinstance(settings, dict):
        found = "is empty" if settings is None else "is not a mapping of settings"
        raise ArchiveError(
            f"{path}: {config_file} {found}, and TorchServe does not start with that; remove it "
            "from the archive, or write a setting into it"
        )
    name, version = str(model["modelName"]), str(model.get("modelVersion") or "1.0")
    return Archive(path, name, version, settings if isinstance(settings, dict) else {})


def _not_an_archive(path: Path, error: Exception) -> str:
    hint = (
        "build one with torch-model-archiver"
        if path.is_dir() or path.name.endswith((".mar", ".tar.gz", ".tgz"))
        else "it must be a .mar file, a .tar.gz file or a folder"
    )
    cause = error.args[0] if error.args else type(error).__name__
    return f"{path} is not a model archive: {cause}; {hint}"
