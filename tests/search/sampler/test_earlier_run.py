"""An earlier run as prior knowledge."""

import math

import numpy as np
import pytest

from search.sampler.earlier_run import EarlierRun, earlier_records
from search.sampler.observations import Observation, Point
from search.spec.space_building import build_space

SPACE = build_space({}, 4)
POINTS = SPACE.draw(np.random.default_rng(0), 16)


def rate_of(point: Point) -> float:
    return float(10 * min(point["workers"], 4) * point["batch_size"] ** 0.5)


def earlier_run() -> EarlierRun:
    return EarlierRun(SPACE, earlier_records([Observation(p, rate_of(p)) for p in POINTS]))


def test_earlier_run_counts_at_the_level_of_the_new_host() -> None:
    own = [Observation(p, 3 * rate_of(p)) for p in POINTS[:4]]
    known = earlier_run().observations(own)
    ratios = [o.rate_rps / rate_of(o.point) for o in known]
    assert len(known) == len(POINTS) and not any(o.is_own for o in known)
    assert np.median(ratios) == pytest.approx(3, rel=0.15)


def test_earlier_run_is_less_certain_the_worse_it_predicts() -> None:
    good = earlier_run().observations([Observation(p, rate_of(p)) for p in POINTS[:4]])
    factors = (1.8, 0.7, 1.5, 0.6)
    worse = [Observation(p, f * rate_of(p)) for p, f in zip(POINTS, factors, strict=False)]
    assert earlier_run().observations(worse)[0].extra_sd > 1.3 * good[0].extra_sd


def test_earlier_run_that_contradicts_the_first_trials_teaches_nothing() -> None:
    factors = (20.0, 0.05, 10.0, 0.1)
    own = [Observation(p, f * rate_of(p)) for p, f in zip(POINTS, factors, strict=False)]
    assert earlier_run().observations(own) == []


def test_earlier_run_waits_for_the_first_rate() -> None:
    assert earlier_run().observations([Observation(POINTS[0], 0.0)]) == []


def test_earlier_run_of_another_space_teaches_nothing() -> None:
    records = [{"point": {"workers": 1}, "rate_rps": 5.0}]
    assert EarlierRun(SPACE, records).observations([Observation(POINTS[0], 1.0)]) == []


def test_earlier_records_keep_fast_and_slow_trials() -> None:
    observations = [Observation(POINTS[0], float(rate)) for rate in range(1, 101)]
    rates = [record["rate_rps"] for record in earlier_records(observations)]
    assert len(rates) <= 24 and rates[0] == 100 and min(rates) < 20
    assert all(math.isfinite(rate) for rate in rates)
