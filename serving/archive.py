"""What a model archive says of itself, read before any server is started."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "MAR-INF/MANIFEST.json"


class ArchiveError(ValueError):
    """A model archive that TorchServe could not load; the message says why."""


@dataclass(frozen=True)
class Archive:
    """A model archive (.mar) on this host.

    name and version are the registered ones: the keys that TorchServe looks for in `models`.
    """

    path: Path
    name: str
    version: str

    @property
    def sha256(self) -> str:
        """Of the whole file, in hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @classmethod
    def read(cls, path: Path) -> Archive:
        """Read the manifest inside `path`.

        Raises:
            ArchiveError: the file is missing, no archive, or names no model or handler.
        """
        path = path.resolve()
        try:
            with zipfile.ZipFile(path) as archive:
                manifest = json.loads(archive.read(MANIFEST))
        except FileNotFoundError:
            raise ArchiveError(f"model archive {path} does not exist") from None
        except OSError as error:
            raise ArchiveError(f"{path} cannot be read: {error.strerror}") from error
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise ArchiveError(
                f"{path} is not a model archive: {error}; build one with torch-model-archiver"
            ) from error
        model = manifest.get("model") if isinstance(manifest, dict) else None
        if not isinstance(model, dict) or not model.get("modelName") or not model.get("handler"):
            raise ArchiveError(f"{path}: the manifest names no model or no handler")
        return cls(path, str(model["modelName"]), str(model.get("modelVersion") or "1.0"))
