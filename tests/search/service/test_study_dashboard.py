"""The process of optuna-dashboard, which only the loopback's names reach."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from search.cluster.node import free_ports
from search.service.study_dashboard import STORAGE_VARIABLE, only_local


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        ("127.0.0.1:80", True),
        ("127.0.0.1", True),
        ("localhost:8080", True),  # A forwarded port.
        ("LOCALHOST", True),
        ("[::1]:1", True),
        ("", False),
        ("evil.example:80", False),
        ("127.0.0.1.evil.example", False),
        ("localhost:80@evil.example", False),
        ("localhost\n", False),
    ],
)
def test_only_local_answers_names_of_the_loopback(host: str, is_answered: bool) -> None:
    statuses: list[str] = []
    app = only_local(lambda environ, start: [b"study"])
    body = b"".join(app({"HTTP_HOST": host}, lambda status, *_: statuses.append(status)))  # type: ignore[arg-type, func-returns-value]
    assert (body == b"study") is is_answered
    assert statuses == ([] if is_answered else ["403 Forbidden"])


def test_study_dashboard_shows_a_study(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=storage, study_name="a study")
    (port,) = free_ports(1)
    command = [sys.executable, "-P", "-m", "search.service.study_dashboard", str(port)]
    environment = {**os.environ, STORAGE_VARIABLE: storage}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            assert "a study" in wait_for_answer(port)
            assert get(port, "evil.example")[0] == 403
        finally:
            process.kill()


def get(port: int, host: str) -> tuple[int, str]:
    """Return the status and the body of the list of studies."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/api/studies", headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def wait_for_answer(port: int) -> str:
    """Return the list of studies as soon as the process listens, within a minute."""
    for _ in range(600):
        try:
            status, text = get(port, f"localhost:{port}")
        except OSError:
            time.sleep(0.1)
            continue
        assert status == 200
        return text
    raise AssertionError("the dashboard does not answer")
