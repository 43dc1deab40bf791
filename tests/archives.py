"""Small model archives for tests, built from a handler's source."""

import json
import tarfile
import zipfile
from pathlib import Path

ECHO = """
def handle(data, context):
    if data is None:
        return None
    return [{"size": len(data)} for _ in data]
"""


def make_archive(
    folder: Path, source: str = ECHO, name: str = "echo", version: str = "1.0", **extra: str
) -> Path:
    """Write FOLDER/NAME.mar with a handler; return its path.

    Args:
        extra: further files: `model_config__yaml="…"` is model-config.yaml.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mar"
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "model": {"modelName": name, "modelVersion": version, "handler": "handler.py:handle"},
        "archiverVersion": "0.12.0",
    }
    if "model_config__yaml" in extra:
        manifest["model"]["configFile"] = "model-config.yaml"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("handler.py", source)
        for key, text in extra.items():
            archive.writestr(key.replace("__", ".").replace("_", "-"), text)
    return path


def as_tar(mar: Path) -> Path:
    """Write NAME.tar.gz beside NAME.mar as torch-model-archiver does; return its path."""
    folder = as_folder(mar)
    path = mar.with_name(f"{folder.name}.tar.gz")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    return path


def as_folder(mar: Path) -> Path:
    """Unpack NAME.mar to a folder NAME beside it; return its path."""
    folder = mar.with_suffix("")
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(folder)
    return folder
