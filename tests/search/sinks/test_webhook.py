"""Webhooks against a real HTTP server on the loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from search.sinks import end, webhook
from search.sinks.webhook import SECRET_FILE, notify, read_secret
from search.spec.loading import load_spec
from search.spec.sections import NotifySection
from search.study.outcome import Outcome
from tests.specifications import write_spec

pytestmark = pytest.mark.processes
SECRET = b"a key of the tests"


class Receiver:
    """A server that answers with a list of statuses, the last one again and again."""

    def __init__(self, statuses: list[int]):
        self.statuses = statuses
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                receiver.requests.append((self.path, dict(self.headers), body))
                statuses = receiver.statuses
                status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
                self.send_response(status)
                self.send_header("Location", f"{receiver.location}redirected")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = self.location = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver([204])
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(webhook, "_WAITS_S", (0.0, 0.01, 0.01))
    monkeypatch.setattr(webhook, "DEFAULT_FOLDER", tmp_path / "home")
    # A proxy of the environment is another host.
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")


def hook(url: str, *events: str) -> NotifySection:
    data: dict[str, Any] = {"url": url, **({"on": list(events)} if events else {})}
    return NotifySection.model_validate(data)


def test_notify_sends_a_signed_request(receiver: Receiver) -> None:
    assert notify([hook(f"{receiver.url}a?b=c")], "finished", {"run": "ä"}, SECRET) == []
    ((path, headers, body),) = receiver.requests
    assert path == "/a?b=c" and json.loads(body) == {
        **{"format_version": 1, "event": "finished", "run": "ä"}
    }
    signed = headers["X-Servetune-Timestamp"].encode() + b"." + body
    expected = hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    assert headers["X-Servetune-Signature"] == f"sha256={expected}"
    assert headers["X-Servetune-Event"] == "finished"
    assert headers["Content-Type"] == "application/json"


def test_notify_sends_only_the_events_that_are_asked_for(receiver: Receiver) -> None:
    hooks = [hook(f"{receiver.url}1"), hook(f"{receiver.url}2", "stopped")]
    for event in ("finished", "failed", "stopped"):
        assert notify(hooks, event, {}, SECRET) == []
    found = [(path, headers["X-Servetune-Event"]) for path, headers, _ in receiver.requests]
    assert found == [("/1", "finished"), ("/1", "failed"), ("/2", "stopped")]


@pytest.mark.parametrize(
    ("statuses", "count", "is_delivered"),
    [
        ([503, 500, 200], 3, True),
        ([429, 200], 2, True),
        ([500], 3, False),
        ([404], 1, False),
        ([302], 1, False),
    ],
)
def test_notify_retries_what_may_succeed_later(
    receiver: Receiver, statuses: list[int], count: int, is_delivered: bool
) -> None:
    last = statuses[-1]
    receiver.statuses = statuses
    warnings = notify([hook(f"{receiver.url}?secret=x")], "failed", {}, SECRET)
    assert len(receiver.requests) == count, "a redirection is not followed"
    assert len({headers["X-Servetune-Delivery"] for _, headers, _ in receiver.requests}) == 1
    expected = f"the webhook at 127.0.0.1 was not delivered: it answered with status {last}"
    assert warnings == ([] if is_delivered else [expected])
    assert "secret" not in str(warnings)


def test_notify_warns_of_a_receiver_that_is_down(receiver: Receiver) -> None:
    receiver.server.shutdown()
    receiver.server.server_close()
    (warning,) = notify([hook(receiver.url)], "failed", {}, SECRET)
    assert "was not delivered" in warning and "refused" in warning.lower()


def test_read_secret_refuses_an_empty_file(tmp_path: Path) -> None:
    secret = read_secret(tmp_path)
    assert len(secret) == 64 and read_secret(tmp_path) == secret
    (tmp_path / SECRET_FILE).write_text("\n")
    with pytest.raises(OSError, match="notify-secret is empty; delete it"):
        read_secret(tmp_path)


def test_notify_waits_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(webhook, "LIMIT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        (warning,) = notify([hook(url)], "failed", {}, SECRET)
        assert "was not delivered" in warning


def test_notify_sends_to_allowed_hosts_only(receiver: Receiver) -> None:
    hooks = [hook("http://169.254.169.254/latest"), hook(receiver.url)]
    (warning,) = notify(hooks, "failed", {}, SECRET, hosts=frozenset())
    assert warning == "the webhook at 169.254.169.254 was not sent: its host is not allowed"
    assert len(receiver.requests) == 1


def test_read_secret_creates_a_private_file_once(tmp_path: Path) -> None:
    secret = read_secret(tmp_path / "new")
    assert len(secret) == 64 and read_secret(tmp_path / "new") == secret
    path = tmp_path / "new" / "notify-secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["notify-secret"]


def test_with_sinks_reports_the_result(
    receiver: Receiver, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end, "read_secret", lambda: SECRET)
    spec = load_spec(write_spec(tmp_path, notify=[{"url": receiver.url}]))
    monkeypatch.setattr(type(outcome.run), "spec", lambda self: spec)
    warnings: list[str] = []
    assert end.with_sinks(outcome.run, lambda: outcome, warnings.append) is outcome
    with pytest.raises(ZeroDivisionError):
        end.with_sinks(outcome.run, lambda: 1 / 0, warnings.append)  # type: ignore[arg-type, return-value]
    finished, failed = [json.loads(body) for _, _, body in receiver.requests]
    assert finished["event"] == "finished" and finished["run"] == outcome.run.name
    assert finished["best_rps"] == 250.0 and finished["ratio"] == 50.0
    assert finished["trials"] == 5 and finished["reason"] == "all 5 trials were run"
    assert failed["event"] == "failed" and failed["reason"] == "division by zero"
    assert warnings == []


@pytest.mark.parametrize(
    ("changes", "event"),
    [({}, "finished"), ({"failed": True}, "failed"), ({"interrupted": True}, "stopped")],
)
def test_event_of_names_the_end_of_a_run(
    outcome: Outcome, changes: dict[str, bool], event: str
) -> None:
    from dataclasses import replace

    assert end.event_of(replace(outcome, **changes)) == event  # type: ignore[arg-type]
