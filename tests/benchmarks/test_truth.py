"""The true rate of laws whose answer is known, and two simulations of one law that agree."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.law import BatchServer, Law
from benchmarks.truth import Window, noise_of, simulate, sustained_rps

POISSON = Window(poisson=True)


@pytest.mark.parametrize(
    ("law", "window", "low", "high"),
    [
        pytest.param(Law(service_s=0.01), Window(), 99.5, 100, id="one server: 1 ÷ service time"),
        pytest.param(Law(workers=3, service_s=0.01), Window(), 298, 300, id="three: three times"),
        pytest.param(Law(batch=8, service_s=0.01, each_s=0.005), Window(), 159, 160, id="a + 8b"),
        pytest.param(
            Law(batch=64, service_s=0.1, queue=10), Window(), 90, 110, id="a sixth of 640: queue 10"
        ),
        pytest.param(
            Law(batch=64, service_s=0.1, queue=1),
            Window(),
            9.9,
            10.1,
            id="one waits for each batch",
        ),
        pytest.param(
            Law(batch=64, service_s=0.1, delay_s=0.1, queue=10),
            Window(),
            100,
            120,
            id="a delay fills batches, and a short queue still overflows while they are served",
        ),
        pytest.param(
            Law(exponential=True, queue=10), POISSON, 55, 80, id="chance overflows a short queue"
        ),
        pytest.param(
            Law(exponential=True, queue=10_000), POISSON, 90, 100, id="a long queue hides chance"
        ),
        pytest.param(
            Law(service_s=0.01, queue=10_000),
            Window(least_s=20, timeout_s=0.05),
            99.5,
            100,
            id="no timeout before the backlog grows",
        ),
        pytest.param(Law(service_s=0.2), Window(timeout_s=0.1), 0, 0, id="always too late: none"),
    ],
)
def test_truth_finds_a_known_rate(law: Law, window: Window, low: float, high: float) -> None:
    assert low <= sustained_rps(law, window) <= high


def test_truth_of_a_short_queue_agrees_with_theory() -> None:
    """M/M/1/K loses a share (1 − ρ) ρ^K ÷ (1 − ρ^(K+1)); half of the windows lose none."""
    law, window = Law(exponential=True, service_s=0.01, queue=5), POISSON
    load = sustained_rps(law, window) * law.service_s
    places = law.queue + 1
    share = (1 - load) * load**places / (1 - load ** (places + 1))
    refused = share * load / law.service_s * window.least_s
    # Losses come in bursts, so that half of the windows without one means more than ln 2.
    assert 0.4 < refused < 2.5


def test_truth_uses_measured_service_times() -> None:
    law = Law(service_s=0.01)
    noise = noise_of(law, [(1, 0.02)] * 10)
    assert sustained_rps(law, noise=noise) == pytest.approx(50, rel=0.01)


LAWS = st.builds(
    Law,
    workers=st.integers(1, 3),
    batch=st.integers(1, 9),
    delay_s=st.sampled_from([0.0, 0.011, 0.1]),
    service_s=st.sampled_from([0.013, 0.1]),
    each_s=st.sampled_from([0.0, 0.007]),
    queue=st.just(10_000),
)


@settings(max_examples=200, deadline=None)
@given(LAWS, st.floats(1.0, 300.0), st.integers(0, 5))
def test_truth_forms_the_same_batches_as_the_stub(law: Law, rate: float, seed: int) -> None:
    arrived = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, 200))
    served = simulate(law, arrived, [1.0] * len(arrived))
    server: BatchServer[int] = BatchServer(law)
    ends = {}
    for number, at in enumerate(arrived.tolist()):
        ends.update({token: end for end, tokens in server.advance(at) for token in tokens})
        assert server.arrive(at, number)
    ends.update({token: end for end, tokens in server.advance(1e6) for token in tokens})
    assert [ends[number] for number in range(200)] == pytest.approx(served.answered.tolist())


@settings(max_examples=100, deadline=None)
@given(LAWS, st.integers(1, 20), st.floats(10.0, 500.0))
def test_truth_and_stub_see_the_same_first_refusal(law: Law, queue: int, rate: float) -> None:
    arrived = np.cumsum(np.random.default_rng(1).exponential(1 / rate, 200))
    served = simulate(law, arrived, [1.0] * len(arrived))
    server: BatchServer[int] = BatchServer(replace(law, queue=queue))
    admitted = []
    for number, at in enumerate(arrived.tolist()):
        server.advance(at)
        admitted.append(server.arrive(at, number))
    assert served.refused(queue) == (not all(admitted))
