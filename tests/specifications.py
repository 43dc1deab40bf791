"""Specifications for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.archives import make_archive

MODEL = {"archive": "echo.mar", "requests": "requests.jsonl"}


def make_model_files(folder: Path) -> Path:
    """Write the files that MODEL names, and return the folder."""
    make_archive(folder)
    (folder / "requests.jsonl").write_text('{"body": {"a": 1}}\n')
    return folder


def write_spec(folder: Path, **sections: Any) -> Path:
    """Write study.yaml with MODEL and these sections."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"model": MODEL, **sections}))
    return path
