"""Tests of one load generator process, against an HTTP server in another process."""

import asyncio
import pickle
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from loadgen.client import Client
from loadgen.dispatch import SWEEP_S
from loadgen.errors import GeneratorDefectError
from loadgen.measurement import Load
from loadgen.payloads import Payload, combine
from loadgen.posting import Post, Receiver
from loadgen.schedule import Burst, Closed, Constant, Schedule, Share
from loadgen.window import Window
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


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
async def test_client_measures_the_latency_of_each_group(fast: bool) -> None:
    payloads = combine(
        {
            "right": ([Payload(b"{}", contains="ok")], 3),
            "wrong": ([Payload(b"{}", contains="never")], 1),
        }
    )
    with stub(service_s=0.005, batch=8) as url:
        measured = await Client(payloads, url, fast=fast).run(Load(Constant(100), 2.0, 5.0))
    right, wrong = measured.groups["right"], measured.groups["wrong"]
    assert (right.ended, right.failed) == (150, 0)
    assert (wrong.ended, wrong.errors) == (50, {"wrong body": 50})
    assert wrong.latency.quantile(0.5) >= 5.0 > right.latency.quantile(0.99) >= 0.005


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
        ({"service_s": 60.0}, 0.5, "timeout"),
        ({"reset_every": 10}, 30.0, "reset"),
    ],
)
async def test_client_counts_failures_by_cause(server: dict, timeout_s: float, cause: str) -> None:
    with stub(**server) as url:
        measured = await Client(PAYLOADS, url).run(Load(Constant(40), 1.0, timeout_s))
    assert measured.errors.get(cause, 0) > 0
    assert measured.succeeded + measured.failed == measured.sent
    # A process that waits for a core longer than the timeout does not send.
    assert measured.sent == measured.scheduled or cause == "timeout"
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
        def post(self, post: Post) -> None:
            raise error

        def expire(self, due_before: float) -> None:
            """Nothing is outstanding."""

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


async def test_client_sends_no_request_before_its_due_time(monkeypatch: pytest.MonkeyPatch) -> None:
    early = []
    original = Window.sent

    def sent(window: Window, due: float, now: float) -> None:
        early.append(now < due or window.now() < now)
        original(window, due, now)

    monkeypatch.setattr(Window, "sent", sent)
    with stub(service_s=0.001, batch=8) as url:
        await Client(PAYLOADS, url).run(Load(Constant(700), 0.5))
    assert len(early) == 350
    assert not any(early)


async def test_client_counts_requests_without_a_file_descriptor_as_unsent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit of the load generator process is no failure of the server."""

    class NoFiles:
        def __init__(self, receiver: Receiver):
            self.post = receiver.unsent

        def expire(self, due_before: float) -> None:
            """Nothing is outstanding."""

    @asynccontextmanager
    async def connections(
        url: str, payloads: object, receiver: Receiver, *options: object
    ) -> AsyncIterator[NoFiles]:
        yield NoFiles(receiver)

    monkeypatch.setattr("loadgen.client.connections_to", connections)
    measured = await Client(PAYLOADS, "http://127.0.0.1:9/").run(Load(Constant(20), 0.5))
    assert (measured.scheduled, measured.sent, measured.errors) == (10, 0, {})
    assert measured.generator_limited == "10 of 10 requests were not sent"


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("schedule", [Constant(200), Closed(8)])
async def test_client_cancelled_run_leaves_nothing_behind(
    schedule: Constant | Closed, fast: bool
) -> None:
    before = asyncio.all_tasks()
    with stub(service_s=5.0, batch=4) as url:
        run = asyncio.create_task(Client(PAYLOADS, url, fast=fast).run(Load(schedule, 60.0)))
        await asyncio.sleep(0.1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert asyncio.all_tasks() == before
    timers: list[asyncio.TimerHandle] = getattr(asyncio.get_running_loop(), "_scheduled", [])
    assert all(timer.cancelled() for timer in timers)


@pytest.mark.parametrize("schedule", [Constant(50), Closed(4), Burst(4)])
async def test_client_stop_awaits_outstanding_requests(
    schedule: Constant | Closed | Burst,
) -> None:
    with stub(service_s=0.3, batch=100) as url:
        client = Client(PAYLOADS, url)
        run = asyncio.create_task(client.run(Load(schedule, 60.0)))
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if (so_far := await client.snapshot()) is not None and so_far.scheduled:
                break
        await client.stop()
        await client.stop()
        measured = await run
    assert measured.succeeded == measured.scheduled >= 1
    assert measured.span_s < 60


async def test_client_ends_if_a_server_never_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        for schedule in (Constant(100), Closed(3)):
            measured = await Client(PAYLOADS, url).run(Load(schedule, 0.2, timeout_s=0.5))
            # A process that waits for a core longer than the timeout does not send.
            assert measured.errors == {"timeout": measured.scheduled - measured.unsent}
            assert measured.begun.sum() == measured.scheduled >= 3


async def test_client_closed_loop_pauses_users_that_fail_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        client = Client(PAYLOADS, url)
        run = asyncio.create_task(client.run(Load(Closed(4), 60.0)))
        for _ in range(6000):
            await asyncio.sleep(0.01)
            if (so_far := await client.snapshot()) is not None and so_far.scheduled > 40:
                break
        await client.stop()
        measured = await run
    assert measured.errors == {"connection refused": measured.scheduled}
    assert 40 < measured.scheduled <= 4 * (measured.span_s / SWEEP_S + 1)


def test_client_does_not_send_what_is_overdue_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stall that is longer than the timeout, the requests of the stall are unsent."""
    clock = use_virtual_clock(monkeypatch, service_s=0.04)

    async def stalled() -> Any:
        run = asyncio.create_task(Client(PAYLOADS).run(Load(Constant(100), 2.0, timeout_s=0.25)))
        await asyncio.sleep(1.0)
        clock.work(0.5)
        return await run

    measured = clock.run(stalled())
    assert measured.scheduled == 200
    assert measured.unsent == pytest.approx(25, abs=1)
    # Four were outstanding, and four were sent less than their service time before the timeout.
    assert measured.failed == pytest.approx(8, abs=2)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("method", ["succeeded", "sent", "count_buffered"])
@pytest.mark.parametrize("schedule", [Constant(50), Closed(2)])
async def test_client_ends_a_window_that_cannot_be_recorded(
    monkeypatch: pytest.MonkeyPatch, schedule: Constant | Closed, method: str, fast: bool
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Window, method, fail)
    with stub(service_s=0.001, batch=8) as url:
        with pytest.raises(GeneratorDefectError, match="ZeroDivisionError"):
            await Client(PAYLOADS, url, fast=fast).run(Load(schedule, 60.0))
