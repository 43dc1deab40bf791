"""The commands of the service."""

from __future__ import annotations

import configparser
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from search.cli import service
from search.cli.main import app
from search.cli.service import _check_ratio
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


UNIT = Path(__file__).parents[3] / "examples" / "servetune.service"


def read_unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(UNIT.read_text())
    return unit


def test_unit_starts_the_service_with_options_that_it_has() -> None:
    program, command, *options = shlex.split(read_unit()["Service"]["ExecStart"])
    assert program.endswith("/bin/servetune") and command == "serve"
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    context = serve.make_context("serve", options)
    assert str(context.params["folder"]) == "/var/lib/servetune"
    assert context.params["host"] == "127.0.0.1" and not context.params["no_token"]


def test_unit_lets_jobs_outlive_the_service() -> None:
    section = read_unit()["Service"]
    assert section["KillMode"] == "process" and section["Type"] == "notify"
    assert section["KillSignal"] == "SIGINT" and section["Restart"] == "on-failure"


def test_unit_is_valid_for_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "servetune"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text().replace("/opt/servetune/bin/servetune", str(program))
    (tmp_path / "servetune.service").write_text(text.replace("User=servetune\n", ""))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "servetune.service")],
        capture_output=True,
        text=True,
    )
    assert "servetune.service" not in checked.stderr, checked.stderr


@pytest.mark.parametrize("is_abstract", [False, True])
def test_notify_systemd_sends_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"@{tmp_path.name}" if is_abstract else "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        service._notify_systemd("READY=1")
        assert systemd.recv(100) == b"READY=1"
    service._notify_systemd("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    service._notify_systemd("READY=1")


def test_require_ratio_gates_on_the_lower_bound() -> None:
    view = {"ratio": 2.0, "ratio_low": 1.4, "ratio_warnings": []}
    _check_ratio(view, 1.4)
    with pytest.raises(RequirementError, match=r"at least 1\.40, which is below"):
        _check_ratio(view, 1.5)
    with pytest.raises(RequirementError, match="cannot be checked"):
        _check_ratio({"ratio": None, "ratio_low": None, "ratio_warnings": []}, 1.0)


def test_watch_prints_what_is_tried_and_known() -> None:
    data = {"trying": "trying larger batches", "so_far": "5 rps", "left_s": 90.0, "added": 1}
    line = service._event_line("progress", data)
    assert line == "trying larger batches; so far: 5 rps; about 90 s left"
    assert service._event_line("window", {}) is None
