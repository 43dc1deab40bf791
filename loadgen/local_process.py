"""Load generator processes as children of this process, without Ray."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Collection, Sequence
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from loadgen.client import Client
from loadgen.errors import GeneratorLostError
from loadgen.payloads import Payload


class LocalProcess:
    """A `Client` in a child process; see `fleet.Process`. Used within one event loop."""

    def __init__(self, payloads: Sequence[Payload], cores: Collection[int]):
        context = multiprocessing.get_context("spawn")
        self._connection, child_end = context.Pipe()
        self._process = context.Process(
            target=_run_child, args=(child_end, payloads, cores), daemon=True, name="servetune-load"
        )
        self._process.start()
        child_end.close()
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._loop = asyncio.get_running_loop()
        _watch_connection(self._loop, self._connection, self._receive_answer)

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the `Client`; raise GeneratorLostError if the process is gone."""
        number = next(self._numbers)
        answer = self._calls[number] = self._loop.create_future()
        try:
            try:
                self._connection.send((number, method, arguments))
            except OSError:
                raise self._lost_error() from None
            return await answer
        finally:
            self._calls.pop(number, None)

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self._disconnect()
        self._process.kill()
        self._process.join()

    def _receive_answer(self) -> None:
        try:
            number, value, error = self._connection.recv()
        except (EOFError, OSError):
            self._disconnect()
            return
        call = self._calls.get(number)
        if call is not None and not call.done():
            if error is None:
                call.set_result(value)
            else:
                call.set_exception(error)

    def _disconnect(self) -> None:
        if not self._connection.closed:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(self._lost_error())

    def _lost_error(self) -> GeneratorLostError:
        return GeneratorLostError(f"process {self._process.pid} ended")


def local_processes(
    payloads: Sequence[Payload], cores: Collection[int] = ()
) -> Callable[[int], LocalProcess]:
    """Return a `spawn` for `fleet.Fleet` that starts children of this process.

    Args:
        payloads: the requests.
        cores: cores that they may use; any if empty.
    """
    return lambda index: LocalProcess(payloads, cores)


def _watch_connection(
    loop: asyncio.AbstractEventLoop, connection: Connection, on_message: Callable[[], None]
) -> None:
    """Call `on_message` when a message begins to arrive; reading it waits for the rest."""
    loop.add_reader(connection.fileno(), on_message)
    # uvloop makes watched descriptors non-blocking: a long message would be cut off.
    os.set_blocking(connection.fileno(), True)


def _run_child(connection: Connection, payloads: Sequence[Payload], cores: Collection[int]) -> None:
    """Run the child process, which ends when its parent's end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    client = Client(payloads, cores=cores)
    uvloop.run(_serve_calls(connection, client))


async def _serve_calls(connection: Connection, client: Client) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def run_call(number: int, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            value, error = await getattr(client, method)(*arguments), None
        except Exception as raised:
            value, error = None, raised
        try:
            connection.send((number, value, error))
        except (TypeError, ValueError, AttributeError, pickle.PicklingError):
            connection.send((number, None, RuntimeError(repr(error or value))))

    def receive_call() -> None:
        try:
            number, method, arguments = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        task = loop.create_task(run_call(number, method, arguments))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    _watch_connection(loop, connection, receive_call)
    await loop.create_future()
