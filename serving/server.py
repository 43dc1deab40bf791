"""One running TorchServe: started, ready, watched, stopped; nothing of it stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import psutil

from servetune.errors import FailureKind
from serving import supervisor
from serving.config import MODEL_KEYS, ServerConfig
from serving.errors import ServerError
from serving.gpu import RAN_OUT, gpu_used_bytes
from serving.health import WorkerProcess, _oom_kills
from serving.leftovers import HOME_PREFIX, _kill_group, sweep
from serving.metrics import ServerCounters
from serving.ports import LOOPBACK
from serving.site import Site

T = TypeVar("T")

LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
METRICS_CONFIG = Path(__file__).with_name("metrics.yaml")
#: What a server's environment takes over from outside; everything else is the configuration's.
#: Ray sets OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES in its workers: neither may leak in.
INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TZ", "USER")
MAX_LOAD_FAILURES = 2
LOG_TAIL_LINES = 12
_POLL_S = 0.2
_LOG_S = 0.5
_WATCH_S = 1.0


def inherited() -> dict[str, str]:
    """What a server's environment takes over, as it is now."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


class TorchServe:
    """A TorchServe instance as an asynchronous context.

    Entering it starts the server and waits until it is ready; leaving it stops the server
    and removes its folder. Between, `guard` runs an awaitable and cuts it short when the
    server fails.

    Args:
        config: what to serve with.
        site: where.
        folder: receives config.properties, environment and torchserve.log.

    Raises (on entering):
        ServerError: with the cause and the last log lines; nothing is left running.
    """

    def __init__(self, config: ServerConfig, site: Site, folder: Path):
        self.config = config
        self.site = site
        self.folder = folder
        self.log_path = folder / "torchserve.log"
        self.ports = site.ports
        self.worker_pids: frozenset[int] = frozenset()
        self.workers: tuple[WorkerProcess, ...] = ()
        self.peak_rss_bytes = self.peak_gpu_bytes = 0
        self.ready_s = 0.0
        self.batch_capacity = 1
        self._home = Path()
        self._process: asyncio.subprocess.Process | None = None
        self._pid = 0
        self._exit: asyncio.Future[int | None] | None = None
        self._failed: asyncio.Future[ServerError] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self._oom_kills = self._gpu_before_bytes = self._log_seen = 0

    @property
    def url(self) -> str:
        """Where predictions are asked for."""
        host = f"{self.site.address}:{self.ports.inference}"
        return f"http://{host}/predictions/{self.site.archive.name}"

    async def __aenter__(self) -> Self:
        started = time.monotonic()
        try:
            self._prepare()
            await self._start()
            await self._until_ready(started)
        except BaseException:
            await self._end()
            raise
        self.ready_s = time.monotonic() - started
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def guard(self, work: Awaitable[T]) -> T:
        """Await `work`; if the server fails first, cancel it and raise the server's error."""
        assert self._failed is not None
        task = asyncio.ensure_future(work)
        try:
            both: list[asyncio.Future[Any]] = [task, self._failed]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                raise self._failed.result()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def counters(self) -> ServerCounters | None:
        """What TorchServe has counted so far of its own work; None where it is too busy to tell."""
        assert self._session is not None
        try:
            url = f"http://{LOOPBACK}:{self.ports.metrics}/metrics"
            async with self._session.get(url) as answer:
                return ServerCounters.parse(await answer.text())
        except (TimeoutError, aiohttp.ClientError):
            return None

    def cpu_s(self) -> float:
        """CPU seconds that the JVM and its workers have used so far."""
        return self._over_processes(lambda process: sum(process.cpu_times()[:2]))

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

    # --- starting --------------------------------------------------------------------

    def _prepare(self) -> None:
        sweep()
        self.ports = self.site.ports.choose(self.site.address)
        root = tempfile.gettempdir()
        # A worker's socket lies in here, and a socket's path holds about 107 bytes.
        short = root if len(root) < 50 else "/tmp"
        self._home = Path(tempfile.mkdtemp(prefix=HOME_PREFIX, dir=short))
        for name in ("tmp", "store", "logs", "work"):
            (self._home / name).mkdir()
        (self._home / "store" / self.site.archive.path.name).symlink_to(self.site.archive.path)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.properties").write_text(
            self.config.properties_text(self.site.archive, self._place())
        )
        (self.folder / "environment").write_text(self.config.environment_text())
        self._oom_kills, self._gpu_before_bytes = _oom_kills(), gpu_used_bytes()

    def _place(self) -> dict[str, str]:
        return {
            "inference_address": f"http://{self.site.address}:{self.ports.inference}",
            "management_address": f"http://{LOOPBACK}:{self.ports.management}",
            "metrics_address": f"http://{LOOPBACK}:{self.ports.metrics}",
            "grpc_inference_address": LOOPBACK,
            "grpc_management_address": LOOPBACK,
            "grpc_inference_port": str(self.ports.grpc_inference),
            "grpc_management_port": str(self.ports.grpc_management),
            "disable_token_authorization": "true",
            "disable_system_metrics": "true",
            "metrics_mode": "prometheus",
            "metrics_config": str(METRICS_CONFIG),
        }

    def _command(self) -> list[str]:
        installed = self.site.installation
        return [
            installed.java.path,
            f"-Dmodel_server_home={installed.home}",
            f"-Djava.io.tmpdir={self._home / 'tmp'}",
            f"-Dlog4j.configurationFile={LOG_CONFIG.as_uri()}",
            *self.config.jvm_arguments(),
            "-cp",
            f".:{installed.home}/ts/frontend/*",
            "org.pytorch.serve.ModelServer",
            "--python",
            installed.python,
            "-f",
            str((self.folder / "config.properties").resolve()),
            "-s",
            str(self._home / "store"),
            "-ncs",
        ]

    def environment(self) -> dict[str, str]:
        """The server's whole environment."""
        return {
            **inherited(),
            **self._path(),
            "TMPDIR": str(self._home / "tmp"),
            "LOG_LOCATION": str(self._home / "logs"),
            "METRICS_LOCATION": str(self._home / "logs"),
            **self.config.environment_variables(),
        }

    def _path(self) -> dict[str, str]:
        """The CPU launcher runs `python`, which must be the workers' own."""
        python = shutil.which(self.site.installation.python)
        if self.config.properties.get("cpu_launcher_enable") != "true" or python is None:
            return {}
        return {"PATH": f"{Path(python).parent}:{os.environ.get('PATH', os.defpath)}"}

    def _authorisation(self, kind: str) -> dict[str, str]:
        """The headers that an API asks for: none, since trials run without tokens."""
        return {}

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._exit, self._failed = loop.create_future(), loop.create_future()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        request = {
            "argv": self._command(),
            "environment": self.environment(),
            "folder": str(self._home / "work"),
            "log": str(self.log_path.resolve()),
            "home": str(self._home),
        }
        self.log_path.write_text("")
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", supervisor.__file__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        first: dict[str, Any] = json.loads(line or '{"error": "the supervisor ended"}')
        if "error" in first:
            raise ServerError(
                FailureKind.NO_START, f"{self._command()[0]} did not start: {first['error']}"
            )
        self._pid = first["pid"]
        self._tasks.append(asyncio.create_task(self._listen()))

    async def _listen(self) -> None:
        """Learn of the server's exit, or of the supervisor's; end with the supervisor."""
        assert self._process and self._process.stdout and self._exit
        line = await self._process.stdout.readline()
        code: int | None = json.loads(line)["exit"] if line else None
        if not line:  # The supervisor was killed: the server died with it, the workers may live.
            _kill_group(self._pid)
        self._exit.set_result(code)
        await self._process.stdout.read()

    async def _until_ready(self, started: float) -> None:
        assert self._exit is not None
        while True:
            await asyncio.wait([self._exit], timeout=_POLL_S)
            if self._exit.done():
                raise self._early_exit(self._exit.result())
            waited = time.monotonic() - started
            described = await self._describe()
            if described is not None:
                workers = described["workers"]
                states = [worker["status"] for worker in workers]
                if len(states) >= described["minWorkers"] and set(states) == {"READY"}:
                    self._compare(described)
                    self.batch_capacity = described["minWorkers"] * described["batchSize"]
                    self.worker_pids = frozenset(int(worker["pid"]) for worker in workers)
                    self.workers = self._worker_processes()
                    self._tasks.append(asyncio.create_task(self._watch()))
                    return
                await self._check_loading()
            if waited > self.site.ready_timeout_s:
                raise self._error(
                    FailureKind.NOT_READY,
                    f"the workers were not ready after {self.site.ready_timeout_s:g} s "
                    "(serving.ready_timeout_s)",
                )
            self._check_memory()

    async def _describe(self) -> dict[str, Any] | None:
        """The model's description; None while the server does not answer yet."""
        name = self.site.archive.name
        assert self._session is not None
        try:
            url = f"http://{LOOPBACK}:{self.ports.management}/models/{name}"
            async with self._session.get(url, headers=self._authorisation("management")) as answer:
                if answer.status == 404:
                    raise self._error(
                        FailureKind.ARCHIVE_NOT_LOADED, f"TorchServe could not load {name}"
                    )
                if answer.status != 200:
                    return None
                described: list[dict[str, Any]] = await answer.json()
        except (TimeoutError, aiohttp.ClientError):
            return None
        return described[0]

    def _compare(self, described: Mapping[str, Any]) -> None:
        for setting, keys in MODEL_KEYS.items():
            asked = getattr(self.config, setting)
            got = described[keys[0]]
            if asked is not None and got != asked:
                raise self._error(
                    FailureKind.SETTING_OVERRULED,
                    f"{setting} {asked} was asked for and TorchServe reports {got}: "
                    "the archive's own model-config.yaml overrules it",
                )

    async def _check_loading(self) -> None:
        self._check_gpu()
        if _oom_kills() > self._oom_kills:
            raise self._error(
                FailureKind.OUT_OF_MEMORY, "the kernel killed a worker while it loaded"
            )
        log = self.log_path.read_text(errors="replace")
        if log.count("Backend worker process died") >= MAX_LOAD_FAILURES:
            await asyncio.sleep(_LOG_S)  # The reason is the last line of what is being written.
            raise self._error(
                FailureKind.MODEL_NOT_LOADED, "the handler raised while loading the model"
            )

    def _early_exit(self, code: int | None) -> ServerError:
        log = self.log_path.read_text(errors="replace")
        if "Address already in use" in log:
            return self._error(
                FailureKind.PORT_IN_USE, "a port was taken during the start", host_fault=True
            )
        if code is None:
            return self._error(
                FailureKind.SERVER_DIED, "its supervisor was killed", host_fault=True
            )
        if _oom_kills() > self._oom_kills:
            return self._error(
                FailureKind.OUT_OF_MEMORY, "the kernel killed TorchServe during its start"
            )
        return self._error(
            FailureKind.NO_START, f"TorchServe ended with exit status {code} during its start"
        )

    def _error(self, kind: FailureKind, message: str, host_fault: bool = False) -> ServerError:
        return ServerError(kind, message, self.log_tail(), host_fault)

    # --- watching --------------------------------------------------------------------

    async def _watch(self) -> None:
        assert self._exit is not None and self._failed is not None
        while not self._failed.done():
            await asyncio.wait([self._exit], timeout=_WATCH_S)
            try:
                self._check_alive()
                self._check_memory()
                self._check_gpu()
            except ServerError as error:
                self._failed.set_result(error)

    def _check_alive(self) -> None:
        assert self._exit is not None
        killed = _oom_kills() > self._oom_kills
        if self._exit.done():
            if self._exit.result() is None:
                raise self._error(
                    FailureKind.SERVER_DIED, "its supervisor was killed", host_fault=True
                )
            kind = FailureKind.OUT_OF_MEMORY if killed else FailureKind.SERVER_DIED
            raise self._error(kind, f"TorchServe ended (exit status {self._exit.result()})")
        gone = [pid for pid in self.worker_pids if not psutil.pid_exists(pid)]
        if gone:
            kind = FailureKind.OUT_OF_MEMORY if killed else FailureKind.WORKER_DIED
            raise self._error(kind, f"worker {gone[0]} ended while it was measured")

    def _worker_processes(self) -> tuple[WorkerProcess, ...]:
        found = []
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    command = " ".join(process.cmdline())
                    found.append(WorkerProcess(command, tuple(process.cpu_affinity())))
        return tuple(found)

    def _over_processes(self, quantity: Callable[[psutil.Process], float]) -> float:
        """The sum of a quantity over the JVM and its workers."""
        total = 0.0
        with contextlib.suppress(psutil.Error):
            server = psutil.Process(self._pid)
            for process in (server, *server.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += quantity(process)
        return total

    def _check_memory(self) -> None:
        used = int(self._over_processes(lambda process: process.memory_info().rss))
        self.peak_rss_bytes = max(self.peak_rss_bytes, used)
        limit = self._memory_limit_bytes(used)
        if used > limit:
            raise self._error(
                FailureKind.MEMORY_BUDGET,
                f"the server used {used >> 20} MiB, and {limit >> 20} MiB are its budget "
                "(serving.memory_limit_mb)",
            )

    def _check_gpu(self) -> None:
        used = gpu_used_bytes() - self._gpu_before_bytes
        self.peak_gpu_bytes = max(self.peak_gpu_bytes, used)
        with self.log_path.open("rb") as log:
            log.seek(self._log_seen)
            said = log.read()
        # A line may be half written: it is looked at again.
        self._log_seen += said.rfind(b"\n") + 1
        if RAN_OUT.encode() in said:
            raise self._error(
                FailureKind.OUT_OF_GPU_MEMORY,
                f"a handler ran out of it; the server held {self.peak_gpu_bytes >> 20} MiB",
            )

    def _memory_limit_bytes(self, used: int) -> int:
        """The budget: the one asked for, else 85 % of what the host has for this server."""
        if self.site.memory_limit_bytes is not None:
            return self.site.memory_limit_bytes
        # What the server holds is its own; only the rest of the host is a limit.
        return int(0.85 * (psutil.virtual_memory().available + used))

    # --- stopping --------------------------------------------------------------------

    async def _end(self) -> None:
        stop = asyncio.ensure_future(self._stop())
        while not stop.done():
            # A second Ctrl-C must not leave a half-stopped server.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(stop)
        stop.result()

    async def _stop(self) -> None:
        if self._session is not None:
            await self._session.close()
        listening, watching = self._tasks[:1], self._tasks[1:]
        for task in watching:
            task.cancel()
        process = self._process
        if process is not None and process.stdin is not None and self._exit is not None:
            # uvloop raises a RuntimeError where the supervisor is gone.
            with contextlib.suppress(OSError, RuntimeError):
                process.stdin.write(b"stop\n")
                await process.stdin.drain()
            if listening:
                await asyncio.wait([self._exit], timeout=supervisor.ORDERLY_STOP_S + 5)
            with contextlib.suppress(OSError, RuntimeError):
                process.stdin.close()
            # The supervisor closes its standard output as it ends: by then every process and the
            # folder are gone. `process` is only its parent, which ends at the start.
            if not listening:
                listening.append(asyncio.create_task(_read_to_end(process)))
            await asyncio.wait(listening, timeout=15)
            await process.wait()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, *watching, return_exceptions=True)
        if self._home != Path():
            shutil.rmtree(self._home, ignore_errors=True)


async def _read_to_end(process: asyncio.subprocess.Process) -> None:
    """Read a process's standard output until every holder has closed it."""
    assert process.stdout is not None
    await process.stdout.read()
