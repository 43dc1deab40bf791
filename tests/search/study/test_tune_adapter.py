"""Tune's searcher: its calls to the store, without Ray."""

import json
import warnings
from pathlib import Path
from typing import Any

from search.study.tune_adapter import StudySearcher
from search.trial.request import TrialOrigin, TrialRequest
from serving.configuration.config import ServerConfig
from tests.results import result_for
from tests.stores import begun_store, measure


def test_searcher_records_result_before_it_reports_it(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    calls: list[Any] = []
    may_start = iter([True, True, True, False])
    searcher = StudySearcher(
        store,
        lambda running: next(may_start),
        lambda request: calls.append(("started", request.number)),
        lambda result: calls.append(("finished", result.number, len(store.results))),
        str,
    )
    config = searcher.suggest("a")
    record = result_for(TrialRequest(0, TrialOrigin.DEFAULT, ServerConfig()), 5.0).to_dict()
    searcher.on_trial_complete("a", {"record": json.dumps(record)})
    assert config["number"] == 0 and config["folder"] == "0"
    searcher.suggest("b")
    searcher.on_trial_complete("b", None, error=True)
    searcher.suggest("c")
    searcher.on_trial_complete("c", {"phase": "warm-up"})
    assert calls == [
        ("started", 0),
        ("finished", 0, 1),
        ("started", 1),
        ("finished", 1, 2),
        ("started", 2),
    ]
    assert store.results[1].host_fault
    assert searcher.suggest("d") == "FINISHED"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "RUNNING" not in {t.state.name for t in store._study.get_trials()}


def test_searcher_asks_for_probes_if_there_is_time_for_them(tmp_path: Path) -> None:
    store, has_time = begun_store(tmp_path), iter([True, False])
    while store._queue.is_waiting:  # Nothing is probed before the starting points were measured.
        measure(store, 10.0)
    searcher = StudySearcher(
        store,
        lambda running: True,
        lambda request: None,
        lambda result: None,
        str,
        lambda running: next(has_time),
    )
    store._queue.enqueue(TrialOrigin.GUIDE, ServerConfig(workers=4, batch_size=8), store.space)
    with_probes = TrialRequest.from_dict(searcher.suggest("a"))
    assert [(p.workers, p.batch_size) for p in with_probes.server_probes] == [(2, 8), (1, 8)]
    store._queue.enqueue(TrialOrigin.GUIDE, ServerConfig(workers=4, batch_size=16), store.space)
    assert not TrialRequest.from_dict(searcher.suggest("b")).server_probes


def test_searcher_keeps_storage_error_and_finishes(tmp_path: Path) -> None:
    store = begun_store(tmp_path)

    def full_disk(result: object) -> None:
        raise OSError("No space left on device")

    searcher = StudySearcher(store, lambda running: True, lambda request: None, full_disk, str)
    searcher.suggest("a")
    searcher.on_trial_complete("a", None, error=True)
    assert str(searcher.error) == "No space left on device"
    assert searcher.suggest("b") == "FINISHED"


def test_searcher_never_proposes_same_configuration_to_concurrent_trials(tmp_path: Path) -> None:
    store = begun_store(tmp_path)
    started: list[TrialRequest] = []
    searcher = StudySearcher(
        store,
        lambda running: len(store.results) + running < 14,
        started.append,
        lambda result: None,
        str,
    )
    running = ["a", "b", "c", "d"]
    for name in running:
        assert isinstance(searcher.suggest(name), dict)
    for number in range(10):
        name, request = running.pop(0), started[number]
        rate = 10.0 * (request.config.workers or 1) * (request.config.batch_size or 1) ** 0.5
        record = result_for(request, rate).to_dict()
        searcher.on_trial_complete(name, {"record": json.dumps(record)})
        running.append(f"{name}+")
        assert isinstance(searcher.suggest(running[-1]), dict)
    assert searcher.suggest("none") is None, "a running trial may have to be repeated"
    digests = [
        request.config.digest for request in started if request.origin is not TrialOrigin.INCUMBENT
    ]
    assert len(set(digests)) == len(digests) and len(started) == 14
    assert [request.origin for request in started].count(TrialOrigin.INCUMBENT) <= 1
