"""Markers by folder: what is not marked otherwise is a unit test."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: Markers of tests that need more than Python, or more than a moment.
NEEDS = ("studies", "simulation", "fuzz", "processes", "ray", "torchserve")
#: By folder or file: what its tests need.
BY_PATH = {
    "browser": "torchserve",
    "cluster": "torchserve",
    "real": "torchserve",
    "real/test_fleet.py": "ray",
    "loadgen/test_client.py": "processes",
    "loadgen/test_connection.py": "processes",
    "loadgen/test_fleet.py": "processes",
    "loadgen/test_local_process.py": "processes",
    "loadgen/test_window.py": "processes",
    "loadgen/rate/test_saturate.py": "simulation",
    "loadgen/rate/test_search.py": "simulation",
    "benchmarks": "simulation",
    "benchmarks/test_loadgen.py": "processes",
    "benchmarks/test_stub.py": "processes",
    "search/measure/test_endpoint.py": "simulation",
    "search/service": "processes",
    "search/study/test_budget.py": "studies",
    "search/study/test_objectives.py": "studies",
    "search/study/test_reading.py": "studies",
    "search/sampler/test_sampler.py": "studies",
    "search/study/test_store.py": "studies",
    "search/study/test_store_probes.py": "studies",
    "search/study/test_sweep.py": "studies",
    "search/study/test_tune_adapter.py": "studies",
    "serving/test_round_trip.py": "fuzz",
    "test_fuzz.py": "processes",
    "test_fuzz_readers.py": "processes",
    "test_architecture.py": "processes",
    "servetune": "processes",
    "test_wheel.py": "processes",
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the files without unit tests if only these run: importing them takes seconds."""
    return True if config.option.markexpr == "unit" and _need(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with what it needs; a test that needs only Python is a unit test."""
    for item in items:
        if need := _need(item.path):
            item.add_marker(need)
        if hasattr(getattr(item, "obj", None), "hypothesis"):
            item.add_marker("fuzz")
        if not any(item.get_closest_marker(name) for name in (*NEEDS, "slow")):
            item.add_marker("unit")


def _need(path: Path) -> str | None:
    """Return what the tests of a file or folder need; None for Python alone."""
    if not path.is_relative_to(TESTS):
        return None
    below = path.relative_to(TESTS)
    found = (BY_PATH.get(folder.as_posix()) for folder in (below, *below.parents))
    return next(filter(None, found), None)
