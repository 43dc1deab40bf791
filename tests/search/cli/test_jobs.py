"""The commands of a service's clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from search.cli import jobs
from search.cli.jobs import _check_ratio
from search.errors import RequirementError


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
    monkeypatch.setattr(jobs, "_client", lambda *_: client)
    (tmp_path / "model.mar").touch()
    (tmp_path / "requests.jsonl").touch()
    data = {
        "model": {"archive": "model.mar", "requests": "requests.jsonl"},
        "serving": {"baseline": "config.properties"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    jobs.submit(tmp_path / "mine.yaml")
    assert client.spec["name"] == "mine"
    assert client.spec["serving"]["baseline"] == str(tmp_path / "config.properties")
    assert client.spec["model"]["archive"] == str(tmp_path / "model.mar")


def test_require_ratio_gates_on_the_lower_bound() -> None:
    view = {"ratio": 2.0, "ratio_low": 1.4, "ratio_warnings": []}
    _check_ratio(view, 1.4)
    with pytest.raises(RequirementError, match=r"at least 1\.40, which is below"):
        _check_ratio(view, 1.5)
    with pytest.raises(RequirementError, match="cannot be checked"):
        _check_ratio({"ratio": None, "ratio_low": None, "ratio_warnings": []}, 1.0)


def test_watch_prints_what_is_tried_and_known() -> None:
    data = {"trying": "trying larger batches", "so_far": "5 rps", "left_s": 90.0, "added": 1}
    line = jobs._event_line("progress", data)
    assert line == "trying larger batches; so far: 5 rps; about 90 s left"
    assert jobs._event_line("window", {}) is None
