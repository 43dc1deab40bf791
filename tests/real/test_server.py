"""Tests of serving.server with a real TorchServe: start, isolation, failures, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from serving import health
from serving.configuration.config import ServerConfig
from serving.errors import ServerError
from serving.installation import Java, find_installation, probe_interpreter
from serving.leftovers import remove_leftovers
from serving.limits import Limits
from serving.ports import Ports
from serving.server import TorchServe
from serving.site import Site
from tests.real.conftest import OURS, ROOT, counted, folders, processes, wait_for

MakeSite = Callable[..., Site]
SMALL = ServerConfig(workers=1, netty_threads=1, netty_client_threads=1, mkl_threads=1)


async def ask(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(url, json={"a": 1}) as response:
        return response.status, await response.text()


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()


def environment_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


async def test_torchserve_workers_have_only_configured_environment(
    site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Ray worker sets these, and none may reach the server.
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TS_CONFIG_FILE", "/nowhere")
    for config in (
        ServerConfig(workers=1),
        ServerConfig(workers=1, mkl_threads=2, environment={"OMP_WAIT_POLICY": "PASSIVE"}),
    ):
        async with TorchServe(config, site(), tmp_path / "trial") as server:
            assert len(server.worker_pids) == 1
            for pid in server.worker_pids:
                environment = environment_of(pid)
                names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")
                variables = {name: environment[name] for name in names if name in environment}
                assert variables == config.environment_variables()
                assert not {"CUDA_VISIBLE_DEVICES", "TS_CONFIG_FILE"} & environment.keys()


@pytest.mark.parametrize(
    "model_config",
    [
        pytest.param(
            "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nmaxBatchDelay: 20\nresponseTimeout: 60\n",
            id="all settings",
        ),
        pytest.param("# only the batch\nbatchSize: 4\n", id="batch size", marks=pytest.mark.slow),
        pytest.param("handler:\n  device: cpu\n", id="other keys", marks=pytest.mark.slow),
    ],
)
async def test_torchserve_applies_settings_to_an_archive_with_its_own(
    site: MakeSite, tmp_path: Path, model_config: str
) -> None:
    config = replace(SMALL, workers=2, batch_size=2, max_batch_delay_ms=70, response_timeout_s=33)
    here = site(files={"model_config__yaml": model_config})
    async with TorchServe(config, here, tmp_path / "trial") as server:
        assert (len(server.worker_pids), server.batch_capacity) == (2, 4)
        assert (await ask(server.url))[0] == 200
    # Without settings the archive is served as it is.
    async with TorchServe(ServerConfig(netty_threads=1), here, tmp_path / "own") as server:
        assert not (tmp_path / "own" / "model-config.yaml").exists()


async def test_torchserve_applies_settings_of_two_concurrent_servers(
    site: MakeSite, tmp_path: Path
) -> None:
    # A batch waits until it is full.
    batched = replace(SMALL, batch_size=4, max_batch_delay_ms=60_000)
    async with (
        TorchServe(batched, site(), tmp_path / "1") as first,
        TorchServe(SMALL, site(), tmp_path / "2") as second,
    ):
        answers = await asyncio.gather(*[ask(first.url) for _ in range(4)], ask(second.url))
        assert [status for status, _ in answers] == [200] * 5
        await asyncio.gather(*[ask(first.url) for _ in range(8)])
        counters = await counted(first, 12, 1 + 3)
        assert (counters.answered, counters.batches) == (12, 1 + 3), "every batch was full"
        assert first.peak_memory_bytes > 50 << 20
        assert not first.worker_pids & second.worker_pids
    assert (tmp_path / "1" / "config.properties").read_text().count("batchSize") == 1


async def test_guard_raises_if_worker_dies(site: MakeSite, tmp_path: Path) -> None:
    async with TorchServe(SMALL, site(), tmp_path / "trial") as server:
        os.kill(next(iter(server.worker_pids)), signal.SIGKILL)
        with pytest.raises(
            ServerError, match=r"worker died: worker \d+ exited during the measurement"
        ):
            await server.guard(forever())


async def test_guard_raises_if_server_dies(site: MakeSite, tmp_path: Path) -> None:
    async with TorchServe(SMALL, site(), tmp_path / "trial") as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="server died: TorchServe was killed by SIGKILL"):
            await server.guard(forever())


#: Raises PyTorch's error if a batch has more than two requests.
SMALL_GPU = """
def handle(data, context):
    if data is None:
        return None
    if len(data) > 2:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return [{"ok": True} for _ in data]
"""


async def test_guard_raises_if_gpu_memory_runs_out(
    site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = iter([100 << 20, 100 << 20])
    monkeypatch.setattr("serving.health.gpu_used_bytes", lambda: next(used, 900 << 20))
    config = replace(SMALL, batch_size=4, max_batch_delay_ms=300)
    async with TorchServe(config, site(SMALL_GPU), tmp_path / "trial") as server:
        assert (await ask(server.url))[0] == 200

        async def ask_until_batches_fill() -> None:
            while True:
                await asyncio.gather(*[ask(server.url) for _ in range(4)])

        sentence = r"out of GPU memory: a handler could not allocate .* used 800 MiB"
        with pytest.raises(ServerError, match=sentence):
            await server.guard(ask_until_batches_fill())


def supervisor_of(home: Path) -> int:
    return int((home / "supervisor.pid").read_text().split()[0])


async def test_guard_raises_if_supervisor_dies(site: MakeSite, tmp_path: Path) -> None:
    async with TorchServe(SMALL, site(), tmp_path / "trial") as server:
        os.kill(supervisor_of(server._home), signal.SIGKILL)
        with pytest.raises(
            ServerError, match="server died: TorchServe's supervisor was killed"
        ) as raised:
            await server.guard(forever())
        assert raised.value.host_fault
        wait_for(lambda: not processes(*OURS), 30, "the workers have ended")


GROWS = """
held = []

def handle(data, context):
    if data is None:
        return None
    held.append(bytearray(300 << 20))
    return ["ok" for _ in data]
"""


@pytest.fixture
def group_of_100_mib() -> Iterator[Path]:
    """A control group whose processes the kernel kills above 100 MiB."""
    group = Path(f"/sys/fs/cgroup/memory/servetune-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(100 << 20))
    except OSError:
        pytest.skip("no control group can be made")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text(), 10, "the group is empty")
    group.rmdir()


async def test_guard_raises_out_of_memory_if_kernel_kills_worker(
    site: MakeSite, tmp_path: Path, group_of_100_mib: Path
) -> None:
    async with TorchServe(SMALL, site(GROWS), tmp_path / "trial") as server:
        for pid in server.worker_pids:
            (group_of_100_mib / "cgroup.procs").write_text(str(pid))

        async def ask() -> None:
            async with aiohttp.ClientSession() as session:
                await session.post(server.url, json={})
            await forever()

        with pytest.raises(ServerError, match=r"out of memory: worker \d+ exited during"):
            await server.guard(ask())


RAISES = "def handle(data, context):\n    pass\nraise ValueError('no weights here')\n"
HANGS = "import time\ntime.sleep(1000)\ndef handle(data, context):\n    pass\n"
GREEDY = """
held = bytearray(900 << 20)
def handle(data, context):
    return None if data is None else [{} for _ in data]
"""


@pytest.mark.parametrize(
    ("source", "limits", "sentence", "log"),
    [
        (RAISES, {}, "model does not load: the handler raised", "no weights here"),
        (HANGS, {"ready_timeout_s": 12.0}, "not ready: .*not ready after 12 s", ""),
        (GREEDY, {"limits": Limits(memory_bytes=800 << 20)}, "memory budget|out of memory", ""),
    ],
    ids=["handler raises", "handler hangs", "memory above budget"],
)
async def test_torchserve_names_reason_of_failed_start(
    site: MakeSite,
    tmp_path: Path,
    source: str,
    limits: dict[str, Any],
    sentence: str,
    log: str,
) -> None:
    here = site(source, **limits)
    with pytest.raises(ServerError, match=sentence) as caught:
        async with TorchServe(replace(SMALL, batch_size=2), here, tmp_path / "trial"):
            pytest.fail("it was ready")
    assert log in caught.value.log
    assert not caught.value.host_fault


async def test_torchserve_names_archive_that_does_not_load(site: MakeSite, tmp_path: Path) -> None:
    here = site()
    broken = replace(here, archive=replace(here.archive, path=tmp_path / "missing.mar"))
    with pytest.raises(ServerError, match="archive not loaded: TorchServe could not load echo"):
        async with TorchServe(SMALL, broken, tmp_path / "trial"):
            pytest.fail("it was ready")


async def test_torchserve_error_has_log_of_jvm_that_refuses_its_arguments(
    site: MakeSite, tmp_path: Path
) -> None:
    with pytest.raises(
        ServerError, match="no start: TorchServe exited with status 1 during its start"
    ) as caught:
        async with TorchServe(replace(SMALL, jvm={"-Xmx": "lots"}), site(), tmp_path / "trial"):
            pytest.fail("it was ready")
    assert "Invalid maximum heap size" in caught.value.log


async def test_torchserve_refuses_port_in_use_before_start(site: MakeSite, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        here = site(ports=Ports(management=port))
        with pytest.raises(ServerError, match=rf"port {port} \(management\) is in use") as caught:
            async with TorchServe(SMALL, here, tmp_path / "trial"):
                pytest.fail("it was ready")
    assert caught.value.host_fault
    assert not (tmp_path / "trial").exists()


async def test_torchserve_names_missing_java(site: MakeSite, tmp_path: Path) -> None:
    here = site()
    without_java = replace(here.installation, java=Java("/no/java", "17", "a test"))
    server = TorchServe(SMALL, replace(here, installation=without_java), tmp_path / "trial")
    with pytest.raises(ServerError, match="no start: /no/java did not start"):
        async with server:
            pytest.fail("it was ready")
    assert server._process._supervisor is not None
    assert server._process._supervisor._transport.is_closing()  # type: ignore[attr-defined]


RETURNS_INTERPRETER = """
import sys

def handle(data, context):
    return None if data is None else [{"python": sys.executable} for _ in data]
"""


async def test_torchserve_runs_handler_in_configured_interpreter(
    site: MakeSite, tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = str(venv / "bin" / "python")
    with pytest.raises(ServerError, match=r"no TorchServe: .*has no TorchServe; run .*pip install"):
        find_installation(python)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "packages.pth").write_text(sysconfig.get_path("purelib"))
    probe_interpreter.cache_clear()
    here = replace(site(RETURNS_INTERPRETER), installation=find_installation(python))
    async with TorchServe(SMALL, here, tmp_path / "trial") as server:
        assert python in (await ask(server.url))[1]


STARTER = """
import asyncio, sys, time
from pathlib import Path
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.installation import find_installation
from serving.server import Site, TorchServe

async def main():
    site = Site(Archive.read(Path(sys.argv[1])), find_installation())
    async with TorchServe(ServerConfig(workers=2), site, Path(sys.argv[2])):
        print("ready", flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize("victims", ["parent", "parent and supervisor"])
def test_torchserve_ends_with_killed_parent(site: MakeSite, tmp_path: Path, victims: str) -> None:
    here = site()
    before = folders()
    command = [sys.executable, "-c", STARTER, str(here.archive.path), str(tmp_path / "trial")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout and parent.stdout.readline() == "ready\n"
            assert len(processes("model_service_worker")) == 2
            if victims != "parent":
                (home,) = [f for f in folders() - before if (f / "supervisor.pid").exists()]
                os.kill(supervisor_of(home), signal.SIGKILL)
        finally:
            parent.kill()
    wait_for(lambda: not processes(*OURS), 30, "every process has ended")
    if victims != "parent":
        remove_leftovers()
    wait_for(lambda: folders() <= before, 30, "the folder is removed")


async def test_remove_leftovers_keeps_running_server(site: MakeSite, tmp_path: Path) -> None:
    async with TorchServe(SMALL, site(), tmp_path / "trial") as server:
        remove_leftovers()
        await asyncio.sleep(1)
        assert (await ask(server.url))[0] == 200
        assert all(psutil.pid_exists(pid) for pid in server.worker_pids)


async def test_torchserve_stops_if_start_is_cancelled(site: MakeSite, tmp_path: Path) -> None:
    async def start() -> None:
        async with TorchServe(SMALL, site(), tmp_path / "trial"):
            await forever()

    task = asyncio.create_task(start())
    for _ in range(600):
        if processes("org.pytorch.serve.ModelServer"):
            break
        await asyncio.sleep(0.1)
    assert processes("org.pytorch.serve.ModelServer")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not processes(*OURS)


async def test_torchserve_names_the_handler_if_the_log_lacks_its_traceback(
    site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "MAX_LOAD_FAILURES", 1000)
    monkeypatch.setattr(health, "worker_traceback", lambda log: "")
    with pytest.raises(ServerError, match="model does not load: the handler raised") as caught:
        async with TorchServe(SMALL, site(RAISES), tmp_path / "trial"):
            pytest.fail("it must not start")
    assert "no weights here" in caught.value.log


async def test_torchserve_keeps_secret_jvm_arguments_out_of_its_files(
    site: Callable[..., Site], tmp_path: Path
) -> None:
    secrets = {"JDK_JAVA_OPTIONS": "-Da.password=hidden-1", "JAVA_TOOL_OPTIONS": "-Db.pwd=hidden-2"}
    here = replace(site(), secrets=secrets)
    async with TorchServe(ServerConfig(workers=1), here, tmp_path / "trial") as server:
        processes = [psutil.Process(pid) for pid in (server.pid, *server.worker_pids)]
        commands = [process.cmdline() for process in processes]
    written = "".join(path.read_text() for path in (tmp_path / "trial").iterdir())
    assert "hidden" not in written + str(commands) and "Picked up" in written
