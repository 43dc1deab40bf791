"""The commands of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from search.cli import service


class FakeClient:
    """A `ServiceClient` that keeps the specification it submits."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] = {}

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def submit(self, spec: str, uploads: dict[str, Path]) -> dict[str, Any]:
        self.spec = yaml.safe_load(spec)
        return {"id": "1"}


def test_submit_makes_paths_absolute_from_the_folder_of_the_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeClient()
    monkeypatch.setattr(service, "_client", lambda *_: client)
    (tmp_path / "model.mar").touch()
    (tmp_path / "requests.jsonl").touch()
    data = {
        "model": {"archive": "model.mar", "requests": "requests.jsonl"},
        "serving": {"baseline": "config.properties"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    service.submit(tmp_path / "mine.yaml")
    assert client.spec["name"] == "mine"
    assert client.spec["serving"]["baseline"] == str(tmp_path / "config.properties")
    assert client.spec["model"]["archive"] == str(tmp_path / "model.mar")
