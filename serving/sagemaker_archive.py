"""The model.tar.gz of SageMaker: an archive's files, which the container unpacks to a folder.

Its files have no common first folder, unlike those of TorchServe's own .tar.gz.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from serving.archive import MANIFEST, Archive
from serving.archive_files import extract_files, replace_file, unpack
from serving.configuration.model_config import unpack_with_settings
from serving.configuration.sagemaker import MODEL_NAME, MODEL_VERSION
from serving.errors import ArchiveError

MODEL_TAR = "model.tar.gz"


def write_model_tar(archive: Archive, settings: Mapping[str, int], path: Path) -> tuple[str, ...]:
    """Write the files of an archive as the model.tar.gz that SageMaker's container unpacks.

    The container sets the model's settings for one version, which the manifest then names. A
    model-config.yaml in the archive takes precedence, so that it carries these settings.

    Returns:
        The keys that the archive's model-config.yaml carries; none if it has no such file.

    Raises:
        ArchiveError: the archive's model-config.yaml is not a YAML mapping.
    """
    with tempfile.TemporaryDirectory(prefix="servetune-archive-") as temporary:
        folder = Path(temporary, "model")
        if archive.settings:
            unpack_with_settings(archive, settings, folder)
        else:
            unpack(archive.path, folder)
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["model"].get("modelVersion") != MODEL_VERSION:
            manifest["model"]["modelVersion"] = MODEL_VERSION
            replace_file(folder, MANIFEST, json.dumps(manifest, indent=2))
        with tarfile.open(path, "w:gz", compresslevel=1, dereference=True) as tar:
            for entry in sorted(folder.iterdir()):
                tar.add(entry, entry.name)
    return tuple(settings) if archive.settings else ()


def unpack_model_tar(path: Path, folder: Path) -> Archive:
    """Unpack a model.tar.gz as the container does; return the archive in the folder.

    Raises:
        ArchiveError: the file is missing or has no manifest.
    """
    try:
        with tarfile.open(path, "r:gz") as tar:
            extract_files(tar, folder)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"{path} cannot be unpacked: {error}") from None
    return replace(Archive.read(folder), name=MODEL_NAME)
