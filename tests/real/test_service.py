"""The service with a real Ray and a real TorchServe."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from search.cluster.node import free_ports
from search.service.jobs import JobState, JobStore
from search.service.local_cluster import CLUSTER_FILE
from search.service.ray_jobs import LocalCluster
from serving.identity import is_alive
from tests.real.conftest import servetune, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WriteStudy = Callable[..., Path]


class ServiceProcess:
    """A `servetune serve` process on a folder; a test may start it several times."""

    def __init__(self, folder: Path, root: Path):
        self.folder, self.root, (self.port,) = folder, root, free_ports(1)
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = servetune(
            *("serve", "--port", str(self.port), "--folder", self.folder, "--root", self.root)
        )
        assert self.process.stdout is not None
        wait_for(
            lambda: "servetune is listening" in (self.process.stdout.readline()),  # type: ignore[union-attr]
            *(90, "the service has started"),
        )

    def start_command(self, *arguments: Any) -> subprocess.Popen[str]:
        server = ("--server", f"http://127.0.0.1:{self.port}")
        return servetune(*arguments, *server, "--token-file", self.folder / "token")

    def run_command(self, *arguments: Any) -> str:
        process = self.start_command(*arguments)
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        return str(output)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    process = ServiceProcess(tmp_path / "service", tmp_path)
    process.start()
    try:
        yield process
    finally:
        if process.process is not None:
            process.process.send_signal(signal.SIGINT)
            process.process.wait(60)
        assert LocalCluster.find(process.folder) is None, "a service without jobs stops Ray"


def test_job_continues_after_the_service_was_killed(
    service: ServiceProcess, study: WriteStudy, tmp_path: Path
) -> None:
    path = study()
    job_id = service.run_command("submit", path).split()[0]
    store = JobStore(service.folder)
    job = store.get(job_id)
    assert job is not None
    wait_for(
        lambda: any(e.kind == "window" for e in job.events.read()), 120, "a window was measured"
    )
    assert service.process is not None
    service.process.kill()
    service.process.wait()
    before = len(job.events.read())
    wait_for(lambda: len(job.events.read()) > before + 3, 60, "the job continues without it")
    service.start()
    output = service.run_command("watch", job_id, "--require-ratio", "1.2")
    assert "finished: all 4 trials were run" in output
    kinds = [event.kind for event in job.events.read()]
    assert kinds.count("result") == 4 and kinds.count("trial") == 4, "no event is lost"
    assert kinds.count("state") == 3
    below = service.start_command("watch", job_id, "--require-rps", "100000")
    assert below.wait(60) == 3
    service.run_command("fetch", job_id, "--into", tmp_path / "out")
    verified = servetune(
        *("verify", tmp_path / "out" / "best", "--model-store", path.parent),
        *("--requests", path.parent / "requests.jsonl"),
    )
    assert "PASS" in verified.communicate(timeout=180)[0]
    token = (service.folder / "token").read_text().strip()
    for file in service.folder.rglob("*"):
        if file.is_file() and file.name != "token":
            assert token not in file.read_bytes().decode(errors="replace"), file


def test_job_is_stopped_and_resumed(service: ServiceProcess, study: WriteStudy) -> None:
    job_id = service.run_command("submit", study()).split()[0]
    job = JobStore(service.folder).get(job_id)
    assert job is not None
    wait_for(lambda: any(e.kind == "result" for e in job.events.read()), 180, "a trial is over")
    from urllib.request import Request, urlopen

    token = (service.folder / "token").read_text().strip()

    def ask(method: str, path: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{service.port}/v1/jobs/{job_id}{path}"
        request = Request(url, method=method, headers={"Authorization": f"Bearer {token}"})
        with urlopen(request) as answer:
            view: dict[str, Any] = json.load(answer)
        return view

    assert ask("DELETE", "")["state"] == "stopping"
    wait_for(lambda: job.record().state is JobState.STOPPED, 60, "it stopped gracefully")
    run = job.run()
    assert run is not None
    kept = len(run.results())
    assert kept >= 1 and "interrupted" in (job.record().reason or "")
    ask("POST", "/resume")
    wait_for(lambda: job.record().state.is_over, 240, "it is over again")
    assert job.record().state is JobState.FINISHED and len(run.results()) == 4
    assert [
        p for p in psutil.process_iter() if "search.service.worker" in " ".join(_command_line(p))
    ] == []


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_ray_ends_after_its_service_and_the_last_job(tmp_path: Path, study: WriteStudy) -> None:
    process = ServiceProcess(tmp_path / "service", tmp_path)
    process.start()
    job_id = process.run_command("submit", study()).split()[0]
    job = JobStore(process.folder).get(job_id)
    assert job is not None and process.process is not None
    wait_for(lambda: any(e.kind == "phase" for e in job.events.read()), 120, "a trial has begun")
    identity = json.loads((process.folder / CLUSTER_FILE).read_text())["process"]
    process.process.kill()
    process.process.wait()
    assert is_alive(identity) and job.is_active(), "the job continues without the service"
    wait_for(lambda: job.ended() is not None, 400, "the job has ended")
    wait_for(lambda: not is_alive(identity), 90, "its Ray has ended")
    assert not (process.folder / CLUSTER_FILE).exists()
    assert not [
        p for p in psutil.process_iter() if str(process.folder) in " ".join(_command_line(p))
    ]
    ended = job.ended()
    assert ended is not None and ended[0] is JobState.FINISHED
    process.start()
    wait_for(lambda: job.record().state is JobState.FINISHED, 60, "the next service records it")
    process.process.send_signal(signal.SIGINT)
    process.process.wait(60)
