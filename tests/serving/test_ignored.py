"""Settings that TorchServe takes and ignores are named; nothing is started."""

from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.fleet import Fleet
from loadgen.rate.goal import Goal
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialState
from search.trial.runner import run_trial
from serving.archive import Archive
from serving.config import ServerConfig
from serving.errors import ArchiveError
from serving.ignored import find_ignored_settings, find_unapplied_settings
from serving.installation import Installation, find_installation
from serving.site import Site
from tests.archives import make_archive


@pytest.fixture
def installation() -> Installation:
    return find_installation()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.read(make_archive(tmp_path))


def test_what_the_archive_says_first_is_named(installation: Installation, tmp_path: Path) -> None:
    held = "minWorkers: 2\njobQueueSize: 50\nresponseTimeout: 9\n"
    archive = Archive.read(make_archive(tmp_path, model_config__yaml=held))
    assert archive.settings["jobQueueSize"] == 50
    told = find_ignored_settings(ServerConfig(job_queue_size=1000), installation, archive) or ""
    assert "job_queue_size 1000 was asked for" in told and "jobQueueSize: 50" in told
    assert find_ignored_settings(ServerConfig(job_queue_size=50), installation, archive) is None
    assert find_ignored_settings(ServerConfig(), installation, archive) is None
    raw = ServerConfig(properties={"default_response_timeout": "120"})
    assert "responseTimeout: 9" in (find_ignored_settings(raw, installation, archive) or "")


def test_an_archive_with_a_damaged_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no YAML"):
        Archive.read(make_archive(tmp_path, model_config__yaml="a: ["))


def test_what_the_installation_lacks_is_named(installation: Installation, archive: Archive) -> None:
    ipex = ServerConfig(properties={"ipex_enable": "true"})
    assert "intel_extension_for_pytorch" in (
        find_ignored_settings(ipex, installation, archive) or ""
    )
    assert find_ignored_settings(ipex, replace(installation, ipex_version="2.8.0"), archive) is None
    off = ServerConfig(properties={"ipex_enable": "false"})
    assert find_ignored_settings(off, installation, archive) is None


async def test_a_trial_of_an_ignored_setting_starts_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    site = Site(Archive.read(make_archive(tmp_path)), installation)
    task = TrialRequest(0, TrialOrigin.SAMPLED, ServerConfig(properties={"async_logging": "true"}))
    fleet = Fleet(lambda index: pytest.fail("a load process was started"))
    result = await run_trial(task, site, Goal(), fleet, tmp_path / "trial")
    assert result.state is TrialState.FAILED
    assert result.cause.startswith("setting ignored: async_logging has no effect")
    assert not (tmp_path / "trial" / "torchserve.log").exists()


def test_workers_without_their_launcher_are_found() -> None:
    config = ServerConfig(properties={"cpu_launcher_enable": "true"})
    worker = "python ts/model_service_worker.py --sock-type unix"
    assert "cpu_launcher_enable was set" in (find_unapplied_settings(config, [worker]) or "")
    launched = f"python -m torch.backends.xeon.run_cpu --ninstances 1 {worker}"
    assert find_unapplied_settings(config, [launched, worker]) is None
    assert find_unapplied_settings(ServerConfig(), [worker]) is None
