"""The history of the host's noise, before and after a confirmation."""

from pathlib import Path

import pytest

from search.confirmation.noise_history import history_path, host_key, read_history
from search.study.driver import _add_to_history, _copy_history
from search.study.outcome import Outcome
from search.study.reading import open_store


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_driver_adds_noise_to_history_and_copies_it(confirmed: Outcome, cache: Path) -> None:
    run, confirmation = confirmed.run, confirmed.confirmation
    assert confirmation is not None
    store = open_store(run, run.spec())
    _copy_history(run, store)
    assert run.noise_path.is_file() and read_history(run.noise_path).hosts == {}
    _add_to_history(run, store, confirmation)
    host = host_key(confirmation.rounds[0][0])
    (entry,) = read_history(history_path()).hosts[host]
    assert entry.run == run.name and entry.dof == 1
    assert entry.variance == pytest.approx(confirmation.race.estimates.own_variance.value)
    _copy_history(run, store)
    assert read_history(run.noise_path).hosts == {}, "a resumed run keeps its copy"
    assert store.notes == ()


def test_driver_notes_damaged_history(confirmed: Outcome, cache: Path) -> None:
    history_path().parent.mkdir(parents=True)
    history_path().write_text("{")
    store = open_store(confirmed.run, confirmed.run.spec())
    _copy_history(confirmed.run, store)
    (note,) = store.notes
    assert "is not used" in note and str(history_path()) in note


def test_driver_notes_each_widened_range_once(confirmed: Outcome, cache: Path) -> None:
    run, confirmation = confirmed.run, confirmed.confirmation
    assert confirmation is not None
    history_path().parent.mkdir(parents=True)
    history_path().write_text("{")
    store = open_store(run, run.spec())
    store.model.widen({"batch_size": 256})
    (edge_note,) = store.notes
    for _ in range(2):
        run.noise_path.unlink(missing_ok=True)
        store.record_notes(["about a host"])
        _copy_history(run, store)
        _add_to_history(run, store, confirmation)
        assert store.notes[0] == "about a host" and store.notes[-1] == edge_note
        assert len(store.notes) == 4, "two of them are about the damaged history"
