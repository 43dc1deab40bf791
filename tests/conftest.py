"""Markers by folder: what is not marked otherwise is a unit test."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: Markers of tests that need more than Python.
NEEDS = ("processes", "ray", "torchserve")
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
    "benchmarks/test_loadgen.py": "processes",
    "benchmarks/test_stub.py": "processes",
    "search/service": "processes",
    "test_fuzz.py": "processes",
    "test_fuzz_readers.py": "processes",
    "test_architecture.py": "processes",
    "servetune": "processes",
    "test_wheel.py": "processes",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with what it needs; a test that needs only Python is a unit test."""
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        for prefix in sorted(BY_PATH, key=len, reverse=True):
            if path == prefix or path.startswith(f"{prefix}/"):
                item.add_marker(BY_PATH[prefix])
                break
        if not any(item.get_closest_marker(name) for name in (*NEEDS, "slow")):
            item.add_marker("unit")
