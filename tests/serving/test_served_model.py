"""A model as TorchServe describes it."""

from __future__ import annotations

from typing import Any

import pytest

from serving.configuration.config import ServerConfig
from serving.served_model import ServedModel, is_ready, is_scaled


def description(*states: str, **changes: Any) -> dict[str, Any]:
    workers = [{"status": state, "pid": 100 + index} for index, state in enumerate(states)]
    numbers = {"minWorkers": 2, "maxWorkers": 2, "batchSize": 8, "maxBatchDelay": 50}
    return {**numbers, "responseTimeout": 120, "workers": workers, **changes}


@pytest.mark.parametrize(
    ("states", "changes", "ready"),
    [
        (["READY", "READY"], {}, True),
        (["READY"], {}, False),
        (["READY", "LOADING"], {}, False),
        ([], {}, False),
        ([], {"minWorkers": 0}, True),
    ],
)
def test_is_ready_needs_every_worker(states: list[str], changes: dict, ready: bool) -> None:
    assert is_ready(description(*states, **changes)) is ready


def test_served_model_has_settings_and_workers() -> None:
    model = ServedModel.of(description("READY", "READY"))
    assert model.settings["batch_size"] == 8 and model.settings["workers"] == 2
    assert model.worker_pids == {100, 101} and model.batch_capacity == 16


def test_served_model_may_lack_a_setting() -> None:
    described = description("READY", "READY")
    del described["responseTimeout"]
    model = ServedModel.of(described)
    assert "response_timeout_s" not in model.settings
    assert model.difference(ServerConfig(response_timeout_s=5)) is None


def test_difference_names_the_setting_that_is_overruled() -> None:
    model = ServedModel.of(description("READY", "READY"))
    assert model.difference(ServerConfig(workers=2, batch_size=8)) is None
    assert model.difference(ServerConfig()) is None
    problem = model.difference(ServerConfig(batch_size=4)) or ""
    assert problem.startswith("batch_size is 4 in the configuration, but TorchServe reports 8")


@pytest.mark.parametrize(
    ("states", "minimum", "scaled"),
    [
        (["READY"], 1, True),
        (["READY", "READY"], 1, False),
        (["READY"], 2, False),
        (["UNLOADING"], 1, False),
    ],
)
def test_is_scaled_counts_workers_and_the_configured_number(
    states: list[str], minimum: int, scaled: bool
) -> None:
    assert is_scaled(description(*states, minWorkers=minimum), 1) is scaled
