"""The outcome of a sweep, for the tests of reports."""

from pathlib import Path

import pytest

from search.study.driver import create_run
from search.study.outcome import Outcome
from search.study.reading import open_store, outcome_of
from tests.sweeps import measure_sweep, sweep_spec


@pytest.fixture
def sweep_outcome(tmp_path: Path) -> Outcome:
    """Four points in three repeats; batch size 16 with a delay of 50 ms is fastest."""
    run = create_run(sweep_spec(tmp_path))
    store = open_store(run, run.spec())
    store.begin()
    measure_sweep(run, store)
    store.end("all 12 trials were run")
    return outcome_of(run, run.spec(), store)
