"""Tests of the stub server, over HTTP."""

import asyncio
import contextlib
import http.client
import itertools
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor, as_completed

import psutil
import pytest

from benchmarks.law import Faults, Law
from benchmarks.stub import Stub, running_stub
from loadgen.client import Client
from loadgen.measurement import Load, Measurement
from loadgen.payloads import Payload
from loadgen.schedule import Burst, Constant

PAYLOADS = [Payload(b'{"text": "hello"}', contains="ok")]


def offer(stub: Stub, schedule: Burst | Constant, timeout_s: float = 30.0) -> Measurement:
    return asyncio.run(Client(PAYLOADS, stub.url).run(Load(schedule, 0.5, timeout_s)))


def post(stub: Stub, body: bytes = b"{}") -> tuple[int, float]:
    """Post once on a new connection; return the status and the seconds taken."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(stub.url).netloc, timeout=60)
    with contextlib.closing(connection):
        start = time.perf_counter()
        connection.request("POST", "/predictions/stub", body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - start


def test_stub_accounts_for_every_request() -> None:
    law = Law(workers=2, batch=8, delay_s=0.005, service_s=0.01, each_s=0.001)
    with running_stub(law) as stub:
        measured = offer(stub, Constant(200))
        counts = stub.counts()
    assert counts.requests == counts.answered == measured.succeeded == 100
    assert sum(n for n, _ in counts.batches) == 100
    assert all(s == pytest.approx(law.mean_s(n)) for n, s in counts.batches)
    assert 0 <= counts.late_mean_s <= counts.late_max_s
    assert counts.connections >= 1


def test_stub_batches_fill_from_the_queue() -> None:
    # A batch that is not full waits longer than the timeout of its requests.
    with running_stub(Law(batch=8, delay_s=60.0, service_s=0.01)) as stub:
        assert offer(stub, Burst(32)).succeeded == 32
        assert [n for n, _ in stub.counts().batches] == [8] * 4


def test_stub_lone_request_waits_for_delay_and_service() -> None:
    with running_stub(Law(batch=8, delay_s=0.2, service_s=0.1)) as stub:
        status, seconds = post(stub)
        assert status == 200 and seconds >= 0.3
        assert stub.counts().batches == ((1, 0.1),)


def test_stub_refuses_what_the_queue_does_not_hold() -> None:
    """One request is in service and three wait, longer than the test runs."""
    with ThreadPoolExecutor(10) as pool:
        with running_stub(Law(service_s=600.0, queue=3)) as stub:
            posts = [pool.submit(post, stub) for _ in range(10)]
            refused = list(itertools.islice(as_completed(posts), 6))
            counts = stub.counts()
        # The stub has ended, and with it the connections that waited.
        assert {answer.result()[0] for answer in refused} == {503}
        assert all(answer.exception() for answer in posts if answer not in refused)
    assert (counts.requests, counts.answered, counts.refused) == (10, 0, 6)


def test_stub_fails_every_kth_request() -> None:
    with running_stub(Law(batch=8, service_s=0.001), Faults(fail_every=5)) as stub:
        assert offer(stub, Constant(100)).errors == {"status 500": 10}
        assert stub.counts().failed == 10


def test_stub_resets_every_kth_connection() -> None:
    with running_stub(Law(service_s=0.001), Faults(reset_every=3)) as stub:
        statuses = []
        for _ in range(6):
            try:
                statuses.append(post(stub)[0])
            except ConnectionResetError:
                statuses.append(0)
        assert statuses == [200, 200, 0, 200, 200, 0]
        assert stub.counts().reset == 2


def test_stub_halves_its_capacity_at_the_given_time() -> None:
    with running_stub(Law(service_s=0.01), Faults(halved_at_s=0.0, wait_for_arm=True)) as stub:
        post(stub)
        stub.arm()
        post(stub)
        assert stub.counts().batches == ((1, 0.01), (1, 0.02))


def test_stub_keeps_a_connection_and_accepts_a_body_in_pieces() -> None:
    with running_stub(Law(service_s=0.001)) as stub:
        host = urllib.parse.urlsplit(stub.url).netloc
        with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as connection:
            for _ in range(3):
                connection.putrequest("POST", "/predictions/stub")
                connection.putheader("content-length", "4")
                connection.endheaders()
                connection.send(b"ab")
                time.sleep(0.01)
                connection.send(b"cd")
                assert connection.getresponse().read() == b'{"ok": true}'
        counts = stub.counts()
    assert counts.answered == 3
    assert counts.connections == 2, "one of the two reads the counts"


def test_stub_process_ends_with_its_context() -> None:
    with running_stub(Law()) as stub, ThreadPoolExecutor() as pool:
        assert {status for status, _ in pool.map(lambda _: post(stub), range(4))} == {200}
        assert psutil.pid_exists(stub.pid)
    assert not psutil.pid_exists(stub.pid)
