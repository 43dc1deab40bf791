"""What a request costs servetune's load client, against its peers: `python -m benchmarks.loadgen`.

One nginx on one core answers from memory; each client in turn has another core. Only CPU time is
compared (user and system, of the client's process), so a slow server costs nobody anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from rich.console import Console
from rich.table import Table
from yarl import URL

from loadgen.client import Client
from loadgen.histogram import Histogram
from loadgen.measurement import Load
from loadgen.payloads import Payload
from loadgen.schedule import Closed, Constant

CONNECTIONS = 64
BODY = b'{"a": 1}'
PAYLOADS = [Payload(BODY, {"Content-Type": "application/json"})]
PACED_RPS = 2000
_NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type application/json; return 200 '{{"ok": true}}'; }}
  }}
}}
"""
_WRK = f"wrk.method = 'POST'\nwrk.body = '{BODY.decode()}'\n"
_WRK += "wrk.headers['Content-Type'] = 'application/json'\n"
_LOCUST = f"""
import json, resource
from locust import FastHttpUser, events, task

class User(FastHttpUser):
    @task
    def post(self):
        self.client.post("/", data={BODY!r}, headers={{"Content-Type": "application/json"}})

def cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

@events.test_start.add_listener
def start(**_):
    User.begun = cpu_s()

@events.test_stop.add_listener
def stop(environment, **_):
    done = environment.stats.total.num_requests
    print(json.dumps({{"requests": done, "cpu_s": cpu_s() - User.begun}}), flush=True)
"""


class Unavailable(RuntimeError):
    """Something that the benchmark needs is not on this host; the message says what."""


@dataclass(frozen=True)
class Cost:
    """What a client did, and what CPU time it took."""

    requests: int
    cpu_s: float

    @property
    def us_per_request(self) -> float:
        return self.cpu_s / self.requests * 1e6


@dataclass(frozen=True)
class Tool:
    """A load generator that is a program: how it is called, where it says what it did.

    Where `requests` is None it prints a `Cost` as JSON, since its start is no small part.
    """

    name: str
    command: Callable[[str, float, Path], list[str]]
    requests: str | None = None


TOOLS = [
    Tool(
        "wrk",
        lambda url, s, folder: [
            *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{s:.0f}s", "-s", f"{folder}/post.lua", url)
        ],
        r"(\d+) requests in",
    ),
    Tool(
        "ab",
        lambda url, s, folder: [
            *("ab", "-q", "-k", "-c", f"{CONNECTIONS}", "-t", f"{s:.0f}", "-n", "100000000"),
            *("-p", f"{folder}/posted.json", "-T", "application/json", url),
        ],
        r"Complete requests:\s+(\d+)",
    ),
    Tool(
        "hey",
        lambda url, s, folder: [
            *("hey", "-cpus", "1", "-c", f"{CONNECTIONS}", "-z", f"{s:.0f}s", "-m", "POST"),
            *("-T", "application/json", "-D", f"{folder}/posted.json", url),
        ],
        r"\[200\]\s+(\d+) responses",
    ),
    Tool(
        "locust",
        lambda url, s, folder: [
            *(
                "locust",
                "-f",
                f"{folder}/locustfile.py",
                "--headless",
                "--only-summary",
                "-H",
                url[:-1],
            ),
            *("-u", f"{CONNECTIONS}", "-r", f"{CONNECTIONS}", "-t", f"{s:.0f}s", "-L", "ERROR"),
        ],
    ),
]


def counted(tool: Tool, output: str, cpu_s: float) -> Cost:
    """What a program did by its own output.

    Raises:
        ValueError: it says of no request.
    """
    if tool.requests is None:
        lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
        cost = Cost(**json.loads(lines[-1])) if lines else Cost(0, 0.0)
    else:
        found = re.search(tool.requests, output)
        cost = Cost(int(found[1]) if found else 0, cpu_s)
    if cost.requests == 0:
        raise ValueError(f"{tool.name} reports no request: {output[-500:]!r}")
    return cost


async def by_client(url: str, seconds: float, fast: bool) -> Cost:
    """servetune's client in a closed loop."""
    client = Client(PAYLOADS, url, fast=fast)
    before = _cpu_s()
    measured = await client.run(Load(Closed(CONNECTIONS), seconds))
    if measured.succeeded != measured.scheduled:
        raise RuntimeError(f"requests failed: {measured.errors}")
    return Cost(measured.succeeded, _cpu_s() - before)


async def by_aiohttp(url: str, seconds: float) -> Cost:
    """The least that a user of aiohttp would write."""
    before, end, done = _cpu_s(), time.perf_counter() + seconds, 0

    async def user(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.perf_counter() < end:
            async with session.post(url, data=BODY, headers=PAYLOADS[0].headers) as answer:
                await answer.read()
                done += answer.status == 200

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*[user(session) for _ in range(CONNECTIONS)])
    return Cost(done, _cpu_s() - before)


class _Bare(asyncio.Protocol):
    """Posts again as soon as bytes come; it neither parses nor checks them."""

    def __init__(self, request: bytes):
        self._request, self.done = request, 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.done += 1
        self._transport.write(self._request)


async def by_protocol(url: str, seconds: float) -> Cost:
    """A bare asyncio protocol: what the loop and the kernel cost on this host, and nothing else."""
    before, loop, parts = _cpu_s(), asyncio.get_running_loop(), URL(url)
    head = f"POST / HTTP/1.1\r\nHost: {parts.authority}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    request = head.encode() + BODY
    opened = [
        await loop.create_connection(lambda: _Bare(request), str(parts.host), parts.port or 80)
        for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(seconds)
    for transport, _ in opened:
        transport.close()
    return Cost(sum(protocol.done for _, protocol in opened), _cpu_s() - before)


async def paced(url: str, seconds: float) -> dict[str, float | None]:
    """How late requests go out at a moderate rate."""
    measured = await Client(PAYLOADS, url).run(Load(Constant(PACED_RPS), seconds))
    if measured.succeeded != measured.scheduled:
        raise RuntimeError(f"{measured.unsent} unsent, failed {dict(measured.errors)}")
    return {
        "rate_rps": PACED_RPS,
        "seconds": seconds,
        "p50_lateness_s": measured.lateness.quantile(0.5),
        "p99_lateness_s": measured.lateness.quantile(0.99),
        "waited_for_core": measured.client_run_delay,
    }


async def timers(url: str, seconds: float) -> dict[str, float | None]:
    """How late a timer is at the same pace where nothing is sent: the host's own part."""
    late, start = Histogram(), time.perf_counter()
    for number in range(round(PACED_RPS * seconds)):
        due = start + number / PACED_RPS
        if (wait_s := due - time.perf_counter()) > 0:
            await asyncio.sleep(math.ceil(1000 * wait_s) / 1000)
        late.record(time.perf_counter() - due)
    return {"p50_lateness_s": late.quantile(0.5), "p99_lateness_s": late.quantile(0.99)}


async def peak_rss(url: str, requests: float) -> dict[str, float]:
    """This process's peak memory over a closed window of at least N requests."""
    client = Client(PAYLOADS, url)
    window = asyncio.ensure_future(client.run(Load(Closed(CONNECTIONS), 900)))
    while not window.done():
        await asyncio.wait([window], timeout=0.25)
        so_far = await client.snapshot()
        if so_far is not None and so_far.scheduled >= requests:
            await client.stop()
            break
    measured = await window
    if measured.succeeded < requests:
        raise RuntimeError(f"only {measured.succeeded} of {requests:.0f} requests succeeded")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"requests": measured.succeeded, "peak_mb": peak}


_Run = Callable[[str, float], Awaitable[Any]]
#: Parts that run in a separate Python process, and whether on uvloop.
OWN: dict[str, tuple[_Run, bool]] = {
    "servetune": (lambda url, s: by_client(url, s, fast=True), True),
    "servetune, by session": (lambda url, s: by_client(url, s, fast=False), True),
    "aiohttp": (by_aiohttp, False),
    "aiohttp, uvloop": (by_aiohttp, True),
    "bare protocol, uvloop": (by_protocol, True),
}
_PARTS: dict[str, tuple[_Run, bool]] = {
    **OWN,
    "paced": (paced, True),
    "timers": (timers, True),
    "rss": (peak_rss, True),
}


def part(name: str, url: str, amount: float) -> dict[str, Any]:
    """Run one of this file's parts in a separate process, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loadgen", "--part", name, url, str(amount)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1:]}")
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def run_tool(tool: Tool, url: str, seconds: float, folder: Path) -> Cost:
    """Run a program and take its CPU time from the kernel."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        tool.command(url, seconds, folder), capture_output=True, text=True, timeout=seconds + 60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return counted(tool, done.stdout + done.stderr, cpu_s)


@contextmanager
def nginx(folder: Path, core: int) -> Iterator[str]:
    """An nginx of one process on one core; yields its URL.

    Raises:
        Unavailable: there is none, or it did not start.
    """
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise Unavailable("nginx is not on PATH, and the benchmark needs it as its server.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "nginx.conf").write_text(_NGINX.format(port=port))
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, {core})
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise Unavailable(f"nginx ended with status {process.returncode} as it started.")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def compare(
    url: str, seconds: float, rounds: int, folder: Path, tools: Sequence[Tool]
) -> dict[str, list[float]]:
    """µs of CPU a request by client, one figure for each round; the rounds are interleaved."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in OWN:
            cost = Cost(**part(name, url, seconds))
            found.setdefault(name, []).append(cost.us_per_request)
        for tool in tools:
            cost = run_tool(tool, url, seconds, folder)
            found.setdefault(tool.name, []).append(cost.us_per_request)
    return found


def table(costs: dict[str, list[float]]) -> Table:
    """The medians, cheapest first, with all rounds."""
    shown = Table(title=f"CPU of a request, {CONNECTIONS} connections, {len(BODY)} bytes posted")
    for heading in ("client", "µs (median)", "requests per CPU second", "rounds, µs"):
        shown.add_column(heading, justify="left" if heading == "client" else "right")
    for name, each in sorted(costs.items(), key=lambda item: statistics.median(item[1])):
        median = statistics.median(each)
        rounds = ", ".join(f"{us:.1f}" for us in each)
        shown.add_row(name, f"{median:.1f}", f"{1e6 / median:,.0f}", rounds)
    return shown


def benchmark(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All of it; returns what `--json` writes."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Unavailable("Two cores are needed: one for the server, one for the client.")
    present = [tool for tool in TOOLS if shutil.which(tool.name)]
    if absent := [tool.name for tool in TOOLS if tool not in present]:
        console.print(f"Not on PATH, left out: {', '.join(absent)}")
    with tempfile.TemporaryDirectory() as name, nginx(Path(name), cores[1]) as url:
        folder = Path(name)
        (folder / "posted.json").write_bytes(BODY)
        (folder / "post.lua").write_text(_WRK)
        (folder / "locustfile.py").write_text(_LOCUST)
        os.sched_setaffinity(0, {cores[0]})
        try:
            costs = compare(url, arguments.seconds, arguments.rounds, folder, present)
            console.print(table(costs))
            late = part("paced", url, arguments.paced_seconds)
            alone = part("timers", url, arguments.paced_seconds)
            console.print(
                f"At {PACED_RPS} rps from one process for {arguments.paced_seconds:g} s: "
                f"{_lateness(late)}; it waited for its core {late['waited_for_core']:.0%} of the "
                f"time. Timers alone, nothing sent: {_lateness(alone)}"
            )
            few, many = (part("rss", url, n) for n in (10_000, arguments.requests))
            console.print(
                f"Peak memory of a window of {many['requests']:,} requests: {many['peak_mb']:.1f} "
                f"MB, {many['peak_mb'] - few['peak_mb']:.1f} MB more than one of "
                f"{few['requests']:,}"
            )
        finally:
            os.sched_setaffinity(0, cores)
    return {
        "us_per_request": costs,
        "paced": late,
        "timers": alone,
        "rss": [few, many],
        "absent": absent,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loadgen", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of each client in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--paced-seconds", type=float, default=10)
    parser.add_argument("--requests", type=int, default=1_000_000, help="of the memory's window")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part:
        name, url, amount = arguments.part
        run, fast_loop = _PARTS[name]

        async def running() -> Any:
            return await run(url, float(amount))

        found = uvloop.run(running()) if fast_loop else asyncio.run(running())
        print(json.dumps(vars(found) if isinstance(found, Cost) else found))
        return 0
    try:
        figures = benchmark(arguments, Console())
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _lateness(late: dict[str, Any]) -> str:
    p50, p99 = (1000 * late[f"{name}_lateness_s"] for name in ("p50", "p99"))
    return f"lateness p99 {p99:.2f} ms, p50 {p50:.2f} ms"


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
