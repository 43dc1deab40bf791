"""The command that runs the service, and its systemd unit."""

from __future__ import annotations

import configparser
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import typer

from search.cli.main import app
from search.cli.serve import _notify_systemd

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
        _notify_systemd("READY=1")
        assert systemd.recv(100) == b"READY=1"
    _notify_systemd("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    _notify_systemd("READY=1")
