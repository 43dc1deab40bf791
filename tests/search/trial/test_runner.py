from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.fleet import Fleet
from loadgen.rate.goal import Goal
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialState
from search.trial.runner import run_trial
from serving.archive import Archive
from serving.config import ServerConfig
from serving.installation import find_installation
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
