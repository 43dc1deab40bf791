"""The contest of searches: its machines, its contestants, its figures."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contest import COSTS, SearchRun, search_surface
from benchmarks.contestants import (
    CMA_ES,
    CONTESTANTS,
    OURS,
    PROBING,
    GeneratorContestant,
    grid,
    hill_climbing,
    starting_points,
)
from benchmarks.kinds import CHOICE_KINDS, KINDS, OtherServer, draw_others
from benchmarks.machine import Machine
from benchmarks.surfaces import (
    FITTED_MACHINES,
    RECORDED,
    Recorded,
    Simulated,
    draw_machines,
    draw_other_kinds,
    rank_correlation,
    read_recorded,
)
from search.spec.dimension import Dimension
from search.spec.space import Space
from search.spec.space_building import build_space
from search.trial.server_probe import ProbeKind, ServerProbe
from serving.configuration.config import ServerConfig

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
        walk.tell(rate_of(dict(point)))
    assert seen == [(w, 2**b) for w in (1, 2, 4, 8) for b in range(8)]
    assert walk.choice() == {**SPACE.nearest_point(), "workers": 4, "batch_size": 32}


def test_hill_climbing_finds_the_top_of_one_hill() -> None:
    walk, asked = GeneratorContestant(hill_climbing(SPACE)), 0
    while (point := walk.ask()) is not None:
        walk.tell(rate_of(dict(point)))
        asked += 1
        assert asked < 200
    choice = walk.choice()
    assert choice is not None
    assert (choice["workers"], choice["batch_size"], choice["mkl_threads"]) == (4, 32, 1)


@pytest.fixture
def small() -> Recorded:
    """A surface of nine points without noise."""
    axes = {"workers": (1, 2, 3), "batch_size": (1, 8, 64)}
    space = Space(tuple(Dimension(n, choices=a) for n, a in axes.items()), ServerConfig(), 2)
    rates = {(w, b): (10.0 * w * b**0.5,) for w in axes["workers"] for b in axes["batch_size"]}
    return Recorded("small", space, rates)


@pytest.mark.parametrize("name", list(CONTESTANTS))
def test_contestants_are_reproducible(name: str, small: Recorded) -> None:
    if name == CMA_ES:
        pytest.importorskip("cmaes")
    first, again = (search_surface(small, name, 0, trials=8) for _ in range(2))
    assert first == again
    assert all(0 <= share <= 1 for share in first.shares)
    assert list(first.shares) == sorted(first.shares), "without noise, a choice never gets worse"


@pytest.mark.parametrize("name", [name for name in CONTESTANTS if name not in ("random", CMA_ES)])
def test_contestants_begin_with_the_same_starting_points(name: str) -> None:
    contestant = CONTESTANTS[name](SPACE, 0)
    asked = []
    for _ in starting_points(SPACE):
        asked.append(contestant.ask())
        contestant.tell(1.0)
    assert asked == starting_points(SPACE)


def simulated() -> Simulated:
    return Simulated(replace(MACHINE, cores=8), build_space({}, 8, sizes_queue=True))


@pytest.mark.parametrize(("workers", "batch_size"), [(2, 16), (1, 16), (1, 4)])
def test_simulated_probe_shows_the_capacity_of_a_fresh_server(
    workers: int, batch_size: int
) -> None:
    surface, random = simulated(), np.random.default_rng(0)
    values = {**surface.space.nearest_point(), "workers": 8, "batch_size": 16, "mkl_threads": 1}
    kind = ProbeKind.WORKERS if batch_size == 16 else ProbeKind.BATCH
    records = [
        surface.probe(values, ServerProbe(kind, workers, batch_size), 0.9, random)
        for _ in range(200)
    ]
    rates = [record.capacity.rps for record in records if record.capacity]
    fresh = {**values, "workers": workers, "batch_size": batch_size}
    # A server that is slow at this start is slow in its probes too.
    expected = 0.9 * surface.machine.capacity_rps(surface._settings(fresh))
    assert np.exp(np.mean(np.log(rates))) == pytest.approx(expected, rel=0.02)
    assert all(2 < record.duration_s < 7 for record in records)


def test_simulated_probe_of_slow_batches_takes_no_time() -> None:
    surface = Simulated(replace(MACHINE, fixed_s=5.0), build_space({}, 2, sizes_queue=True))
    values = {**surface.space.nearest_point(), "workers": 2, "batch_size": 16, "mkl_threads": 1}
    probe = ServerProbe(ProbeKind.WORKERS, 1, 16)
    record = surface.probe(values, probe, 1.0, np.random.default_rng(0))
    assert record.capacity is None and record.duration_s == 0 and record.problem


def test_simulated_telemetry_has_single_requests_only_as_real_trials_if_asked_for() -> None:
    surface, random = simulated(), np.random.default_rng(0)
    values = {**surface.space.nearest_point(), "workers": 8, "batch_size": 16}

    def fills() -> set[float]:
        return {time.batch_fill for time in surface.telemetry(values, random).handler_times}

    assert fills() == {1, 16}
    surface.reports_single = False
    assert fills() == {16}
    values["batch_size"] = 1
    assert fills() == {1}


def test_search_adds_the_seconds_of_probes() -> None:
    fast = replace(MACHINE, cores=8, fixed_s=0.01, each_s=0.001)
    surface = Simulated(fast, build_space({}, 8, sizes_queue=True))
    plain, probing = (
        search_surface(surface, name, 0, COSTS["screening"], trials=9) for name in (OURS, PROBING)
    )
    fixed = {COSTS["screening"].complete_s, COSTS["screening"].pruned_s}
    spent = np.diff((0.0, *probing.ends_s)).tolist()
    assert set(np.diff((0.0, *plain.ends_s)).tolist()) <= fixed
    # The starting points are measured in any case: nothing is probed before the last of them.
    starts = len(starting_points(surface.space))
    assert set(spent[: starts - 1]) <= fixed and not set(spent[starts - 1 :]) <= fixed


def test_search_charges_each_trial_by_its_end(small: Recorded) -> None:
    costs = COSTS["full"]
    run = search_surface(small, OURS, 0, costs, trials=6)
    durations = {b - a for a, b in zip((0.0, *run.ends_s), run.ends_s, strict=False)}
    assert run.ends_s[0] == costs.complete_s
    assert durations <= {costs.complete_s, costs.pruned_s} and len(durations) == 2


def test_search_ends_with_its_time(small: Recorded) -> None:
    run = search_surface(small, "random", 0, COSTS["screening"], limit_s=60)
    assert run.ends_s[-1] >= 60 > run.ends_s[-2]


def test_run_reports_the_choice_at_a_time() -> None:
    run = SearchRun((25.0, 37.0, 62.0), (0.5, 0.5, 0.97))
    assert [run.share_at(s) for s in (10, 25, 61, 62, 600)] == [0.0, 0.5, 0.5, 0.97, 0.97]
    assert run.share_after(3) == 0.97 and math.isnan(run.share_after(4))
    assert run.seconds_to(0.95) == 62 and run.seconds_to(0.99) == math.inf


def test_other_kinds_are_ten_half_of_them_unseen_at_4_and_16_cores() -> None:
    assert len(KINDS) == 10 and len(CHOICE_KINDS) == 5 and set(CHOICE_KINDS) < set(KINDS)
    servers = draw_others(0, 1, tuple(KINDS))
    assert {server.cores for server in servers} == {4, 16} and len(servers) == 20
    assert draw_others(0, 1, tuple(KINDS)) == servers != draw_others(1, 1, tuple(KINDS))


@pytest.mark.parametrize("server", draw_others(3, 1, tuple(KINDS)), ids=lambda server: server.name)
def test_other_kinds_have_finite_rates_and_telemetry(server: OtherServer) -> None:
    surface = Simulated(server, build_space({}, server.cores, sizes_queue=True))
    random = np.random.default_rng(0)
    points = surface.space.draw(random, 40)
    rates = [surface.true_rps(point) for point in points]
    assert all(math.isfinite(rate) and rate >= 0 for rate in rates) and max(rates) > 0
    for point, rate in zip(points, rates, strict=True):
        if rate:
            telemetry = surface.telemetry(point, random)
            busy = [time.busy_workers for time in telemetry.handler_times]
            assert busy and max(busy) <= point["workers"]
            assert all(time.is_valid for time in telemetry.handler_times)
        else:
            assert surface.failure(point) is not None


def test_default_is_the_best_point_of_its_kind() -> None:
    for surface in draw_other_kinds(5, 1, ("default best",)):
        surface.explore()
        default = surface.space.nearest_point()
        assert surface.true_rps(default) >= 0.95 * surface.optimum_rps


def test_simulated_queue_follows_the_rule_of_the_product() -> None:
    short_queue_matters = replace(MACHINE, fixed_s=1.0, each_s=0.001, waits=0.9)
    with_rule, without = (
        Simulated(short_queue_matters, build_space({}, 2, sizes_queue=is_sized))
        for is_sized in (True, False)
    )
    point = {**SPACE.nearest_point(), "workers": 1, "batch_size": 128, "mkl_threads": 1}
    assert with_rule.true_rps(point) > 1.1 * without.true_rps(point) > 0
