"""Settings that TorchServe takes and ignores are named; nothing is started."""

from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.fleet import Fleet
from loadgen.sustained import Goal
from search.result import Kind, State, Task
from search.trial import run_trial
from serving.archive import Archive
from serving.config import ServerConfig
from serving.ignored import ignored_after, ignored_before
from serving.installation import Installation, find_installation
from serving.server import Site
from tests.archives import make_archive


@pytest.fixture
def installation() -> Installation:
    return find_installation()


def test_what_the_installation_lacks_is_named(installation: Installation) -> None:
    ipex = ServerConfig(properties={"ipex_enable": "true"})
    assert "intel_extension_for_pytorch" in (ignored_before(ipex, installation) or "")
    assert ignored_before(ipex, replace(installation, ipex_version="2.8.0")) is None
    off = ServerConfig(properties={"ipex_enable": "false"})
    assert ignored_before(off, installation) is None


async def test_a_trial_of_an_ignored_setting_starts_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    site = Site(Archive.read(make_archive(tmp_path)), installation)
    task = Task(0, Kind.SAMPLED, ServerConfig(properties={"async_logging": "true"}))
    fleet = Fleet(lambda index: pytest.fail("a load process was started"))
    result = await run_trial(task, site, Goal(), fleet, tmp_path / "trial")
    assert result.state is State.FAILED
    assert result.cause.startswith("setting ignored: async_logging has no effect")
    assert not (tmp_path / "trial" / "torchserve.log").exists()


def test_workers_without_their_launcher_are_found() -> None:
    config = ServerConfig(properties={"cpu_launcher_enable": "true"})
    worker = "python ts/model_service_worker.py --sock-type unix"
    assert "cpu_launcher_enable was set" in (ignored_after(config, [worker]) or "")
    launched = f"python -m torch.backends.xeon.run_cpu --ninstances 1 {worker}"
    assert ignored_after(config, [launched, worker]) is None
    assert ignored_after(ServerConfig(), [worker]) is None
