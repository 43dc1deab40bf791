"""CPU time per request of servetune and other load generators: `python -m benchmarks.loadgen`.

An nginx on one core answers from memory; the load generators run one after another on a second
core. Only their CPU time is compared (user and system), which a slow server does not change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
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
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.bare import run_bare_closed_loop, run_bare_open_loop, timer_lateness
from loadgen.client import Client
from loadgen.formatting import format_percent
from loadgen.histogram import Histogram
from loadgen.measurement import Load
from loadgen.payloads import Payload
from loadgen.schedule import Closed, Constant

CONNECTIONS = 64
BODY = b'{"a": 1}'
PAYLOADS = [Payload(BODY, {"Content-Type": "application/json"})]
#: Rates of the open loop, requests per second.
RATES_RPS = (1000, 4000, 10_000)
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


class UnavailableError(RuntimeError):
    """This host lacks something that the benchmark needs; the message names it."""


@dataclass(frozen=True)
class Cost:
    """The requests of a load generator, and their CPU time in seconds."""

    requests: int
    cpu_s: float

    @property
    def us_per_request(self) -> float:
        return self.cpu_s / self.requests * 1e6


@dataclass(frozen=True)
class Tool:
    """A load generator that is a separate program.

    Attributes:
        command: returns the command for a URL, a duration in seconds and a folder of files.
        requests: pattern of the number of requests in its output. If None, the program prints a
            `Cost` as JSON, because its start would dominate the CPU time of the process.
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


def parse_cost(tool: Tool, output: str, cpu_s: float) -> Cost:
    """Return the cost of a program from its output.

    Raises:
        ValueError: the output reports no request.
    """
    if tool.requests is None:
        lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
        cost = Cost(**json.loads(lines[-1])) if lines else Cost(0, 0.0)
    else:
        match = re.search(tool.requests, output)
        cost = Cost(int(match[1]) if match else 0, cpu_s)
    if cost.requests == 0:
        raise ValueError(f"{tool.name} reports no request: {output[-500:]!r}")
    return cost


async def run_client(url: str, seconds: float, fast: bool) -> Cost:
    """Run servetune's load generator in a closed loop."""
    client = Client(PAYLOADS, url, fast=fast)
    before = _cpu_s()
    measured = await client.run(Load(Closed(CONNECTIONS), seconds))
    if measured.succeeded != measured.scheduled:
        raise RuntimeError(f"requests failed: {measured.errors}")
    return Cost(measured.succeeded, _cpu_s() - before)


async def run_aiohttp(url: str, seconds: float) -> Cost:
    """Run the shortest closed loop that a user of aiohttp would write."""
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


async def run_bare_protocol(url: str, seconds: float) -> Cost:
    """Run a bare asyncio protocol, which costs only the event loop and the kernel."""
    before = _cpu_s()
    answers = await run_bare_closed_loop(url, seconds, BODY, CONNECTIONS)
    return Cost(answers, _cpu_s() - before)


async def run_open_loop(url: str, seconds: float, rate_rps: float, bare: bool) -> dict[str, Any]:
    """Offer a rate; return the cost of a request and how late requests were sent."""
    before = _cpu_s()
    if bare:
        measured = await run_bare_open_loop(url, seconds, PAYLOADS[0], rate_rps, CONNECTIONS)
    else:
        measured = await Client(PAYLOADS, url).run(Load(Constant(rate_rps), seconds))
    cost = Cost(measured.sent, _cpu_s() - before)
    if measured.errors:
        raise RuntimeError(f"requests failed: {dict(measured.errors)}")
    return {
        "us_per_request": cost.us_per_request,
        "unsent": measured.unsent,
        "waited_for_core": measured.client_run_delay,
        **_lateness(measured.lateness),
    }


async def measure_timers(url: str, seconds: float, rate_rps: float) -> dict[str, Any]:
    """Measure how late timers are at the same rate if nothing is sent."""
    return _lateness(await timer_lateness(rate_rps, seconds))


def _lateness(late: Histogram) -> dict[str, float | None]:
    return {"p50_lateness_s": late.quantile(0.5), "p99_lateness_s": late.quantile(0.99)}


async def measure_peak_memory(url: str, requests: float) -> dict[str, float]:
    """Measure this process's peak memory, MB, over a closed window of at least `requests`."""
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
#: Load generators that run in a separate Python process, and whether on uvloop.
PYTHON_GENERATORS: dict[str, tuple[_Run, bool]] = {
    "servetune": (lambda url, s: run_client(url, s, fast=True), True),
    "servetune, by session": (lambda url, s: run_client(url, s, fast=False), True),
    "aiohttp": (run_aiohttp, False),
    "aiohttp, uvloop": (run_aiohttp, True),
    "bare protocol, uvloop": (run_bare_protocol, True),
}
_PARTS: dict[str, tuple[_Run, bool]] = {
    **PYTHON_GENERATORS,
    "rss": (measure_peak_memory, True),
}
for _rate_rps in RATES_RPS:
    _PARTS |= {
        f"open {_rate_rps}": (partial(run_open_loop, rate_rps=_rate_rps, bare=False), True),
        f"bare {_rate_rps}": (partial(run_open_loop, rate_rps=_rate_rps, bare=True), True),
        f"timers {_rate_rps}": (partial(measure_timers, rate_rps=_rate_rps), True),
    }


def run_part(name: str, url: str, amount: float) -> dict[str, Any]:
    """Run a part of this file in a separate process and return its JSON output."""
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
    """Run a program; return its cost, with the CPU time from the kernel."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        tool.command(url, seconds, folder), capture_output=True, text=True, timeout=seconds + 60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return parse_cost(tool, done.stdout + done.stderr, cpu_s)


@contextmanager
def nginx(folder: Path, core: int) -> Iterator[str]:
    """Run an nginx with one process on one core; yield its URL.

    Raises:
        UnavailableError: nginx is not installed or did not start.
    """
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise UnavailableError(
            "nginx is not on PATH; install it, the benchmark uses it as its server."
        )
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
                raise UnavailableError(
                    f"nginx ended with status {process.returncode} while starting."
                )
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def compare(
    url: str, seconds: float, rounds: int, folder: Path, tools: Sequence[Tool]
) -> dict[str, list[float]]:
    """Return µs of CPU per request by load generator, one per round; they run interleaved."""
    costs: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in PYTHON_GENERATORS:
            cost = Cost(**run_part(name, url, seconds))
            costs.setdefault(name, []).append(cost.us_per_request)
        for tool in tools:
            cost = run_tool(tool, url, seconds, folder)
            costs.setdefault(tool.name, []).append(cost.us_per_request)
    return costs


def compare_open_loop(url: str, seconds: float, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of the open loop, of its bare form and of timers, one for each round."""
    figures: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for rate_rps in RATES_RPS:
            for kind in ("open", "bare", "timers"):
                name = f"{kind} {rate_rps}"
                figures.setdefault(name, []).append(run_part(name, url, seconds))
    return figures


def ratio_table(costs: dict[str, list[float]], figures: dict[str, list[dict[str, Any]]]) -> Table:
    """Return a table of servetune beside what a request costs at least, and of its lateness."""
    table = Table(title="servetune ÷ bare protocol, CPU per request; medians of the rounds")
    columns = ("loop", "ratio", "µs", "bare µs", "lateness p50, p99 ms", "timers alone", "unsent")
    for heading in (*columns, "waited for core"):
        table.add_column(heading, justify="left" if heading == "loop" else "right")
    ours, bare = costs["servetune"], costs["bare protocol, uvloop"]
    table.add_row(f"closed, {CONNECTIONS} users", *_ratio(ours, bare), "–", "–", "–", "–")
    for rate_rps in RATES_RPS:
        rounds = figures[f"open {rate_rps}"]
        ours, bare = (
            [figure["us_per_request"] for figure in figures[f"{kind} {rate_rps}"]]
            for kind in ("open", "bare")
        )
        table.add_row(
            f"open, {rate_rps:,} rps",
            *_ratio(ours, bare),
            _late_ms(rounds),
            _late_ms(figures[f"timers {rate_rps}"]),
            str(max(figure["unsent"] for figure in rounds)),
            format_percent(statistics.median(figure["waited_for_core"] for figure in rounds)),
        )
    return table


def _ratio(ours: list[float], bare: list[float]) -> tuple[str, str, str]:
    """Return the median of the rounds' ratios, and the two medians."""
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    return f"{ratio:.2f}", f"{statistics.median(ours):.1f}", f"{statistics.median(bare):.1f}"


def _late_ms(rounds: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{1000 * statistics.median(figure[f'{name}_lateness_s'] for figure in rounds):.2f}"
        for name in ("p50", "p99")
    )


def cost_table(costs: dict[str, list[float]]) -> Table:
    """Return a table of the medians, cheapest first, with all rounds."""
    table = Table(title=f"CPU per request, {CONNECTIONS} connections, {len(BODY)} bytes posted")
    for heading in ("load generator", "µs (median)", "requests per CPU second", "rounds, µs"):
        table.add_column(heading, justify="left" if heading == "load generator" else "right")
    for name, costs_us in sorted(costs.items(), key=lambda item: statistics.median(item[1])):
        median = statistics.median(costs_us)
        rounds = ", ".join(f"{us:.1f}" for us in costs_us)
        table.add_row(name, f"{median:.1f}", f"{1e6 / median:,.0f}", rounds)
    return table


def benchmark(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run and print everything; return the data for `--json`."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UnavailableError(
            f"The benchmark needs two cores, for server and load generator (got {len(cores)})."
        )
    installed = [tool for tool in TOOLS if shutil.which(tool.name)]
    if absent := [tool.name for tool in TOOLS if tool not in installed]:
        console.print(f"Not on PATH, left out: {', '.join(absent)}")
    with tempfile.TemporaryDirectory() as name, nginx(Path(name), cores[1]) as url:
        folder = Path(name)
        (folder / "posted.json").write_bytes(BODY)
        (folder / "post.lua").write_text(_WRK)
        (folder / "locustfile.py").write_text(_LOCUST)
        os.sched_setaffinity(0, {cores[0]})
        try:
            costs = compare(url, arguments.seconds, arguments.rounds, folder, installed)
            figures = compare_open_loop(url, arguments.seconds, arguments.rounds)
            console.print(ratio_table(costs, figures))
            console.print(cost_table(costs))
            few, many = (run_part("rss", url, n) for n in (10_000, arguments.requests))
            console.print(
                f"Peak memory of a window of {many['requests']:,} requests: {many['peak_mb']:.1f} "
                f"MB, {many['peak_mb'] - few['peak_mb']:.1f} MB more than for "
                f"{few['requests']:,}"
            )
        finally:
            os.sched_setaffinity(0, cores)
    return {"us_per_request": costs, "open_loop": figures, "rss": [few, many], "absent": absent}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loadgen", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=3, help="duration of each load generator in each round"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds, interleaved")
    parser.add_argument(
        "--requests", type=int, default=1_000_000, help="requests of the memory measurement"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part:
        name, url, amount = arguments.part
        run, fast_loop = _PARTS[name]

        async def run_once() -> Any:
            return await run(url, float(amount))

        result = uvloop.run(run_once()) if fast_loop else asyncio.run(run_once())
        print(json.dumps(vars(result) if isinstance(result, Cost) else result))
        return 0
    try:
        figures = benchmark(arguments, Console())
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
