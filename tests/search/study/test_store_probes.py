"""Probes in the store of a study: they guide the search, and are never a result."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.rate.estimate import Estimate
from search.spec.space_building import build_space
from search.study.store import StudyStore
from search.trial.objective import Objective
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.server_probe import ProbeKind, ServerProbeRecord
from serving.configuration.config import ServerConfig
from tests.results import result_for
from tests.stores import begun_store

SPACE = build_space({"job_queue_size": 1000}, cores=4)


def record(workers: int, batch_size: int, rps: float) -> ServerProbeRecord:
    estimate = Estimate(rps, 0.95 * rps, 1.05 * rps, 2.0)
    return ServerProbeRecord(ProbeKind.WORKERS, workers, batch_size, estimate)


def measure(store: StudyStore, rps: float, *probes: ServerProbeRecord) -> TrialRequest:
    trial, request = store.ask(may_probe=True) or pytest.fail("the store proposes no trial")
    result = result_for(request, rps, capacity_rps=1.05 * rps, server_probes=probes)
    store.tell(trial, result)
    return request


def propose(store: StudyStore, workers: int) -> None:
    """Let the store propose batches of 8 on this number of workers next."""
    values = {**SPACE.nearest_point(), "workers": workers, "batch_size": 8, "mkl_threads": 2}
    store._queue.enqueue(TrialOrigin.GUIDE, SPACE.config(values), SPACE)


def test_store_plans_probes_once_the_starting_points_were_measured(tmp_path: Path) -> None:
    store = begun_store(tmp_path, SPACE)
    while store._queue.is_waiting:
        request = measure(store, 10.0)
    # The last starting point has one worker.
    assert not any(result.server_probes for result in store.results) and not request.server_probes
    propose(store, 4)
    request = measure(store, 10.0)
    assert [(p.workers, p.batch_size) for p in request.server_probes] == [(2, 8), (1, 8)]


def test_store_plans_no_probes_if_it_may_not_or_if_a_latency_counts(tmp_path: Path) -> None:
    store = begun_store(tmp_path, SPACE)
    limited = begun_store(tmp_path, SPACE, file="limited.db", objective=Objective(p99_s=0.5))
    for each in (store, limited):
        while each._queue.is_waiting:
            measure(each, 10.0)
        propose(each, 4)
    _, request = store.ask() or pytest.fail("the store proposes no trial")
    assert not request.server_probes and not measure(limited, 10.0).server_probes


def test_store_keeps_probes_apart_from_results(tmp_path: Path) -> None:
    """A probe that looks best is tried in a separate server; until then it is no result."""
    store = begun_store(tmp_path, SPACE)
    first = measure(store, 10.0, record(2, 1, 900.0))
    for rps in (30.0, 20.0, 25.0, 15.0):
        measure(store, rps)
    assert len(store.results) == 5
    best = store.best
    assert best is not None and best.sustained_rps == 30.0 and store.incumbent_rps == 30.0
    probed = SPACE.config({**SPACE.values(first.config), "workers": 2})  # type: ignore[dict-item]
    assert probed.digest not in {config.digest for config in store.model.nominees(10)}
    following = measure(store, 500.0)
    assert following.origin is TrialOrigin.SAMPLED
    # It predicts what was probed, with its noise.
    (predicted,) = store.model.predict([probed])
    assert predicted is not None and predicted.median_rps is not None
    assert predicted.median_rps > 100.0


def test_store_notes_probes_that_fresh_servers_contradict(tmp_path: Path) -> None:
    store = begun_store(tmp_path, SPACE)
    first = measure(store, 10.0, record(2, 1, 100.0))
    assert store.notes == ()
    values = SPACE.values(first.config)
    assert values is not None
    config = SPACE.config({**values, "workers": 2})
    store._queue.enqueue(TrialOrigin.GUIDE, config, SPACE)
    requests = [measure(store, 20.0) for _ in range(5)]
    assert config.digest in {request.config.digest for request in requests}
    (note,) = [note for note in store.notes if "probes" in note]
    assert note.startswith("probes of fewer workers are no longer used: they showed 4.76 times")


def test_store_restores_probes_from_the_records_of_a_run(tmp_path: Path) -> None:
    store = begun_store(tmp_path, SPACE)
    measure(store, 10.0, record(2, 1, 15.0))
    restored = begun_store(tmp_path, SPACE, file="other.db")
    restored.restore(store.results)
    assert restored.results[0].server_probes == store.results[0].server_probes
    assert restored.model.predict([ServerConfig()])[0] is not None
