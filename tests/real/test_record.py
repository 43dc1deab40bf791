"""The recording of a configuration on a real TorchServe."""

from pathlib import Path

import pytest

from benchmarks.record import pack_handler, record
from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.payloads import read_payloads
from serving.configuration.config import ServerConfig
from serving.installation import find_installation
from serving.site import Site


@pytest.mark.slow
async def test_record_measures_the_rate_that_a_waiting_handler_allows(tmp_path: Path) -> None:
    site = Site(pack_handler("waits", tmp_path), find_installation())
    (tmp_path / "requests.jsonl").write_text('{"body": {"n": 1}}\n')
    fleet = Fleet(local_processes(read_payloads(tmp_path / "requests.jsonl")))
    config = ServerConfig(workers=2, batch_size=4, max_batch_delay_ms=10, mkl_threads=1)
    try:
        recorded = await record(config, site, fleet, tmp_path / "server")
    finally:
        fleet.close()
    assert recorded["failures"] == 0
    assert recorded["closed_rps"] == pytest.approx(2 * 4 / (0.08 + 4 * 0.004), rel=0.3)
