"""The outcome of a sweep, for the tests of reports."""

from pathlib import Path

import pytest

from search.study.driver import create_run
from search.study.outcome import Outcome
from search.study.reading import open_store
from tests.search.conftest import copied_outcome
from tests.sweeps import measure_sweep, sweep_spec


@pytest.fixture
def sweep_outcome(swept_files: Path, tmp_path: Path) -> Outcome:
    """Four points in three repeats; batch size 16 with a delay of 50 ms is fastest."""
    return copied_outcome(swept_files, tmp_path)


@pytest.fixture(scope="session")
def swept_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = tmp_path_factory.mktemp("swept")
    run = create_run(sweep_spec(files))
    store = open_store(run, run.spec())
    store.begin()
    measure_sweep(run, store)
    store.end("all 12 trials were run")
    return files
