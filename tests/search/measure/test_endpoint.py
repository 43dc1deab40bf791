"""Tests of measuring a URL, with a simulated fleet."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from loadgen.payloads import Payload
from loadgen.rate.goal import Goal
from search.cli.main import run_command
from search.measure import endpoint
from search.measure.endpoint import measure_url
from tests.simulated import SimulatedFleet


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> SimulatedFleet:
    """A fleet that measures 64 servers of 0.4 s instead of a URL."""
    simulated = SimulatedFleet(service_s=0.4, servers=64)
    monkeypatch.setattr(endpoint, "exclusive_host", nullcontext)
    monkeypatch.setattr(endpoint, "Fleet", lambda *_, **__: simulated)
    return simulated


async def measure(goal: Goal | None = None, **options: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    found = await measure_url(
        "http://simulated/", [Payload(b"")], goal or Goal(), announce=said.append, **options
    )
    return found, said


async def test_measure_url_finds_the_users(fleet: SimulatedFleet) -> None:
    found, said = await measure()
    assert found.lower_rps == pytest.approx(160, rel=0.06)
    assert said[0] == "users: 1" and said[1] == "users: 8, 0.4 s or more each"
    assert re.match(r"128 users saturate the server \(about 16\d rps; ", said[-2])
    assert said[-2].endswith("The search takes up to 3 min; a window takes up to 20 s.")
    assert re.fullmatch(r"about \d+ s left", said[-1])


async def test_measure_url_with_users_has_no_ramp(fleet: SimulatedFleet) -> None:
    _, said = await measure(users=100)
    assert len(said) == 1 and said[0].endswith(" left")
    assert fleet.calls[0].schedule.users == 100  # type: ignore[union-attr]


async def test_measure_url_announces_minutes_for_a_slow_endpoint(fleet: SimulatedFleet) -> None:
    fleet.service_s, fleet.servers = 60.0, 8
    found, said = await measure(Goal(timeout_s=300.0, width=0.1))
    assert found.lower_rps == pytest.approx(8 / 60, rel=0.15)
    assert said[1] == "users: 8, 60 s or more each"
    assert "one request alone takes 60 s" in said[-2]
    assert said[-2].endswith("a window takes up to 12 min.")
    assert re.fullmatch(r"about \d+ min left", said[-1])


async def test_measure_url_reports_the_warnings_of_the_ramp(fleet: SimulatedFleet) -> None:
    fleet.servers, fleet.service_s = 10_000, 2.0
    found, _ = await measure(Goal(max_rate_rps=200))
    assert any("the limit" in warning for warning in found.warnings)


@pytest.fixture
def requests(tmp_path: Path) -> str:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"body": {}}\n')
    return str(path)


def test_measure_passes_the_goal_to_the_search(
    fleet: SimulatedFleet, requests: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--width", "0.2", "--p99-s", "3", "--timeout-s", "30", "--window-s", "25"]
    arguments = ["measure", "--url", "http://simulated/", "--requests", requests, *options]
    arguments += ["--batch-size", "8"]
    assert run_command([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert data["width"] >= 0.2 and "users: 16," in captured.err
    assert {window["timeout_s"] for window in data["windows"]} == {30.0}
    assert data["windows"][0]["span_s"] >= 25
    assert data["p99_s"] <= 3


def test_measure_refuses_latencies_above_the_limit(
    fleet: SimulatedFleet, requests: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["measure", "--url", "http://simulated/", "--requests", requests]
    assert run_command([*arguments, "--p99-s", "0.2"]) == 1
    assert "above the goal's 0.2 s" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "grpc://h:7070"], "gRPC is not supported; TorchServe serves the same model"),
        (["--url", "ftp://h/"], "--url must start with http:// or https:// (got 'ftp://h/')"),
        (["--url", "http://h/", "--insecure"], "--ca-file and --insecure are for https://"),
        (["--url", "http://h/", "--ca-file", "ca.pem"], "are for https:// (got 'http://h/')"),
        (["--url", "https://h/", "--ca-file", "ca.pem", "--insecure"], "pass either --ca-file"),
        (["--url", "https://h/", "--ca-file", "/no/ca.pem"], "/no/ca.pem cannot be read: No such"),
        (["--url", "http://h/", "--width", "0.9"], "Invalid value for '--width'"),
        (["--url", "http://h/", "--timeout-s", "inf"], "Invalid value for '--timeout-s'"),
        (["--url", "http://h/", "--timeout-s", "3601"], "Invalid value for '--timeout-s'"),
        (["--url", "http://h/", "--timeout-s", "nan"], "Invalid value for '--timeout-s'"),
        (["--url", "http://h/", "--p99-s", "inf"], "Invalid value for '--p99-s'"),
        (["--url", "http://h/", "--p99-s", "10"], "--p99-s must be below --timeout-s, which is 10"),
        (["--url", "http://h/", "--users", "9999999"], "Invalid value for '--users'"),
        (["--url", "http://h/", "--batch-size", "9999"], "Invalid value for '--batch-size'"),
        (["--url", "https://h:99999/"], "the URL 'https://h:99999/' is not valid: "),
        (["--url", "https://h:x/"], "the URL 'https://h:x/' is not valid: "),
        (["--url", "https://[::1/"], "the URL 'https://[::1/' is not valid: "),
        (["--url", "https://a..b/"], "the URL 'https://a..b/' is not valid: "),
        (["--url", "http://a..b/"], "the URL 'http://a..b/' is not valid: "),
        (["--url", "https://"], "the URL 'https://' is not valid: it has no host"),
        (["spec.yaml", "--users", "8"], "--users is for --url; the specification has its own"),
        (["spec.yaml", "--p99-s", "1"], "--p99-s is for --url"),
        (["spec.yaml", "--window-s", "9"], "--window-s is for --url"),
        (["--url", "http://h/", "--window-s", "0"], "Invalid value for '--window-s'"),
        (["spec.yaml", "--insecure"], "--insecure is for --url"),
        (["spec.yaml", "--arrivals", "poisson"], "--arrivals is for --url"),
        (["spec.yaml", "--timeout-s", "10"], "--timeout-s is for --url"),
        (["--url", "http://h/", "--config", "a.properties"], "--config is for SPEC; remove it"),
        (["--url", "http://h/", "--rounds", "3"], "--rounds is for SPEC"),
        (["--url", "http://h/", "--side-by-side"], "--side-by-side is for SPEC"),
        (["--url", "http://h/", "--keep", "files"], "--keep is for SPEC"),
    ],
)
def test_measure_refuses_options_that_do_not_fit(
    arguments: list[str], message: str, requests: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--url" in arguments:
        arguments = [*arguments, "--requests", requests]
    assert run_command(["measure", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
