"""A short run for a given rate, with a real TorchServe and a light handler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.conftest import servetune
from tests.real.test_study import report, run_folder, trials


@pytest.mark.slow
def test_tune_finds_the_lowest_latency_at_a_rate(study: Callable[..., Path]) -> None:
    path = study(goal={"objective": "latency", "for_rps": 8.0})
    process = servetune("tune", path, "--plain")
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    folder = run_folder(path)
    served = {
        t["number"]: t["latency"]["target"]["p99_s"]
        for t in trials(folder)
        if (t["latency"]["target"] or {}).get("is_served") and t["rate"]["sustained_rps"]
    }
    best = report(folder)["best"]
    assert best["latency"]["target"]["p99_s"] == min(served.values())
    assert best["rate"]["sustained_rps"] >= 8
    assert "the lowest p99 latency at 8 rps" in output
