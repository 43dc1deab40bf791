"""The judge's stub server over HTTP: its law, its faults, its accounts."""

import asyncio
import contextlib
import http.client
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from benchmarks.law import Faults, Law, Line
from benchmarks.stub import Stub, running
from loadgen.client import Client
from loadgen.measurement import Load, Measurement
from loadgen.payloads import Payload
from loadgen.schedule import Burst, Constant

PAYLOADS = [Payload(b'{"text": "hello"}', contains="ok")]


def offer(stub: Stub, schedule: Burst | Constant, timeout_s: float = 30.0) -> Measurement:
    return asyncio.run(Client(PAYLOADS, stub.url).run(Load(schedule, 0.5, timeout_s)))


def post(stub: Stub, body: bytes = b"{}") -> tuple[int, float]:
    """One request on a new connection: the status, and seconds."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(stub.url).netloc, timeout=10)
    with contextlib.closing(connection):
        begun = time.perf_counter()
        connection.request("POST", "/predictions/stub", body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - begun


def test_stub_accounts_for_every_request() -> None:
    law = Law(workers=2, batch=8, delay_s=0.005, service_s=0.01, each_s=0.001)
    with running(law) as stub:
        measured = offer(stub, Constant(200))
        accounts = stub.accounts()
    assert accounts.requests == accounts.answered == measured.succeeded == 100
    assert sum(n for n, _ in accounts.batches) == 100
    assert all(s == pytest.approx(law.mean_s(n)) for n, s in accounts.batches)
    assert 0 <= accounts.late_mean_s <= accounts.late_max_s
    assert accounts.connections >= 1


def test_stub_batches_fill_from_the_queue() -> None:
    # A batch that is not full waits longer than a client does.
    with running(Law(batch=8, delay_s=60.0, service_s=0.01)) as stub:
        assert offer(stub, Burst(32)).succeeded == 32
        assert [n for n, _ in stub.accounts().batches] == [8] * 4


def test_stub_lone_request_waits_for_delay_and_service() -> None:
    with running(Law(batch=8, delay_s=0.2, service_s=0.1)) as stub:
        status, seconds = post(stub)
        assert status == 200 and seconds >= 0.3
        assert stub.accounts().batches == ((1, 0.1),)


def test_stub_refuses_what_the_queue_does_not_hold() -> None:
    line: Line[int] = Line(Law(service_s=0.5, queue=3))
    assert [line.arrive(0.0, number) for number in range(10)] == [True] * 4 + [False] * 6
    assert sum(len(tokens) for _, tokens in line.advance(2.0)) == 4
    # Over HTTP, with a first request that is served for longer than the client waits.
    with running(Law(service_s=60.0, queue=3)) as stub:
        measured = offer(stub, Burst(10), timeout_s=3.0)
        accounts = stub.accounts()
    assert measured.errors == {"status 503": 6, "timeout": 4}
    assert (accounts.requests, accounts.answered, accounts.refused) == (10, 0, 6)


def test_stub_fails_every_kth_request() -> None:
    with running(Law(batch=8, service_s=0.001), Faults(fail_every=5)) as stub:
        assert offer(stub, Constant(100)).errors == {"status 500": 10}
        assert stub.accounts().failed == 10


def test_stub_resets_every_kth_connection() -> None:
    with running(Law(service_s=0.001), Faults(reset_every=3)) as stub:
        statuses = []
        for _ in range(6):
            try:
                statuses.append(post(stub)[0])
            except ConnectionResetError:
                statuses.append(0)
        assert statuses == [200, 200, 0, 200, 200, 0]
        assert stub.accounts().reset == 2


def test_stub_stall_delays_everything_until_its_end() -> None:
    line: Line[int] = Line(Law(service_s=0.01), Faults(stall_s=0.5, wait_for_arm=True))
    for now in (0.0, 1.1, 2.0):
        line.advance(now)
        line.faults_begin_s = 1.0 if now else float("inf")
        line.arrive(now, 0)
    (_, before), (_, during), (_, after) = line.batches
    assert before == pytest.approx(0.01)
    assert during == pytest.approx(0.4 + 0.01)
    assert after == pytest.approx(0.01)


def test_stub_halves_its_capacity_at_the_given_time() -> None:
    with running(Law(service_s=0.01), Faults(halved_at_s=0.0, wait_for_arm=True)) as stub:
        post(stub)
        stub.arm()
        post(stub)
        assert stub.accounts().batches == ((1, 0.01), (1, 0.02))


@pytest.mark.parametrize(
    ("faults", "at_s", "lasts_s"),
    [
        pytest.param(Faults(stall_at_s=5, stall_s=2), 3.0, 1.0, id="over before the stall"),
        pytest.param(Faults(stall_at_s=5, stall_s=2), 4.5, 3.0, id="begun before: all of it"),
        pytest.param(Faults(stall_at_s=5, stall_s=2), 6.0, 2.0, id="begun in it: what is left"),
        pytest.param(Faults(stall_at_s=5, stall_s=2), 7.0, 1.0, id="begun after: nothing"),
        pytest.param(Faults(stall_at_s=0, stall_s=2), -1.0, 1.0, id="not armed yet: nothing"),
        pytest.param(Faults(slower_per_s=0.01), 50.0, 1.5, id="half slower after 50 s"),
        pytest.param(Faults(halved_at_s=5), 4.9, 1.0, id="not yet halved"),
        pytest.param(Faults(halved_at_s=5), 5.0, 2.0, id="halved"),
    ],
)
def test_faults_lengthen_a_second_of_work(faults: Faults, at_s: float, lasts_s: float) -> None:
    assert faults.lasts_s(1.0, at_s) == pytest.approx(lasts_s)


def test_exponential_service_has_its_mean() -> None:
    line: Line[int] = Line(Law(exponential=True, service_s=0.01))
    for number in range(4000):
        line.advance(float(number))
        line.arrive(float(number), number)
    seconds = [s for _, s in line.batches]
    assert sum(seconds) / len(seconds) == pytest.approx(0.01, rel=0.08)
    assert max(seconds) > 0.05


def test_stub_keeps_a_connection_and_accepts_a_body_in_pieces() -> None:
    with running(Law(service_s=0.001)) as stub:
        host = urllib.parse.urlsplit(stub.url).netloc
        with contextlib.closing(http.client.HTTPConnection(host, timeout=10)) as connection:
            for _ in range(3):
                connection.putrequest("POST", "/predictions/stub")
                connection.putheader("content-length", "4")
                connection.endheaders()
                connection.send(b"ab")
                time.sleep(0.01)
                connection.send(b"cd")
                assert connection.getresponse().read() == b'{"ok": true}'
        accounts = stub.accounts()
    assert accounts.answered == 3
    assert accounts.connections == 2, "one of them asks for the accounts"


def test_stub_process_ends_with_its_context() -> None:
    with running(Law()) as stub, ThreadPoolExecutor() as pool:
        assert {status for status, _ in pool.map(lambda _: post(stub), range(4))} == {200}
        assert psutil.pid_exists(stub.pid)
    assert not psutil.pid_exists(stub.pid)


def test_law_refuses_impossible_values() -> None:
    with pytest.raises(ValueError, match="impossible law"):
        Law(workers=0)
