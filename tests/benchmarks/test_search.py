"""The contest of searches: its machines, its contestants, its figures."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contestants import CONTESTANTS, GeneratorContestant, grid, hill_climbing
from benchmarks.machine import Machine
from benchmarks.search import contest, trials_to
from benchmarks.surfaces import (
    FITTED_MACHINES,
    RECORDED,
    Recorded,
    draw_machines,
    rank_correlation,
    read_recorded,
)
from search.spec.space import Dimension, Space, build_space
from serving.config import ServerConfig

MACHINE = Machine("two cores", 2, fixed_s=0.1, each_s=0.01)
ONE = {
    "workers": 1,
    "batch_size": 1,
    "max_batch_delay_ms": 10,
    "netty_threads": 4,
    "netty_client_threads": 4,
    "mkl_threads": 1,
    "job_queue_size": 1000,
}
CODEGEN = RECORDED / "codegen-2core.csv"


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        pytest.param({}, 1 / 0.11, id="one at a time"),
        pytest.param({"workers": 2}, 2 / 0.11, id="a core for each worker"),
        pytest.param({"workers": 4}, 2 / 0.11, id="more workers than cores add nothing"),
        pytest.param({"batch_size": 10}, 10 / 0.2, id="a batch shares the fixed cost"),
        pytest.param({"mkl_threads": 2}, 1 / (0.11 * 0.6), id="threads divide 0.8 of the work"),
    ],
)
def test_machine_capacity_follows_arithmetic(changes: dict[str, int], rate: float) -> None:
    assert MACHINE.sustained_rps({**ONE, **changes}) == pytest.approx(rate, rel=0.04)


def test_machine_is_slower_with_too_many_threads() -> None:
    spinning = replace(MACHINE, spin=1.0)
    enough, many = (
        spinning.sustained_rps({**ONE, "workers": 2, "batch_size": 8, "mkl_threads": threads})
        for threads in (1, 2)
    )
    assert 0 < many < 0.8 * enough


def test_machine_loses_rate_to_a_short_queue_and_all_to_little_memory() -> None:
    batched = {**ONE, "batch_size": 32}
    assert (
        0
        < MACHINE.sustained_rps({**batched, "job_queue_size": 5})
        < 0.8 * (MACHINE.sustained_rps(batched))
    )
    assert replace(MACHINE, item_mb=1000.0).sustained_rps(batched) == 0


def test_machine_is_limited_by_its_front_end() -> None:
    fast = replace(MACHINE, fixed_s=1e-4, each_s=1e-5, netty_s=0.001, client_s=0.0005, cores=8)
    crowd = {**ONE, "workers": 4, "batch_size": 32}
    narrow, wide = (fast.sustained_rps({**crowd, "netty_threads": n}) for n in (1, 4))
    assert narrow == pytest.approx(1000, rel=0.02)
    assert wide > 1.5 * narrow


def test_machine_accelerator_is_shared_and_ignores_threads() -> None:
    gpu = Machine("gpu", 8, fixed_s=0.01, each_s=0.0005, device=0.9, streams=1)
    one, two, many = (
        gpu.sustained_rps({**ONE, "workers": workers, "batch_size": 32}) for workers in (1, 2, 8)
    )
    assert one < two < 1.3 * one
    assert many < 1.3 * one


def test_machines_of_one_seed_are_the_same_and_differ_by_seed() -> None:
    ours, again, others = ([s.machine for s in draw_machines(seed)] for seed in (3, 3, 4))
    assert ours == again and ours != others
    assert len(ours) >= 24


def test_machine_ranks_as_the_recorded_server() -> None:
    recorded = read_recorded(CODEGEN)
    assert rank_correlation(recorded, FITTED_MACHINES[recorded.name]) >= 0.8


def test_recorded_surface_returns_what_was_measured() -> None:
    recorded = read_recorded(CODEGEN)
    values = {"workers": 1, "batch_size": 1, "max_batch_delay_ms": 10, "mkl_threads": 1}
    chance = np.random.default_rng(0)
    seen = sorted({recorded.measure(values, chance) for _ in range(50)})
    assert seen == pytest.approx([14.1667, 15.1667], rel=0.02)
    assert recorded.true_rps(values) == pytest.approx(14.6667, rel=0.02)
    assert 300 < recorded.optimum_rps < 360


def test_recorded_surface_scales_a_faster_pass_to_the_first(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    rows = [(1, 1, 100), (1, 2, 200), (1, 4, 300), (2, 1, 150), (2, 2, 300), (2, 4, 540)]
    lines = [f"{number},{workers},1,10,1,{rate},0" for number, workers, rate in rows]
    header = "pass,workers,batch_size,max_batch_delay_ms,mkl_threads,closed_rps,failures"
    path.write_text("\n".join([header, *lines]))
    recorded = read_recorded(path)
    assert recorded.rates == {(1,): [100, 100], (2,): [200, 200], (4,): [300, 360]}


def test_read_recorded_refuses_a_file_that_is_no_surface(tmp_path: object) -> None:
    path = RECORDED.parent / "recorded" / "nothing.csv"
    with pytest.raises((OSError, ValueError)):
        read_recorded(path)


SPACE = build_space({}, 4)


def rate_of(values: dict[str, int]) -> float:
    """One peak, at batches of 32 on four workers of one thread."""
    far = abs(math.log2(values["batch_size"] / 32)) + abs(values["workers"] - 4)
    return 100 * 0.8 ** (far + math.log2(values["mkl_threads"]))


def test_grid_doubles_workers_and_batches_and_ends() -> None:
    walk, seen = GeneratorContestant(grid(SPACE)), []
    while (point := walk.ask()) is not None:
        seen.append((point["workers"], point["batch_size"]))
        walk.tell(rate_of(dict(point)), "")
    assert seen == [(w, 2**b) for w in (1, 2, 4, 8) for b in range(8)]
    assert walk.choice() == {**SPACE.nearest_point(), "workers": 4, "batch_size": 32}


def test_hill_climbing_finds_the_top_of_one_hill() -> None:
    walk, asked = GeneratorContestant(hill_climbing(SPACE)), 0
    while (point := walk.ask()) is not None:
        walk.tell(rate_of(dict(point)), "")
        asked += 1
        assert asked < 200
    choice = walk.choice()
    assert choice is not None
    assert (choice["workers"], choice["batch_size"], choice["mkl_threads"]) == (4, 32, 1)


@pytest.mark.parametrize("name", list(CONTESTANTS))
def test_contestants_are_reproducible(name: str) -> None:
    axes = {"workers": (1, 2, 3), "batch_size": (1, 8, 64)}
    space = Space(tuple(Dimension(n, choices=a) for n, a in axes.items()), ServerConfig(), 2)
    rates = {(w, b): (10.0 * w * b**0.5,) for w in axes["workers"] for b in axes["batch_size"]}
    surface = Recorded("small", space, rates)
    first, again = (contest(surface, [name], 2, 9)[name] for _ in range(2))
    assert first.shape == (2, 9)
    assert (first == again).all()
    assert ((first >= 0) & (first <= 1)).all()
    assert (np.diff(first) >= 0).all()


def test_trials_to_counts_the_first_sufficient_trial() -> None:
    shares = np.array([[0.1, 0.96, 0.9], [0.95, 0.95, 0.95], [0.1, 0.2, 0.3]])
    assert trials_to(shares).tolist() == [2, 1, math.inf]
