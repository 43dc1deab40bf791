"""Tests of one load generator process, against an HTTP server in another process."""

import asyncio
import errno
import gc
import os
import pickle
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from loadgen.client import Client, _thread_times, _Window
from loadgen.errors import GeneratorDefectError
from loadgen.measurement import Load
from loadgen.payloads import Payload
from loadgen.schedule import Burst, Closed, Constant, Schedule, Share
from servetune.errors import InputError
from tests.stub import stub
from tests.virtual_time import use_virtual_clock

PAYLOADS = [Payload(b"{}", {"Content-Type": "application/json"}, contains="ok")]


async def test_client_accounts_for_every_scheduled_request() -> None:
    with stub(service_s=0.005, batch=8) as url:
        measured = await Client(PAYLOADS, url).run(Load(Constant(100), 2.0))
    assert measured.scheduled == measured.sent == measured.succeeded == 200
    assert not measured.errors
    assert measured.begun.sum() == measured.done.sum() == 200
    assert len(measured.latency) == len(measured.lateness) == 200
    latency, service = measured.latency.quantile(0.5), measured.service.quantile(0.5)
    assert latency and service and 0.005 <= service <= latency


async def test_client_shares_are_parts_of_one_schedule() -> None:
    with stub(service_s=0.001, batch=8) as url:
        load, shares = Load(Constant(51), 1.0), (Share(0, 2), Share(1, 2))
        runs = [Client(PAYLOADS, url).run(load, share) for share in shares]
        parts = await asyncio.gather(*runs)
    assert [part.scheduled for part in parts] == [26, 25]


async def test_client_closed_loop_has_at_most_its_users_outstanding() -> None:
    with stub(service_s=0.02, batch=4) as url:
        measured = await Client(PAYLOADS, url).run(Load(Closed(8), 2.0))
    assert measured.success_rate == 1
    assert (measured.begun - measured.done).cumsum().max() <= 8
    assert measured.goodput_rps <= 210


def test_client_closed_loop_offers_what_the_server_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = use_virtual_clock(monkeypatch, service_s=0.04)
    measured = clock.run(Client(PAYLOADS).run(Load(Closed(8), 1.99)))
    assert measured.scheduled == measured.succeeded == 400
    assert measured.goodput_rps == pytest.approx(200, abs=8)


async def test_client_sends_a_burst_at_once() -> None:
    with stub(service_s=0.05, batch=10) as url:
        measured = await Client(PAYLOADS, url).run(Load(Burst(30), 0.5))
    assert measured.succeeded == 30


@pytest.mark.parametrize(
    ("server", "timeout_s", "cause"),
    [
        ({"fail_every": 10}, 30.0, "status 500"),
        ({"service_s": 0.2, "queue": 2}, 30.0, "status 503"),
        ({"service_s": 0.6}, 0.5, "timeout"),
        ({"reset_every": 10}, 30.0, "reset"),
    ],
)
async def test_client_counts_failures_by_cause(server: dict, timeout_s: float, cause: str) -> None:
    with stub(**server) as url:
        measured = await Client(PAYLOADS, url).run(Load(Constant(40), 1.0, timeout_s))
    assert measured.errors.get(cause, 0) > 0
    assert measured.succeeded + measured.failed == measured.sent == measured.scheduled
    worst = measured.latency.quantile(1.0)
    assert worst and worst >= 0.998 * timeout_s, "a failed request counts as at least the timeout"


async def test_client_counts_a_wrong_body_as_a_failure() -> None:
    with stub() as url:
        measured = await Client([Payload(b"{}", contains="never")], url).run(
            Load(Constant(20), 0.5)
        )
    assert measured.errors == {"wrong body": 10}


class _Failing(Payload):
    """A payload whose check of an answer has a defect."""

    def accepts(self, answer: bytes) -> bool:
        raise KeyError("predictions")


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("schedule", [Constant(50), Closed(4), Burst(20)], ids=str)
async def test_client_reports_its_own_defect(schedule: Schedule, fast: bool) -> None:
    with stub() as url:
        client = Client([_Failing(b"{}")], url, fast=fast)
        with pytest.raises(GeneratorDefectError) as caught:
            await client.run(Load(schedule, 60.0))
        assert await client.snapshot() is None
    message = str(caught.value)
    assert message.startswith(
        "a defect of the load generator ended the measurement, not the server: "
        "KeyError: 'predictions'\nThis is a bug in servetune: please report it"
    )
    assert "Traceback" in message and "in accepts" in message
    assert "Traceback" not in caught.value.summary
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
    assert caught.value.exit_status == 70


@pytest.mark.parametrize(
    "error", [TypeError("x"), ValueError("x"), RuntimeError("x"), MemoryError(), AssertionError()]
)
async def test_client_counts_no_defect_as_a_failure(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Broken:
        async def post(self, payload: Payload, within_s: float) -> tuple[int, bytes]:
            raise error

    @asynccontextmanager
    async def connections(*arguments: object) -> AsyncIterator[Broken]:
        yield Broken()

    monkeypatch.setattr("loadgen.client.connections_to", connections)
    with pytest.raises(GeneratorDefectError, match=type(error).__name__):
        await Client(PAYLOADS, "http://127.0.0.1:9/").run(Load(Constant(20), 60.0))


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (Payload(b""), "status 404 for POST /own"),
        (Payload(b"", path="/wfpredict/pets?a=b"), "status 404 for POST /wfpredict/pets"),
        (Payload(b"", method="GET", path="/x"), "status 404 for GET /x"),
        (Payload(b"", path="/x", status=(404,)), ""),
        (Payload(b"", path="/x", status=(200, 404), contains="no"), "wrong body"),
    ],
)
async def test_client_names_the_path_that_is_not_found(payload: Payload, cause: str) -> None:
    app = web.Application()
    async with TestServer(app) as server:
        client = Client([payload], str(server.make_url("/own?c=d")))
        measured = await client.run(Load(Constant(20), 0.25))
    assert measured.errors == ({cause: 5} if cause else {})


@pytest.mark.parametrize(
    "url", ["http://" + "a" * 70, "http://a..b/", "http://.a/", "http://127.0.0.1:99999/"]
)
async def test_client_refuses_a_url_that_is_not_valid(url: str) -> None:
    with pytest.raises(InputError, match=r"the URL 'http://.*' is not valid: "):
        await Client(PAYLOADS, url).run(Load(Closed(1), 5.0))


async def test_client_names_a_refused_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        measured = await Client(PAYLOADS, url).run(Load(Constant(20), 0.5))
    assert measured.errors == {"connection refused": 10}


@pytest.mark.parametrize("fast", [True, False])
async def test_client_counts_the_same_with_both_posters(fast: bool) -> None:
    with stub(service_s=0.01, batch=8, fail_every=10) as url:
        measured = await Client(PAYLOADS, url, fast=fast).run(Load(Constant(50), 1.0))
    assert (measured.sent, measured.succeeded) == (50, 45)
    assert measured.errors == {"status 500": 5}
    assert len(measured.latency) == len(measured.lateness) == 50
    assert len(measured.service) == 45


async def test_client_sends_no_request_before_its_due_time(monkeypatch: pytest.MonkeyPatch) -> None:
    early = []
    original = _Window.sent

    def sent(window: _Window, due: float) -> float:
        now = original(window, due)
        early.append(now < due)
        return now

    monkeypatch.setattr(_Window, "sent", sent)
    with stub(service_s=0.001, batch=8) as url:
        await Client(PAYLOADS, url).run(Load(Constant(700), 0.5))
    assert len(early) == 350
    assert not any(early)


async def test_client_counts_a_late_answer_as_a_timeout() -> None:
    """Deadlines are coarse; the count of timeouts is exact."""
    window = _Window(Load(Constant(1), 10.0, timeout_s=20.0))
    window.succeeded(-1.0, window.sent(-1.0))
    window.succeeded(-30.0, window.sent(-30.0))
    measured = window.result()
    assert measured.errors == {"timeout": 1}
    assert measured.succeeded == measured.good.sum() == 1
    assert measured.sent == len(measured.latency) == measured.done.sum() == 2
    worst = measured.latency.quantile(1.0)
    assert worst and worst >= 30


async def test_client_needs_no_more_memory_for_a_long_window() -> None:
    def record(window: _Window, requests: int) -> int:
        for _ in range(requests):
            due = window.now()
            window.scheduled()
            window.succeeded(due, window.sent(due))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    window = _Window(Load(Closed(64), 600.0))
    tracemalloc.start()
    try:
        few = record(window, 10_000)
        many = record(window, 300_000)
    finally:
        tracemalloc.stop()
    assert many - few < 1_000_000
    assert window.result().succeeded == 310_000


async def test_client_counts_requests_without_a_file_descriptor_as_unsent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit of the load generator process is no failure of the server."""

    class NoFiles:
        async def post(self, payload: Payload, within_s: float) -> tuple[int, bytes]:
            raise OSError(errno.EMFILE, "Too many open files")

    @asynccontextmanager
    async def connections(*arguments: object) -> AsyncIterator[NoFiles]:
        yield NoFiles()

    monkeypatch.setattr("loadgen.client.connections_to", connections)
    measured = await Client(PAYLOADS, "http://127.0.0.1:9/").run(Load(Constant(20), 0.5))
    assert (measured.scheduled, measured.sent, measured.errors) == (10, 0, {})
    assert measured.generator_limited == "10 of 10 requests were not sent"


async def test_client_serial_load_ends_with_the_last_request() -> None:
    with stub(workers=4, service_s=0.02) as url:
        measured = await Client(PAYLOADS, url).run(Load(Closed(1, 10), 30.0))
        four_users = await Client(PAYLOADS, url).run(Load(Closed(4, 10), 30.0))
        parts = [
            await Client(PAYLOADS, url).run(Load(Closed(1, 10), 30.0), Share(index, 2))
            for index in range(2)
        ]
    assert (measured.scheduled, measured.succeeded) == (10, 10)
    assert 0.2 <= measured.span_s < 30
    assert (four_users.scheduled, four_users.succeeded) == (10, 10)
    assert [part.scheduled for part in parts] == [10, 0], "a process without a user has no request"
    assert parts[1].span_s < 30


@contextmanager
def spinning(core: int) -> Iterator[None]:
    """Run a process that keeps a core busy."""
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile os.getppid() != 1: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as spinner:
        try:
            yield
        finally:
            spinner.kill()


def test_thread_times_include_the_wait_for_a_core() -> None:
    """Two processes spin on one core, so that each waits for the other."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not report run delay")
    cores = os.sched_getaffinity(0)
    cpu_s, delay_s = _thread_times()
    try:
        os.sched_setaffinity(0, {max(cores)})
        with spinning(max(cores)):
            while _thread_times()[1] < delay_s + 0.01:
                pass
    finally:
        os.sched_setaffinity(0, cores)
    assert _thread_times()[0] > cpu_s
