"""Checks of a running server: exit, lost workers, memory budget, GPU memory."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import psutil

from servetune.errors import FailureKind
from serving.errors import ServerError
from serving.gpu import gpu_used_bytes
from serving.identity import is_alive, process_identity
from serving.limits import available_memory_bytes
from serving.oom import OomWatch

#: PyTorch's message if an allocation on a GPU fails. TorchServe answers 503 and keeps running.
GPU_MEMORY_MESSAGE = b"CUDA out of memory"
TRACEBACK = "Traceback (most recent call last)"
HANDLER_RAISED = "the handler raised an error while loading the model"
#: Before what a worker printed, in a line of the log.
_PRINTED = " MODEL_LOG - "
#: Logged when a worker raised an error; its traceback follows.
_DIED = "Backend worker process died"
#: What a worker prints first.
_BEGIN = ("s_name_part0=", "Listening on ")
#: Lines of a traceback after which another one comes.
_LINKS = ("Traceback", "During handling of", "The above exception")
#: TorchServe restarts a worker whose model does not load for as long as it runs.
MAX_LOAD_FAILURES = 2
#: Logged when a worker exits that was started in place of another, whatever it printed.
_STARTED_AGAIN = "Auto recovery failed again"
#: Share of the available memory that a server without a memory limit may use.
MEMORY_SHARE = 0.85
#: Share of one core that reading the memory of the server may use: 10 to 30 ms per GiB.
MEMORY_READING_SHARE = 0.02
LOG_TAIL_LINES = 12
#: In the command line of every worker.
_WORKER_SCRIPT = "model_service_worker.py"
_LOG_DELAY_S = 0.5


@dataclass(frozen=True)
class WorkerProcess:
    """A process under the JVM: its command line and the cores that it may use."""

    command: str
    cores: tuple[int, ...]


class ServerHealth:
    """Checks of one TorchServe; each raises ServerError if the server has a problem.

    Args:
        log_path: the server's log, which exists before the first check.
        memory_limit_bytes: budget for the memory of all processes; None for 85 % of the memory
            that is available to the server at the time of the check.
        clock: returns seconds.

    Attributes:
        pid: process id of the JVM; 0 before its start.
        peak_memory_bytes: highest memory of all processes at any check. Each counts its share of
            memory that several have mapped, such as weights (PSS).
        peak_gpu_bytes: highest increase of used GPU memory since `record_baseline`.
    """

    def __init__(
        self,
        log_path: Path,
        memory_limit_bytes: int | None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.pid = 0
        self.peak_memory_bytes = 0
        self.peak_gpu_bytes = 0
        self._log_path = log_path
        self._memory_limit_bytes = memory_limit_bytes
        self._log_offset = 0
        self._clock = clock
        self._next_memory_check_s = float("-inf")
        self._oom = OomWatch(clock)
        self._workers: frozenset[int] = frozenset()
        self._identities: dict[int, str] = {}
        self._gpu_before_bytes = 0

    def record_baseline(self, cgroup: Path | None = None) -> None:
        """Record the host's state before the start of the server.

        Args:
            cgroup: the server's own, which counts kills for lack of memory; None without one.
        """
        self._oom.start(cgroup)
        self._gpu_before_bytes = gpu_used_bytes()

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        try:
            text = self._log_path.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

    def error(self, kind: FailureKind, message: str, host_fault: bool = False) -> ServerError:
        """Return an error with the end of the server's log."""
        return ServerError(kind, message, self.log_tail(), host_fault)

    # --- processes -------------------------------------------------------------------

    def sum_over_processes(self, quantity: Callable[[psutil.Process], float]) -> float:
        """Return the sum of a quantity over the JVM and all its descendants."""
        total = 0.0
        with contextlib.suppress(psutil.Error):
            server = psutil.Process(self.pid)
            for process in (server, *server.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += quantity(process)
        return total

    def worker_processes(self) -> tuple[WorkerProcess, ...]:
        """Return all descendants of the JVM."""
        workers = []
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    command = " ".join(process.cmdline())
                    workers.append(WorkerProcess(command, tuple(process.cpu_affinity())))
        return tuple(workers)

    # --- errors of a server that exited ----------------------------------------------

    def exit_during_start(self, status: int | None) -> ServerError:
        """Return the reason why the server exited during its start.

        Args:
            status: exit status of the JVM; None if the supervisor was killed.
        """
        if "Address already in use" in self._log_path.read_text(errors="replace"):
            return self.error(
                FailureKind.PORT_IN_USE,
                "another process took one of TorchServe's ports during the start",
                host_fault=True,
            )
        if status is None:
            return self._supervisor_killed()
        if self._oom.observe(killed=_is_sigkill(status)):
            return self.error(
                FailureKind.OUT_OF_MEMORY, "the kernel killed TorchServe during its start"
            )
        return self.error(
            FailureKind.NO_START,
            f"TorchServe {_ending(status)} during its start",
            host_fault=_is_sigkill(status),
        )

    def exit_while_running(self, status: int | None) -> ServerError:
        """Return the reason why the server exited after its start; `status` as above."""
        if status is None:
            return self._supervisor_killed()
        is_oom = self._oom.observe(killed=_is_sigkill(status))
        kind = FailureKind.OUT_OF_MEMORY if is_oom else FailureKind.SERVER_DIED
        # It does not kill itself.
        is_host_fault = _is_sigkill(status) and not is_oom
        return self.error(kind, f"TorchServe {_ending(status)}", is_host_fault)

    def _supervisor_killed(self) -> ServerError:
        return self.error(
            FailureKind.SERVER_DIED, "TorchServe's supervisor was killed", host_fault=True
        )

    # --- checks ----------------------------------------------------------------------

    @property
    def traceback(self) -> str:
        """The newest complete traceback of a worker in the log; see `worker_traceback`."""
        return worker_traceback(self._log_path.read_text(errors="replace"))

    async def check_loading(self) -> None:
        """Raise ServerError if the workers cannot load the model."""
        self.check_gpu()
        if self.observe_workers():
            raise self.error(
                FailureKind.OUT_OF_MEMORY, "the kernel killed a worker while it loaded the model"
            )
        log = self._log_path.read_text(errors="replace")
        has_raised = log.count(_DIED) >= MAX_LOAD_FAILURES
        if has_raised or _STARTED_AGAIN in log:
            await asyncio.sleep(_LOG_DELAY_S)  # The reason is the last line of the traceback.
            raise self.error(
                FailureKind.MODEL_NOT_LOADED,
                HANDLER_RAISED if has_raised else "the workers exited while they loaded the model",
            )

    def observe_workers(self) -> bool:
        """Return whether the kernel killed a worker for lack of memory since the start.

        TorchServe replaces lost workers and does not log how they exited.
        """
        workers = set()
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if any(_WORKER_SCRIPT in argument for argument in process.cmdline()):
                        workers.add(process.pid)
        lost, self._workers = self._workers - workers, frozenset(workers)
        return self._oom.observe(killed=bool(lost))

    def check_workers(self, pids: Iterable[int], model: str = "") -> None:
        """Raise ServerError if one of the workers no longer exists.

        Args:
            model: whose workers they are, if the server has several models.
        """
        lost = [pid for pid in pids if not self._is_same_process(pid)]
        is_oom = self._oom.observe(killed=bool(lost))
        if lost:
            kind = FailureKind.OUT_OF_MEMORY if is_oom else FailureKind.WORKER_DIED
            of_model = f" of {model}" if model else ""
            raise self.error(kind, f"worker {lost[0]}{of_model} exited during the measurement")

    def _is_same_process(self, pid: int) -> bool:
        """Return whether a process still runs; its id may have been given to another one."""
        with contextlib.suppress(OSError):
            return is_alive(self._identities.setdefault(pid, process_identity(pid)))
        return False

    def check_memory(self) -> None:
        """Raise ServerError if the server uses more memory than its budget.

        Does nothing if the last reading was so recent that readings would use too much CPU time.
        """
        started_s = self._clock()
        if started_s < self._next_memory_check_s:
            return
        used = int(self.sum_over_processes(memory_bytes))
        now_s = self._clock()
        self._next_memory_check_s = now_s + (now_s - started_s) / MEMORY_READING_SHARE
        self.peak_memory_bytes = max(self.peak_memory_bytes, used)
        limit = self._memory_limit_bytes
        if limit is None:
            # The memory that the server already uses is available to it, too.
            limit = int(MEMORY_SHARE * (available_memory_bytes() + used))
        if used > limit:
            raise self.error(
                FailureKind.MEMORY_BUDGET,
                f"the server used {used >> 20} MiB, more than its budget of {limit >> 20} MiB "
                "(serving.limits.memory_mb)",
            )

    def check_gpu(self) -> None:
        """Raise ServerError if the log reports that a GPU ran out of memory."""
        used = gpu_used_bytes() - self._gpu_before_bytes
        self.peak_gpu_bytes = max(self.peak_gpu_bytes, used)
        with self._log_path.open("rb") as log:
            log.seek(self._log_offset)
            new = log.read()
        # The last line may be incomplete: the next check reads it again.
        self._log_offset += new.rfind(b"\n") + 1
        if GPU_MEMORY_MESSAGE in new:
            raise self.error(
                FailureKind.OUT_OF_GPU_MEMORY,
                "a handler could not allocate GPU memory while the server used "
                f"{self.peak_gpu_bytes >> 20} MiB of it",
            )


def memory_bytes(process: psutil.Process) -> int:
    """Return the memory of a process: PSS, or RSS if the kernel does not permit reading PSS."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)


def _is_sigkill(status: int | None) -> bool:
    return status == -signal.SIGKILL


def _ending(status: int) -> str:
    """Return how a process ended; a negative status is that of a signal."""
    return (
        f"was killed by {signal.Signals(-status).name}"
        if status < 0
        else f"exited with status {status}"
    )


def worker_traceback(log: str) -> str:
    """Return the newest complete traceback of a worker in a log; an empty text without one.

    TorchServe before 0.11.0 often cuts it off.
    """
    for block in reversed(log.split(_DIED)[1:]):
        printed = (line.split(_PRINTED, 1)[1] for line in block.splitlines() if _PRINTED in line)
        text = "\n".join(takewhile(lambda line: not line.startswith(_BEGIN), printed)).strip()
        last = text.rpartition("\n")[2]
        if TRACEBACK in text and not last.startswith((" ", *_LINKS)):
            return text
    return ""
