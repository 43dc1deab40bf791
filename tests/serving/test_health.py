"""Checks against this process instead of a JVM, and a log that the test writes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from servetune.errors import FailureKind
from serving.errors import ServerError
from serving.health import ServerHealth, memory_bytes, worker_traceback


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "torchserve.log"
    path.write_text("first line\n")
    return path


@pytest.fixture
def health(log: Path, monkeypatch: pytest.MonkeyPatch) -> ServerHealth:
    """Checks of this process on a host whose kernel kills nothing."""
    set_oom_kills(monkeypatch, 3)
    made = ServerHealth(log, memory_limit_bytes=None)
    made.pid = os.getpid()
    made.record_baseline()
    return made


def set_oom_kills(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("serving.oom.host_oom_kills", lambda: number)


def test_check_memory_records_peak(health: ServerHealth) -> None:
    health.check_memory()
    assert health.peak_memory_bytes > 10 << 20


def test_check_memory_names_use_and_budget(log: Path) -> None:
    limited = ServerHealth(log, memory_limit_bytes=1 << 20)
    limited.pid = os.getpid()
    with pytest.raises(ServerError, match=r"used \d+ MiB, more than .* of 1 MiB") as caught:
        limited.check_memory()
    assert caught.value.kind is FailureKind.MEMORY_BUDGET
    assert caught.value.log == "first line"


def test_check_memory_of_server_before_its_start_is_zero(log: Path) -> None:
    health = ServerHealth(log, memory_limit_bytes=None)
    health.check_memory()
    assert health.peak_memory_bytes == 0


def test_check_memory_reads_at_intervals(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, readings = 100.0, 0

    def read(process: object) -> int:
        nonlocal now_s, readings
        readings += 1
        now_s += 0.03
        return 1 << 30

    monkeypatch.setattr("serving.health.memory_bytes", read)
    health = ServerHealth(log, memory_limit_bytes=2 << 30, clock=lambda: now_s)
    health.pid = os.getpid()
    monkeypatch.setattr(psutil.Process, "children", lambda *arguments, **more: [])
    health.check_memory()
    now_s += 1.4
    health.check_memory()
    assert readings == 1, "a reading of 30 ms may use 2 % of the time"
    now_s += 0.2
    health.check_memory()
    assert readings == 2


def test_memory_bytes_counts_shared_memory_once(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(64 << 20))
    code = (
        "import mmap, sys\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(mapped[i] for i in range(0, len(mapped), 4096))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, str(weights)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for _ in range(2)
        ]
        assert [process.stdout and process.stdout.readline() for process in processes]
        both = [psutil.Process(process.pid) for process in processes]
        used, resident = (
            sum(map(memory_bytes, both)),
            sum(process.memory_info().rss for process in both),
        )
        for process in processes:
            assert process.stdin
            process.stdin.close()
    assert resident > 128 << 20
    assert used < resident - (60 << 20)


def test_memory_bytes_is_rss_if_pss_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    assert memory_bytes(psutil.Process()) > 10 << 20


def test_check_gpu_reads_each_complete_line_once(
    health: ServerHealth, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.health.gpu_used_bytes", lambda: 300 << 20)
    message = "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    with log.open("a") as file:
        file.write(message[:20])
        file.flush()
        health.check_gpu()
        file.write(message[20:])
    with pytest.raises(ServerError, match=r"could not allocate GPU memory .* 300 MiB") as caught:
        health.check_gpu()
    assert caught.value.kind is FailureKind.OUT_OF_GPU_MEMORY
    health.check_gpu()


@pytest.mark.parametrize(
    ("kills", "kind"),
    [
        pytest.param(3, FailureKind.WORKER_DIED, id="no new kill by the kernel"),
        pytest.param(4, FailureKind.OUT_OF_MEMORY, id="killed by the kernel"),
    ],
)
def test_check_workers_names_lost_worker(
    health: ServerHealth, monkeypatch: pytest.MonkeyPatch, kills: int, kind: FailureKind
) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    health.check_workers([os.getpid()])
    set_oom_kills(monkeypatch, kills)
    with pytest.raises(ServerError, match=f"worker {process.pid} exited") as caught:
        health.check_workers([os.getpid(), process.pid])
    assert caught.value.kind is kind


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A child of this process with the command line of a worker."""
    command = [sys.executable, "-c", "input()", "ts/model_service_worker.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_check_loading_names_kill_by_kernel(
    health: ServerHealth, worker: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    await health.check_loading()
    set_oom_kills(monkeypatch, 4)
    worker.kill()
    worker.wait()
    with pytest.raises(ServerError, match="out of memory: the kernel killed a worker"):
        await health.check_loading()


async def test_check_loading_ignores_kill_of_another_process(
    health: ServerHealth, worker: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    await health.check_loading()
    set_oom_kills(monkeypatch, 4)
    await health.check_loading()
    assert worker.poll() is None


async def test_check_loading_ignores_worker_that_exits(
    health: ServerHealth, worker: subprocess.Popen[bytes]
) -> None:
    await health.check_loading()
    worker.kill()
    worker.wait()
    await health.check_loading()


async def test_check_loading_counts_kills_in_cgroup(health: ServerHealth, tmp_path: Path) -> None:
    health.record_baseline(tmp_path)
    await health.check_loading()
    (tmp_path / "memory.events").write_text("oom_kill 1\n")
    with pytest.raises(ServerError, match="out of memory: the kernel killed a worker"):
        await health.check_loading()


async def test_check_loading_notices_workers_that_exit_without_a_traceback(
    health: ServerHealth, log: Path
) -> None:
    with log.open("a") as file:
        file.write("Torch worker started.\n")
        file.flush()
        await health.check_loading()
        file.write("o.p.s.wlm.WorkerThread - Auto recovery failed again\n")
    with pytest.raises(
        ServerError, match="the workers exited while they loaded the model"
    ) as found:
        await health.check_loading()
    assert found.value.kind is FailureKind.MODEL_NOT_LOADED


async def test_check_loading_names_handler_after_two_failures(
    health: ServerHealth, log: Path
) -> None:
    with log.open("a") as file:
        file.write("Backend worker process died.\n")
        file.flush()
        await health.check_loading()
        file.write("Backend worker process died.\n")
    with pytest.raises(ServerError, match="the handler raised an error while loading the model"):
        await health.check_loading()


@pytest.mark.parametrize(
    ("status", "kills", "line", "sentence", "host_fault"),
    [
        pytest.param(1, 3, "", "no start: TorchServe exited with status 1", False, id="status"),
        pytest.param(-9, 3, "", "no start: TorchServe was killed by SIGKILL", True, id="killed"),
        pytest.param(-9, 4, "", "out of memory: the kernel killed TorchServe", False, id="memory"),
        pytest.param(1, 4, "", "no start: TorchServe exited with status 1", False, id="other"),
        pytest.param(None, 4, "", "server died: TorchServe's supervisor", True, id="supervisor"),
        pytest.param(1, 4, "Address already in use", "port in use: another", True, id="port"),
    ],
)
def test_exit_during_start_names_reason(
    health: ServerHealth,
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int | None,
    kills: int,
    line: str,
    sentence: str,
    host_fault: bool,
) -> None:
    set_oom_kills(monkeypatch, kills)
    log.write_text(line)
    error = health.exit_during_start(status)
    assert str(error).startswith(sentence)
    assert error.host_fault is host_fault


@pytest.mark.parametrize(
    ("status", "kills", "sentence", "host_fault"),
    [
        pytest.param(-9, 3, "server died: TorchServe was killed by SIGKILL", True, id="killed"),
        pytest.param(-9, 4, "out of memory: TorchServe was killed by SIGKILL", False, id="memory"),
        pytest.param(-6, 3, "server died: TorchServe was killed by SIGABRT", False, id="aborted"),
        pytest.param(1, 4, "server died: TorchServe exited with status 1", False, id="other"),
        pytest.param(None, 4, "server died: TorchServe's supervisor", True, id="supervisor"),
    ],
)
def test_exit_while_running_names_reason(
    health: ServerHealth,
    monkeypatch: pytest.MonkeyPatch,
    status: int | None,
    kills: int,
    sentence: str,
    host_fault: bool,
) -> None:
    set_oom_kills(monkeypatch, kills)
    error = health.exit_while_running(status)
    assert str(error).startswith(sentence)
    assert error.host_fault is host_fault


def test_log_tail_returns_last_lines(health: ServerHealth, log: Path) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(20)))
    assert health.log_tail().splitlines() == [f"line {number}" for number in range(8, 20)]
    log.unlink()
    assert health.log_tail() == ""


def test_check_workers_does_not_trust_a_process_id_alone(
    health: ServerHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        health.check_workers([worker.pid])
        # As if the worker's id had been given to another process.
        health._identities[worker.pid] += "0"
        with pytest.raises(ServerError, match=f"worker {worker.pid} exited"):
            health.check_workers([worker.pid])


def worker_log(*lines: str) -> str:
    """Return what a worker prints that dies and is started again, as TorchServe logs it."""
    printed = ("Backend worker process died.", *lines, "Listening on addr: 1", "[PID]2")
    return "".join(f"2026-01-01 [INFO ] W-9000-echo_1.0-stdout MODEL_LOG - {p}\n" for p in printed)


CAUSE = ("Traceback (most recent call last):", '  File "h.py", line 1', "ImportError: no module")


def test_worker_traceback_is_the_newest_complete_one() -> None:
    text = "\n".join(CAUSE)
    other = worker_log(CAUSE[0], CAUSE[1], "ValueError: an older one")
    assert worker_traceback(other + worker_log(*CAUSE)) == text
    assert worker_traceback(worker_log(*CAUSE) + worker_log(*CAUSE[:2])) == text, "cut off"
    chained = worker_log(*CAUSE, "", "During handling of the above exception, another occurred:")
    assert worker_traceback(worker_log(*CAUSE) + chained) == text, "cut off after the first"


@pytest.mark.parametrize("lines", [(), CAUSE[:1], CAUSE[:2], ("a line of the handler",)])
def test_worker_traceback_is_empty_without_a_complete_one(lines: tuple[str, ...]) -> None:
    assert worker_traceback(worker_log(*lines)) == ""


def test_worker_traceback_leaves_out_lines_of_the_server_in_between() -> None:
    first, *rest = worker_log(*CAUSE).splitlines(keepends=True)
    log = first + "2026-01-01 [WARN ] org.pytorch.serve.wlm - Worker died\n" + "".join(rest)
    assert worker_traceback(log) == "\n".join(CAUSE)
