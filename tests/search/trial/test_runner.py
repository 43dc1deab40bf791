from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock, patch

import pytest

from loadgen.fleet import Fleet
from loadgen.rate.goal import Goal
from loadgen.rate.search import RateSearch
from search.cluster.transfer import Inbox
from search.spec.sweep_loads import SweepLoad
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import PHASES, TrialState
from search.trial.runner import _niceness_warnings, _offer_loads, run_trial
from serving.archive import Archive
from serving.cgroup import Enforcement
from serving.configuration.config import ServerConfig
from serving.installation import find_installation
from serving.limits import Limits
from serving.site import Site
from tests.archives import make_archive


async def test_run_trial_starts_nothing_for_ignored_setting(tmp_path: Path) -> None:
    site = Site(Archive.read(make_archive(tmp_path)), find_installation())
    config = ServerConfig(properties={"async_logging": "true"})
    request = TrialRequest(0, TrialOrigin.SAMPLED, config)
    fleet = Fleet(lambda index: pytest.fail("a load generator process was started"))
    result = await run_trial(request, site, Goal(), fleet, tmp_path / "trial")
    assert result.state is TrialState.FAILED
    assert result.cause.startswith("setting ignored: async_logging has no effect")
    assert not (tmp_path / "trial" / "torchserve.log").exists()


async def test_run_trial_reports_cores_under_limits(tmp_path: Path) -> None:
    archive = Archive.read(make_archive(tmp_path))
    site = Site(archive, find_installation(), limits=Limits(cpus=1))
    config = ServerConfig(properties={"async_logging": "true"})
    request = TrialRequest(0, TrialOrigin.SAMPLED, config)
    fleet = Fleet(lambda index: pytest.fail("a load generator process was started"))
    result = await run_trial(request, site, Goal(), fleet, tmp_path / "trial")
    assert result.host.cores == 1


async def test_run_trial_reports_how_limits_are_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = find_installation()
    java = replace(installation.java, path="/no/java")
    site = Site(
        Archive.read(make_archive(tmp_path)),
        replace(installation, java=java),
        limits=Limits(cpus=1),
    )
    enforcement = Enforcement(method="cgroup", warnings=("the host is small",))
    monkeypatch.setattr("serving.server.enforce", lambda *arguments: enforcement)
    fleet = Fleet(lambda index: pytest.fail("a load generator process was started"))
    request = TrialRequest(0, TrialOrigin.SAMPLED, ServerConfig())
    result = await run_trial(request, site, Goal(), fleet, tmp_path / "trial")
    assert result.cause.startswith("no start: /no/java did not start")
    assert result.host.facts["limits"] == "cgroup"
    assert result.warnings == ("the host is small",)


async def test_files_of_a_trial_are_whole_if_the_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file replaces the old one only once it is complete."""
    site = Site(Archive.read(make_archive(tmp_path)), find_installation())
    config = ServerConfig(properties={"async_logging": "true"})
    request = TrialRequest(0, TrialOrigin.SAMPLED, config)
    fleet = Fleet(lambda index: pytest.fail("a load generator process was started"))
    path = tmp_path / "trial" / "measurements.json"
    await run_trial(request, site, Goal(), fleet, path.parent)
    before = path.read_bytes()
    assert json.loads(before)["windows"] == []

    def killed(descriptor: int) -> None:
        assert path.read_bytes() == before
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        await run_trial(request, site, Goal(), fleet, path.parent)
    with pytest.raises(KeyboardInterrupt):
        Inbox(str(tmp_path)).deliver(str(path.parent), {path.name: b"{"})
    assert path.read_bytes() == before


async def test_offer_loads_reports_each_load_as_such() -> None:
    """A load of a sweep is offered as it is, without bracketing."""
    phases: list[tuple[str, float]] = []
    search = Mock(spec=RateSearch, cycle_requests=1)
    search.progress = lambda name, rate: phases.append((name, rate))
    search.warm_up = AsyncMock()
    observed = Mock()
    observed.measure = AsyncMock(return_value=Mock(generator_limited=False))
    loads = [SweepLoad("interval", rate_rps=30.0, duration_s=1.0), SweepLoad("burst", requests=5)]
    with patch("search.trial.runner.LoadResult") as result:
        result.from_window.return_value = "measured"
        results: list[Any] = []
        await _offer_loads(loads, results, lambda: search, observed, Goal(), 0)
    assert phases == [("load", 30.0), ("load", 0.0)] and results == ["measured"] * 2
    assert "load" in PHASES


def test_niceness_warnings_name_the_niceness_of_a_worker() -> None:
    command = [sys.executable, "-c", "import os; print(os.nice(19), flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        [warning] = _niceness_warnings([worker.pid])
        worker.kill()
    assert "niceness 19 instead of 0" in warning
    assert _niceness_warnings([worker.pid]) == [], "a worker that is gone has none"
