"""Study stores for tests, and helpers to fill them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from search.spec.space import Space
from search.spec.space_building import build_space
from search.study.store import StudyStore
from search.trial.request import TrialRequest
from tests.results import result_for

SPACE = build_space({"job_queue_size": 1000}, cores=2)


def open_store(
    folder: Path, space: Space = SPACE, file: str = "study.db", **options: Any
) -> StudyStore:
    """Open a store in a file of this folder; create it if there is none."""
    return StudyStore(space, f"sqlite:///{folder / file}", "test", **options)


def begun_store(
    folder: Path, space: Space = SPACE, file: str = "study.db", **options: Any
) -> StudyStore:
    """Open a store as the driver of a run does."""
    store = open_store(folder, space, file, **options)
    store.begin()
    return store


def ask(store: StudyStore) -> tuple[optuna.trial.Trial, TrialRequest]:
    """Ask for the next trial; fail the test if there is none."""
    return store.ask() or pytest.fail("the store proposes no trial")


def measure(store: StudyStore, sustained_rps: float | None = None, **figures: Any) -> TrialRequest:
    """Ask for a trial, record its result, and return its request; see `trial_result`."""
    trial, request = ask(store)
    store.tell(trial, result_for(request, sustained_rps, **figures))
    return request
