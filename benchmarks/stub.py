"""An HTTP server whose law is known by construction, in a separate process.

    with running_stub(Law(workers=2, batch=8), Faults(fail_every=500)) as stub:
        ...  # POST anything to stub.url
        stub.counts()

Batches have exact times: a timer that fires late delays an answer but no batch. The counts
include how late the answers were sent.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import uvloop

from benchmarks.law import BatchServer, Faults, Law

_ROOT = Path(__file__).parents[1]
_RESET = struct.pack("ii", 1, 0)
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Counts:
    """The counts of a stub so far.

    Attributes:
        requests: requests received.
        answered, refused, failed, reset: of these, answered 200, 503 or 500, or reset.
        connections: connections accepted.
        batches: size and service time of each batch, seconds.
        late_mean_s, late_max_s: time from the end of a batch to the sending of its answers.
        cpu_s: CPU time of the process, seconds.
    """

    requests: int
    answered: int
    refused: int
    failed: int
    reset: int
    connections: int
    batches: tuple[tuple[int, float], ...]
    late_mean_s: float
    late_max_s: float
    cpu_s: float


@dataclass(frozen=True)
class Stub:
    """A running stub.

    Attributes:
        url: accepts any POST.
        pid: the process.
    """

    url: str
    pid: int

    def counts(self) -> Counts:
        """Return the counts so far."""
        data = self._send("GET", "/counts")
        return Counts(**{**data, "batches": tuple((n, s) for n, s in data["batches"])})

    def arm(self) -> None:
        """Let the times of the faults count from now."""
        self._send("POST", "/arm")

    def _send(self, method: str, path: str) -> Any:
        host = self.url.rsplit("/", 2)[0]
        request = urllib.request.Request(host + path, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def running_stub(law: Law, faults: Faults = Faults(), seed: int = 0) -> Iterator[Stub]:
    """Run a stub in a child process until the context ends."""
    arguments = json.dumps({"law": asdict(law), "faults": asdict(faults), "seed": seed})
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stub", arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    assert process.stdout and process.stdin
    with process:
        try:
            port = int(process.stdout.readline())
            yield Stub(f"http://127.0.0.1:{port}/predictions/stub", process.pid)
        finally:
            process.kill()


class _Server:
    """A `BatchServer` on the wall clock, with its counts."""

    def __init__(self, law: Law, faults: Faults, seed: int):
        self.batching: BatchServer[asyncio.Transport] = BatchServer(law, faults, seed)
        self.requests = self.answered = self.refused = self.failed = self.reset = 0
        self.connections = 0
        self._late_s = self._latest_s = 0.0
        self._timer_s = float("inf")

    def arm(self) -> None:
        self.batching.faults_begin_s = time.perf_counter()

    def counts(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "answered": self.answered,
            "refused": self.refused,
            "failed": self.failed,
            "reset": self.reset,
            "connections": self.connections,
            "batches": self.batching.batches,
            "late_mean_s": self._late_s / max(self.answered, 1),
            "late_max_s": self._latest_s,
            "cpu_s": time.process_time(),
        }

    def request(self, transport: asyncio.Transport) -> None:
        faults = self.batching.faults
        self.requests += 1
        if self.requests == 1 and not faults.wait_for_arm:
            self.arm()
        if faults.reset_every and self.requests % faults.reset_every == 0:
            self.reset += 1
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        elif faults.fail_every and self.requests % faults.fail_every == 0:
            self.failed += 1
            transport.write(_answer("500 Internal Server Error", b"{}"))
        else:
            self.answer_served()
            if not self.batching.arrive(time.perf_counter(), transport):
                self.refused += 1
                transport.write(_answer("503 Service Unavailable", b"{}"))
            self._set_timer()

    def answer_served(self) -> None:
        """Answer the requests of batches that have been served by now."""
        for end, transports in self.batching.advance(time.perf_counter()):
            late_s = time.perf_counter() - end
            self._late_s += late_s * len(transports)
            self._latest_s = max(self._latest_s, late_s)
            self.answered += len(transports)
            for transport in transports:
                if not transport.is_closing():
                    transport.write(_OK)

    def timer_fired(self) -> None:
        self._timer_s = float("inf")
        self.answer_served()
        self._set_timer()

    def _set_timer(self) -> None:
        # The event loop's timers count whole milliseconds, longer than a batch may take.
        next_s = self.batching.next_s
        if next_s < self._timer_s:
            wait_s = min(max(next_s - time.perf_counter(), 1e-6), _LONGEST_WAIT_S)
            signal.setitimer(signal.ITIMER_REAL, wait_s)
            self._timer_s = next_s


class _Connection(asyncio.Protocol):
    """A keep-alive connection; requests need a Content-Length and follow one another."""

    def __init__(self, server: _Server):
        self._server = server
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (head_end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:head_end]
            body_end = head_end + 4 + _content_length(head)
            if len(self._received) < body_end:
                return
            self._received = self._received[body_end:]
            if head.startswith(b"GET /counts "):
                self._write(self._server.counts())
            elif head.startswith(b"POST /arm "):
                self._server.arm()
                self._write({"armed": True})
            else:
                self._server.request(self._transport)

    def _write(self, data: dict[str, Any]) -> None:
        self._transport.write(_answer("200 OK", json.dumps(data).encode()))


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return 0 if at < 0 else int(head[at + 17 :].split(b"\r\n", 1)[0])


def _answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


_OK = _answer("200 OK", b'{"ok": true}')


async def serve(law: Law, faults: Faults, seed: int) -> None:
    """Print the port, then serve until standard input ends, with the parent process."""
    server, loop = _Server(law, faults, seed), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGALRM, server.timer_fired)
    listening = await loop.create_server(
        lambda: _Connection(server), "127.0.0.1", 0, backlog=socket.SOMAXCONN
    )
    # The counts only grow; collecting garbage among them would be another stall.
    gc.freeze()
    gc.disable()
    print(listening.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    # Nothing is written to standard input: it becomes readable when it ends.
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    uvloop.run(serve(Law(**arguments["law"]), Faults(**arguments["faults"]), arguments["seed"]))
