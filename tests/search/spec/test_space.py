"""The search space: dimensions, points and the configurations they stand for."""

import numpy as np
import pytest

from search.spec.dimension import Dimension
from search.spec.space_building import build_space
from serving.configuration.config import ServerConfig
from serving.configuration.defaults import torchserve_defaults

SPACE = build_space({"job_queue_size": 1000}, cores=2)


def test_values_is_the_inverse_of_config() -> None:
    space = build_space(
        {
            "properties.io_ratio": Dimension("", 30, 70),
            "environment.OMP_WAIT_POLICY": Dimension("", choices=("ACTIVE", "PASSIVE")),
            "jvm.-XX:+UseSerialGC": Dimension("", choices=(True, False)),
            "netty_threads": None,
        },
        cores=4,
    )
    point = {d.name: d.choices[0] if d.choices else d.high for d in space.dimensions}
    config = space.config(point)
    assert config.netty_threads is None
    assert config.jvm == {"-XX:+UseSerialGC": ""}
    assert space.values(config) == point


def test_values_uses_torchserves_default_for_an_unset_setting() -> None:
    values = SPACE.values(ServerConfig())
    assert values is not None
    assert values["batch_size"] == 1
    assert values["workers"] == torchserve_defaults(2)["workers"] == 2


def test_values_is_none_if_a_value_is_not_a_choice() -> None:
    space = build_space({"batch_size": Dimension("", choices=(8, 64))}, cores=2)
    assert space.values(ServerConfig()) is None
    assert space.values(ServerConfig(batch_size=64)) is not None


def test_nearest_config_clips_values_to_their_ranges() -> None:
    config = ServerConfig(workers=77, batch_size=3, netty_threads=1)
    nearest = SPACE.nearest_config(config)
    assert nearest is not None
    assert (nearest.workers, nearest.batch_size, nearest.netty_threads) == (4, 3, 1)


def test_draw_untried_finds_every_point_of_a_small_space() -> None:
    fixed = ("max_batch_delay_ms", "netty_threads", "netty_client_threads", "mkl_threads")
    space = build_space(
        {"workers": Dimension("", 1, 3), "batch_size": Dimension("", choices=(1, 8))}
        | dict.fromkeys(fixed, 2),
        cores=2,
    )
    tried: set[str] = set()
    while (point := space.draw_untried(tried, seed=len(tried))) is not None:
        tried.add(space.identity(space.config(point)))
    assert len(tried) == 6


def test_draw_untried_does_not_enumerate_a_large_space() -> None:
    first = SPACE.draw_untried({"another configuration"}, seed=1)
    assert first != SPACE.draw_untried(set(), seed=2)


def test_draw_stays_in_the_bounds_of_every_dimension() -> None:
    space = build_space({"jvm.-XX:+UseSerialGC": Dimension("", choices=(True, False))}, cores=2)
    points = space.draw(np.random.default_rng(0), 500)
    for d in space.dimensions:
        values = {point[d.name] for point in points}
        assert values <= set(d.choices or range(d.low, d.high + 1))
        assert len(values) > 1


@pytest.mark.parametrize("cores", [1, 2, 96])
def test_recommended_points_are_in_the_space(cores: int) -> None:
    space = build_space({"batch_size": Dimension("", 1, 16)}, cores)
    for point in space.recommended_points() + space.recommended_points(few_workers=True):
        assert space.values(space.config(point)) == point


def test_recommended_points_begin_with_one_worker_if_memory_counts() -> None:
    space = build_space({}, 4)
    points = space.recommended_points(few_workers=True)
    sizes = [(p["workers"], p["mkl_threads"], p["batch_size"]) for p in points]
    assert sizes == [(1, 1, 32), (1, 4, 32), (4, 1, 32), (4, 1, 128)]


def test_space_identity_knows_default_threads_under_quota() -> None:
    space = build_space({}, cores=4, threads=96)
    assert space.identity(ServerConfig()) == space.identity(ServerConfig(mkl_threads=96))
    assert space.identity(ServerConfig()) != space.identity(ServerConfig(mkl_threads=4))
    values = space.values(ServerConfig())
    assert values and values["mkl_threads"] == 96
    assert {d.name: d.high for d in space.dimensions}["mkl_threads"] == 4


TWO = build_space(
    {
        "workers": Dimension("", 1, 4),
        "models.zoo.v2.workers": Dimension("", 1, 4),
        "models.zoo.v2.batch_size": Dimension("", choices=(1, 8)),
        "models.ape.response_timeout_s": 30,
    },
    cores=4,
)


def test_config_has_settings_of_other_models() -> None:
    point = TWO.nearest_point(workers=2, **{"models.zoo.v2.workers": 3})
    config = TWO.config(point)
    assert config.models == {
        "ape": {"response_timeout_s": 30},
        "zoo.v2": {"workers": 3, "batch_size": 1},
    }
    assert TWO.values(config) == point and TWO.tuned_models == ("zoo.v2",)
    assert TWO.nearest_config(config) == config


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"MKL_NUM_THREADS": "3"}, 3),
        ({"MKL_NUM_THREADS": "3", "OMP_NUM_THREADS": "1"}, 3),
        ({"OMP_NUM_THREADS": "many"}, 4),
        ({"A": "1"}, 4),
    ],
)
def test_space_reads_the_threads_of_a_configuration_in_use(
    variables: dict[str, str], threads: int
) -> None:
    space, config = build_space({}, 4), ServerConfig(environment=variables)
    values = space.values(config)
    assert values is not None and values["mkl_threads"] == threads
    nearest = space.nearest_config(config)
    assert nearest is not None and nearest.mkl_threads == threads
    assert space.identity(config) != space.identity(ServerConfig(workers=2))


def test_identity_is_equal_for_defaults_of_another_model() -> None:
    defaults = {"zoo.v2": {"workers": 4, "batch_size": 1, "max_batch_delay_ms": 100}}
    assert TWO.identity(ServerConfig(models=defaults)) == TWO.identity(ServerConfig())
    other = {"zoo.v2": {"workers": 3}}
    assert TWO.identity(ServerConfig(models=other)) != TWO.identity(ServerConfig())


def test_identity_knows_the_default_timeout_of_another_model() -> None:
    space = build_space({"models.ape.response_timeout_s": Dimension("", 60, 240)}, cores=4)
    at_default = space.config(space.nearest_point())
    assert at_default.models == {"ape": {"response_timeout_s": 120}}
    assert space.identity(at_default) == space.identity(ServerConfig(mkl_threads=4))


def test_values_of_another_model_must_be_choices() -> None:
    assert TWO.values(ServerConfig(models={"zoo.v2": {"batch_size": 5}})) is None


def test_recommended_points_share_the_cores_among_models() -> None:
    first, *_, last = TWO.recommended_points()
    assert (first["workers"], first["models.zoo.v2.workers"]) == (2, 2)
    assert (last["workers"], last["models.zoo.v2.workers"]) == (1, 1)
    assert {point["models.zoo.v2.batch_size"] for point in TWO.recommended_points()} == {8}


def test_neighbours_and_draws_vary_other_models() -> None:
    point = TWO.recommended_points()[0]
    assert {**point, "models.zoo.v2.batch_size": 1} in TWO.neighbours(point)
    drawn = TWO.draw(np.random.default_rng(0), 50)
    assert len({each["models.zoo.v2.workers"] for each in drawn}) == 4


@pytest.mark.parametrize(
    ("entries", "point", "queue"),
    [
        pytest.param({}, {"workers": 4, "batch_size": 64}, 512, id="two batches of each worker"),
        pytest.param({}, {"workers": 1, "batch_size": 8}, None, id="TorchServe's 100 suffice"),
        pytest.param({"job_queue_size": 300}, {"workers": 4, "batch_size": 64}, 512, id="raised"),
        pytest.param({"job_queue_size": 900}, {"workers": 4, "batch_size": 64}, 900, id="kept"),
    ],
)
def test_space_sizes_the_queue_by_rule(
    entries: dict[str, int], point: dict[str, int], queue: int | None
) -> None:
    space = build_space(entries, 4, sizes_queue=True)
    assert space.config({**space.nearest_point(), **point}).job_queue_size == queue


def test_space_sizes_the_queue_for_the_model_that_needs_most() -> None:
    models = {name: Dimension("", 1, 64) for name in ("models.a.workers", "models.a.batch_size")}
    space = build_space(models, 4, sizes_queue=True)
    point = {**space.nearest_point(), "workers": 2, "batch_size": 64}
    assert space.config(point).job_queue_size == 256
    point |= {"models.a.workers": 16, "models.a.batch_size": 32}
    assert space.config(point).job_queue_size == 1024
    fixed = build_space({"models.a.batch_size": 64}, 4, sizes_queue=True)
    assert fixed.config(fixed.nearest_point()).job_queue_size == 512, "it has 4 workers by default"


def test_space_sizes_the_queue_within_what_torchserve_reads() -> None:
    space = build_space({"batch_size": Dimension("", 1, 2**30)}, 4, sizes_queue=True)
    point = {**space.nearest_point(), "workers": 4, "batch_size": 2**30}
    assert space.config(point).job_queue_size == 2**31 - 1


def test_space_leaves_the_queue_alone_without_the_rule() -> None:
    space = build_space({}, 4)
    point = {**space.nearest_point(), "workers": 4, "batch_size": 64}
    assert space.config(point).job_queue_size is None
