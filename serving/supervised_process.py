"""A process under a supervisor, which ends it if this process dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from servetune.errors import FailureKind
from serving import supervisor
from serving.errors import ServerError
from serving.leftovers import kill_group


class SupervisedProcess:
    """A server with its supervisor: start, exit, stop.

    Attributes:
        pid: process id of the server; 0 before its start.
        status: exit status of the server; None while it runs, and if the supervisor was killed.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.status: int | None = None
        self._supervisor: asyncio.subprocess.Process | None = None
        self._exited = asyncio.Event()
        self._exit_task: asyncio.Task[None] | None = None

    async def start(self, request: Mapping[str, Any]) -> None:
        """Start the server.

        Args:
            request: see `serving.supervisor`.

        Raises:
            ServerError: the command cannot be run.
        """
        self._supervisor = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", supervisor.__file__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._supervisor.stdin and self._supervisor.stdout
        self._supervisor.stdin.write(json.dumps(request).encode() + b"\n")
        await self._supervisor.stdin.drain()
        line = await self._supervisor.stdout.readline()
        reply: dict[str, Any] = json.loads(line or '{"error": "the supervisor exited"}')
        if "error" in reply:
            raise ServerError(
                FailureKind.NO_START, f"{request['argv'][0]} did not start: {reply['error']}"
            )
        self.pid = reply["pid"]
        self._exit_task = asyncio.create_task(self._wait_for_exit())

    async def _wait_for_exit(self) -> None:
        """Record the exit of the server or of the supervisor; return once the latter exited."""
        assert self._supervisor and self._supervisor.stdout
        line = await self._supervisor.stdout.readline()
        self.status = json.loads(line)["exit"] if line else None
        if self.status is None:
            # The supervisor was killed, and the server with it, not the workers.
            kill_group(self.pid)
        self._exited.set()
        await self._supervisor.stdout.read()

    async def has_exited(self, within_s: float) -> bool:
        """Wait for this time at most; return whether the server has exited."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), within_s)
        return self._exited.is_set()

    async def stop(self) -> None:
        """Stop the server and all its descendants; return once they and the supervisor ended."""
        process = self._supervisor
        if process is None or process.stdin is None:
            return
        # uvloop raises RuntimeError if the supervisor has exited.
        with contextlib.suppress(OSError, RuntimeError):
            process.stdin.write(b"stop\n")
            await process.stdin.drain()
        if self._exit_task is not None:
            await self.has_exited(within_s=supervisor.STOP_GRACE_S + 5)
        with contextlib.suppress(OSError, RuntimeError):
            process.stdin.close()
        # The supervisor closes its standard output last, after it has ended every process
        # and removed the folder. `process` is its parent, which exits at the start.
        end = self._exit_task or asyncio.create_task(_read_to_end(process))
        await asyncio.wait([end], timeout=15)
        await process.wait()
        end.cancel()
        await asyncio.gather(end, return_exceptions=True)


async def _read_to_end(process: asyncio.subprocess.Process) -> None:
    """Read a process's standard output until every holder has closed it."""
    assert process.stdout is not None
    await process.stdout.read()
