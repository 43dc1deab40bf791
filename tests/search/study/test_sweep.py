"""The study of a sweep."""

from collections import Counter
from pathlib import Path

from search.study.driver import create_run
from search.study.reading import open_store
from search.trial.result import TrialResult
from tests.sweeps import measure_sweep, sweep_spec


def test_store_continues_sweep_of_a_killed_driver(tmp_path: Path) -> None:
    run = create_run(sweep_spec(tmp_path))
    store = open_store(run, run.spec())
    store.begin()
    measure_sweep(run, store, limit=5)
    store.ask()  # This trial was running when its driver was killed.
    again = open_store(run, run.spec())
    again.begin()
    measure_sweep(run, again)
    counts = Counter(result.config.digest for result in again.results)
    assert len(counts) == 4 and set(counts.values()) == {3}
    assert again.ask() is None
    assert [TrialResult.from_dict(r.to_dict()) for r in again.results] == again.results
