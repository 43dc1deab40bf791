"""Model archives and their manifest, read before a server starts."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from serving.errors import ArchiveError

MANIFEST = "MAR-INF/MANIFEST.json"


@dataclass(frozen=True)
class Archive:
    """A model archive (.mar) on this host.

    Attributes:
        name, version: the registered name and version, keys of the property `models`.
        settings: its model-config.yaml, which takes precedence over config.properties.
    """

    path: Path
    name: str
    version: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def overridden_keys(self) -> frozenset[str]:
        """Keys of a model's entry in config.properties that the model-config.yaml overrides.

        With any such file, TorchServe takes both timeouts from it, or 120 s. It takes the workers
        only if there are at least minWorkers in maxWorkers.
        Source: ModelManager.createModel and ModelServer.initModelStore of 0.12.0.
        """
        if not self.settings:
            return frozenset()

        def number(key: str) -> int:
            value = self.settings.get(key)
            return value if type(value) is int and value > 0 else 0

        keys = {"responseTimeout", "startupTimeout"}
        keys |= {key for key in ("batchSize", "maxBatchDelay", "jobQueueSize") if number(key)}
        if 0 < number("minWorkers") <= number("maxWorkers"):
            keys |= {"minWorkers", "maxWorkers"}
        return frozenset(keys)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @classmethod
    def read(cls, path: Path) -> Archive:
        """Read the manifest and the model-config.yaml of the archive at `path`.

        Raises:
            ArchiveError: the file is missing, is not an archive, or names no model or handler.
        """
        path = path.resolve()
        try:
            with zipfile.ZipFile(path) as archive:
                manifest = json.loads(archive.read(MANIFEST))
                model = manifest.get("model") if isinstance(manifest, dict) else None
                config_file = model.get("configFile") if isinstance(model, dict) else None
                settings = yaml.safe_load(archive.read(str(config_file))) if config_file else None
        except FileNotFoundError:
            raise ArchiveError(f"model archive {path} does not exist") from None
        except OSError as error:
            raise ArchiveError(f"{path} cannot be read: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise ArchiveError(f"{path}: {config_file} is not valid YAML: {error}") from None
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise ArchiveError(
                f"{path} is not a model archive: {error}; build one with torch-model-archiver"
            ) from error
        if not isinstance(model, dict) or not model.get("modelName") or not model.get("handler"):
            raise ArchiveError(f"{path}: the manifest has no modelName or no handler")
        name, version = str(model["modelName"]), str(model.get("modelVersion") or "1.0")
        return cls(path, name, version, settings if isinstance(settings, dict) else {})
