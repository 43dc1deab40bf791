"""Tests of the law of a server, without a clock."""

import pytest

from benchmarks.law import BatchServer, Faults, Law


def test_batch_server_refuses_what_the_queue_does_not_hold() -> None:
    server: BatchServer[int] = BatchServer(Law(service_s=0.5, queue=3))
    assert [server.arrive(0.0, number) for number in range(10)] == [True] * 4 + [False] * 6
    assert sum(len(tokens) for _, tokens in server.advance(2.0)) == 4


def test_batch_server_stall_delays_everything_until_its_end() -> None:
    server: BatchServer[int] = BatchServer(
        Law(service_s=0.01), Faults(stall_s=0.5, wait_for_arm=True)
    )
    for now in (0.0, 1.1, 2.0):
        server.advance(now)
        server.faults_begin_s = 1.0 if now else float("inf")
        server.arrive(now, 0)
    (_, before), (_, during), (_, after) = server.batches
    assert before == pytest.approx(0.01)
    assert during == pytest.approx(0.4 + 0.01)
    assert after == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("faults", "at_s", "duration_s"),
    [
        pytest.param(Faults(stall_at_s=5, stall_s=2), 3.0, 1.0, id="ends before the stall"),
        pytest.param(
            Faults(stall_at_s=5, stall_s=2), 4.5, 3.0, id="begins before the stall: all of it"
        ),
        pytest.param(
            Faults(stall_at_s=5, stall_s=2), 6.0, 2.0, id="begins in the stall: the rest of it"
        ),
        pytest.param(
            Faults(stall_at_s=5, stall_s=2), 7.0, 1.0, id="begins after the stall: nothing"
        ),
        pytest.param(Faults(stall_at_s=0, stall_s=2), -1.0, 1.0, id="not armed: nothing"),
        pytest.param(Faults(slower_per_s=0.01), 50.0, 1.5, id="half slower after 50 s"),
        pytest.param(Faults(halved_at_s=5), 4.9, 1.0, id="not yet halved"),
        pytest.param(Faults(halved_at_s=5), 5.0, 2.0, id="halved"),
    ],
)
def test_faults_lengthen_a_second_of_work(faults: Faults, at_s: float, duration_s: float) -> None:
    assert faults.batch_duration_s(1.0, at_s) == pytest.approx(duration_s)


def test_batch_server_exponential_service_has_its_mean() -> None:
    server: BatchServer[int] = BatchServer(Law(exponential=True, service_s=0.01))
    for number in range(4000):
        server.advance(float(number))
        server.arrive(float(number), number)
    seconds = [s for _, s in server.batches]
    assert sum(seconds) / len(seconds) == pytest.approx(0.01, rel=0.08)
    assert max(seconds) > 0.05


def test_law_refuses_impossible_values() -> None:
    with pytest.raises(ValueError, match=r"a law needs a worker, .*workers=0"):
        Law(workers=0)
