"""The bundled model, for a first job without own files."""

from __future__ import annotations

from pathlib import Path

import yaml

from serving.demo.build import build


def demo_specification(folder: Path) -> str:
    """Build the bundled model into a folder, and return a specification of it in YAML.

    Raises:
        DemoError: the extra "demo" is not installed.
    """
    archive = build(folder)
    data = {
        "name": "bundled-model",
        "model": {"archive": str(archive), "requests": str(folder / "requests.jsonl")},
        "space": {"job_queue_size": 1000},
        # As in configs/quickstart.yaml.
        "search": {"trials": 24, "time_budget_s": 330},
        "confirm": {"finalists": 2},
    }
    return yaml.safe_dump(data, sort_keys=False)
