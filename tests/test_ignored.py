"""Settings that TorchServe takes and ignores are named; nothing is started."""

from dataclasses import replace
from pathlib import Path

import pytest

from serving.archive import Archive
from serving.config import ServerConfig
from serving.errors import ServerError
from serving.ignored import ignored_after, ignored_before
from serving.installation import Installation, find_installation
from serving.server import Site, TorchServe
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
    config = ServerConfig(properties={"async_logging": "true"})
    with pytest.raises(ServerError, match="setting ignored: async_logging has no effect"):
        async with TorchServe(config, site, tmp_path / "trial"):
            pytest.fail("it started")
    assert not (tmp_path / "trial").exists()


def test_workers_without_their_launcher_are_found() -> None:
    config = ServerConfig(properties={"cpu_launcher_enable": "true"})
    worker = "python ts/model_service_worker.py --sock-type unix"
    assert "cpu_launcher_enable was set" in (ignored_after(config, [worker]) or "")
    launched = f"python -m torch.backends.xeon.run_cpu --ninstances 1 {worker}"
    assert ignored_after(config, [launched, worker]) is None
    assert ignored_after(ServerConfig(), [worker]) is None
