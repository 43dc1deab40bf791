"""The life cycle of one TorchServe: start, readiness, watch, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from servetune.errors import FailureKind
from serving.archive import Archive
from serving.cgroup import Enforcement, enforce, noted_cgroups, remove_cgroups
from serving.configuration.config import ServerConfig
from serving.configuration.jvm import with_secrets
from serving.configuration.model_config import archive_settings, overrides, unpack_with_settings
from serving.errors import ServerError
from serving.health import HANDLER_RAISED, TRACEBACK, ServerHealth, WorkerProcess
from serving.leftovers import HOME_PREFIX, remove_leftovers
from serving.load_check import load_error
from serving.local_api import LocalApi, UnknownModelError
from serving.metrics import ServerCounters
from serving.ports import LOOPBACK
from serving.served_model import ServedModel, is_ready, is_scaled
from serving.site import Site
from serving.supervised_process import SupervisedProcess

T = TypeVar("T")

LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
METRICS_CONFIG = Path(__file__).with_name("metrics.yaml")
#: The variables that a server inherits; the configuration sets all others. Ray sets
#: OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES in its workers, which must not reach the server.
INHERITED_VARIABLES = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TZ", "USER")
_POLL_S = 0.2
_WATCH_S = 1.0
#: Maximum time until a model has fewer workers: usually 0.02 s.
_SCALING_LIMIT_S = 5.0
#: The path of a worker's Unix socket, in the server's folder, holds about 107 bytes.
_MAX_TEMPDIR_LENGTH = 50


def inherited_environment() -> dict[str, str]:
    """Return the part of this process's environment that a server inherits."""
    return {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}


class TorchServe:
    """A TorchServe instance as an asynchronous context.

    Entering the context starts the server and waits until every worker of every model is ready.
    Leaving it stops the server and removes its temporary folder.

    Args:
        config: the configuration to serve with.
        site: the archive, the installation and the limits.
        folder: receives config.properties, environment and torchserve.log; also the archive's
            model-config.yaml if the configuration changes it.

    Attributes:
        models: the models by name once their workers are ready, the tuned one first.
        processes: all processes under the JVM once the workers are ready.
        ready_s: time from the start until every worker was ready, seconds.
        enforcement: how the site's limits are applied.

    Raises (on entering):
        ServerError: with the cause and the last log lines; nothing is left running.
    """

    def __init__(self, config: ServerConfig, site: Site, folder: Path):
        self.config = config
        self.site = site
        self.folder = folder
        self.log_path = folder / "torchserve.log"
        self.ports = site.ports
        self.models: dict[str, ServedModel] = {}
        self.processes: tuple[WorkerProcess, ...] = ()
        self.ready_s = 0.0
        self.enforcement = Enforcement()
        self._health = ServerHealth(self.log_path, site.limits.memory_bytes)
        self._home = Path()
        self._process = SupervisedProcess()
        self._failure: asyncio.Future[ServerError] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._api: LocalApi | None = None

    @property
    def pid(self) -> int:
        """Process id of the JVM; 0 before its start."""
        return self._health.pid

    @property
    def model(self) -> ServedModel | None:
        """The tuned model; None until its workers are ready."""
        return self.models.get(self.site.archive.name)

    @property
    def worker_pids(self) -> frozenset[int]:
        """Process ids of the workers of all models."""
        return frozenset().union(*(model.worker_pids for model in self.models.values()))

    @property
    def batch_capacity(self) -> int:
        """Requests that the workers of the tuned model take at once."""
        return self.model.batch_capacity if self.model else 1

    @property
    def peak_memory_bytes(self) -> int:
        """Highest memory of the JVM and its workers; see `ServerHealth`."""
        return self._health.peak_memory_bytes

    @property
    def peak_gpu_bytes(self) -> int:
        """Highest increase of used GPU memory since the start."""
        return self._health.peak_gpu_bytes

    @property
    def url(self) -> str:
        """URL that answers predictions."""
        return f"{self._origin}/predictions/{self.site.archive.name}"

    @property
    def certificate(self) -> str | None:
        """The server's certificate in PEM; empty if it is in another form; None without TLS."""
        return self.site.key_pair.certificate() if self.site.key_pair else None

    @property
    def _origin(self) -> str:
        scheme = "https" if self.site.key_pair else "http"
        return f"{scheme}://{self.site.address}:{self.ports.inference}"

    async def __aenter__(self) -> Self:
        started = time.monotonic()
        try:
            self._prepare()
            await self._start()
            await self._wait_until_ready(started)
        except BaseException:
            await self._stop_uninterrupted()
            raise
        self.ready_s = time.monotonic() - started
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop_uninterrupted()

    async def guard(self, work: Awaitable[T]) -> T:
        """Return the result of `work`; if the server fails first, cancel it and raise the error."""
        assert self._failure is not None
        task = asyncio.ensure_future(work)
        try:
            futures: list[asyncio.Future[Any]] = [task, self._failure]
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                raise self._failure.result()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def counters(self, models: Collection[str] = ()) -> ServerCounters | None:
        """Return TorchServe's counters; see `LocalApi`."""
        assert self._api is not None
        return await self._api.counters(models)

    async def scale_down(self, workers: int) -> None:
        """Reduce the workers of the tuned model; return when only they are left.

        Raises:
            ServerError: TorchServe refused, or did not reach this number in time.
        """
        assert self._api is not None
        name, scaled = self.site.archive.name, {"min_worker": workers, "max_worker": workers}
        # The workers that leave are no failure.
        self.models[name] = replace(self.models[name], worker_pids=frozenset())
        problem = await self._api.change(name, {**scaled, "synchronous": "true"})
        waited_s = 0.0
        while problem is None and waited_s < _SCALING_LIMIT_S:
            description = await self._describe(name)
            if description is not None and is_scaled(description, workers):
                self.models[name] = ServedModel.of(description)
                return
            await asyncio.sleep(_POLL_S)
            waited_s += _POLL_S
        problem = problem or f"it did not have {workers} workers after {_SCALING_LIMIT_S:g} s"
        raise self._health.error(FailureKind.NOT_READY, f"{name} was not scaled down: {problem}")

    def cpu_s(self) -> float:
        """Return the CPU time that the JVM and its workers have used, seconds."""
        return self._health.sum_over_processes(lambda process: sum(process.cpu_times()[:2]))

    def log_tail(self) -> str:
        """Return the last lines of the server's log."""
        return self._health.log_tail()

    # --- starting --------------------------------------------------------------------

    def _prepare(self) -> None:
        remove_leftovers()
        self.ports = self.site.ports.choose(self.site.address)
        root = tempfile.gettempdir()
        root = root if len(root) < _MAX_TEMPDIR_LENGTH else "/tmp"
        self._home = Path(tempfile.mkdtemp(prefix=HOME_PREFIX, dir=root))
        for name in ("tmp", "store", "logs", "work"):
            (self._home / name).mkdir()
        self.folder.mkdir(parents=True, exist_ok=True)
        for archive in self.site.archives:
            self._place_archive(archive, self._home / "store" / archive.path.name)
        text = self.config.properties_text(
            self.site.archive, self._site_properties(), self.site.others
        )
        (self.folder / "config.properties").write_text(text)
        (self.folder / "environment").write_text(self.config.environment_text())
        self.enforcement = enforce(self.site.limits, self._home)
        self._health.record_baseline(self.enforcement.memory_cgroup)

    def _config_of(self, archive: Archive) -> ServerConfig:
        """Return the configuration, or that of another model."""
        is_tuned = archive.name == self.site.archive.name
        return self.config if is_tuned else self.config.of_model(archive.name)

    def _place_archive(self, archive: Archive, path: Path) -> None:
        """Put an archive into the model store; its model-config.yaml must not win."""
        config = self._config_of(archive)
        if overrides(archive, config):
            text = unpack_with_settings(archive, archive_settings(config), path)
            is_tuned = archive.name == self.site.archive.name
            name = "model-config.yaml" if is_tuned else f"model-config-{archive.name}.yaml"
            (self.folder / name).write_text(text)
        else:
            path.symlink_to(archive.path)

    def _site_properties(self) -> dict[str, str]:
        properties = {
            "inference_address": self._origin,
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
            **(self.site.key_pair.properties() if self.site.key_pair else {}),
        }
        reads = self.site.installation.version.reads
        return {key: text for key, text in properties.items() if reads(key)}

    def _command(self) -> list[str]:
        installation = self.site.installation
        return [
            installation.java.path,
            f"-Dmodel_server_home={installation.home}",
            f"-Djava.io.tmpdir={self._home / 'tmp'}",
            f"-Dlog4j.configurationFile={LOG_CONFIG.as_uri()}",
            *self.config.jvm_arguments(),
            "-cp",
            f".:{installation.home}/ts/frontend/*",
            "org.pytorch.serve.ModelServer",
            "--python",
            installation.python,
            "-f",
            str((self.folder / "config.properties").resolve()),
            "-s",
            str(self._home / "store"),
            "-ncs",
        ]

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the server."""
        return {
            **inherited_environment(),
            **self._launcher_path(),
            "TMPDIR": str(self._home / "tmp"),
            "LOG_LOCATION": str(self._home / "logs"),
            "METRICS_LOCATION": str(self._home / "logs"),
            **with_secrets(self.config.environment_variables(), self.site.secrets, self._home),
        }

    def _launcher_path(self) -> dict[str, str]:
        """Return a PATH whose `python`, which the CPU launcher runs, is the workers'."""
        python = shutil.which(self.site.installation.python)
        if self.config.properties.get("cpu_launcher_enable") != "true" or python is None:
            return {}
        return {"PATH": f"{Path(python).parent}:{os.environ.get('PATH', os.defpath)}"}

    def _authorization(self, api: str) -> dict[str, str]:
        """Return the headers that an API requires: none, since trials run without tokens."""
        return {}

    async def _start(self) -> None:
        self._failure = asyncio.get_running_loop().create_future()
        self._api = LocalApi(self.ports, self._authorization)
        request = {
            "argv": self._command(),
            "environment": self.environment(),
            "folder": str(self._home / "work"),
            "log": str(self.log_path.resolve()),
            "home": str(self._home),
            "cgroups": [str(folder) for folder in self.enforcement.cgroups],
            "cores": self.enforcement.cores,
        }
        self.log_path.write_text("")
        await self._process.start(request)
        self._health.pid = self._process.pid

    async def _wait_until_ready(self, started: float) -> None:
        while True:
            if await self._process.has_exited(within_s=_POLL_S):
                raise self._health.exit_during_start(self._process.status)
            waited_s = time.monotonic() - started
            described = [await self._describe(archive.name) for archive in self.site.archives]
            descriptions = [description for description in described if description is not None]
            if len(descriptions) == len(described) and all(map(is_ready, descriptions)):
                self._record_models(descriptions)
                self.processes = self._health.worker_processes()
                self._watch_task = asyncio.create_task(self._watch())
                return
            await self._check_loading()
            if waited_s > self.site.ready_timeout_s:
                raise self._health.error(
                    FailureKind.NOT_READY,
                    f"the workers were not ready after {self.site.ready_timeout_s:g} s "
                    "(serving.ready_timeout_s)",
                )
            self._health.check_memory()

    async def _check_loading(self) -> None:
        """Raise ServerError if the workers cannot load a model, with the handler's own error."""
        try:
            await self._health.check_loading()
        except ServerError as error:
            if error.kind is not FailureKind.MODEL_NOT_LOADED:
                raise
            if not (found := self._health.traceback or await self._load_error()):
                raise
            # TorchServe may close the output of a worker before its traceback.
            message = HANDLER_RAISED if TRACEBACK in found else error.message
            raise ServerError(error.kind, message, found) from None

    async def _load_error(self) -> str:
        """Return the error of the first model that does not load; empty if all load."""
        python, environment = self.site.installation.python, self.environment()
        for archive in self.site.archives:
            if found := await load_error(archive, python, environment):
                return found
        return ""

    async def _describe(self, name: str) -> dict[str, Any] | None:
        """Return TorchServe's description of a model; None if it does not answer yet."""
        assert self._api is not None
        try:
            return await self._api.describe(name)
        except UnknownModelError:
            problem = f"TorchServe could not load {name}"
            raise self._health.error(FailureKind.ARCHIVE_NOT_LOADED, problem) from None

    def _record_models(self, descriptions: Sequence[Mapping[str, Any]]) -> None:
        """Record the models; raise ServerError if one has other settings than configured."""
        for archive, description in zip(self.site.archives, descriptions, strict=True):
            model = ServedModel.of(description)
            if problem := model.difference(self._config_of(archive)):
                is_tuned = archive.name == self.site.archive.name
                prefix = "" if is_tuned else f"model {archive.name}: "
                raise self._health.error(FailureKind.SETTING_OVERRULED, prefix + problem)
            self.models[archive.name] = model

    # --- watching --------------------------------------------------------------------

    async def _watch(self) -> None:
        assert self._failure is not None
        while not self._failure.done():
            has_exited = await self._process.has_exited(within_s=_WATCH_S)
            try:
                if has_exited:
                    raise self._health.exit_while_running(self._process.status)
                for name, model in self.models.items():
                    shown = name if len(self.models) > 1 else ""
                    self._health.check_workers(model.worker_pids, shown)
                self._health.check_memory()
                self._health.check_gpu()
            except ServerError as error:
                self._failure.set_result(error)
            except Exception as error:
                # A server that is no longer watched must not be measured any further.
                problem = f"the server could not be watched: {type(error).__name__}: {error}"
                self._failure.set_result(
                    self._health.error(FailureKind.INTERNAL_ERROR, problem, host_fault=True)
                )

    # --- stopping --------------------------------------------------------------------

    async def _stop_uninterrupted(self) -> None:
        stop = asyncio.ensure_future(self._stop())
        while not stop.done():
            # A second Ctrl-C must not leave a half-stopped server.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(stop)
        stop.result()

    async def _stop(self) -> None:
        if self._api is not None:
            await self._api.close()
        if self._watch_task is not None:
            self._watch_task.cancel()
        await self._process.stop()
        if self._watch_task is not None:
            await asyncio.gather(self._watch_task, return_exceptions=True)
        if self._home != Path():
            remove_cgroups(noted_cgroups(self._home))
            shutil.rmtree(self._home, ignore_errors=True)
