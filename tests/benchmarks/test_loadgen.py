"""Tests of the comparison of load generators; the comparison itself is a benchmark."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import loadgen
from benchmarks.loadgen import (
    PYTHON_GENERATORS,
    RATES_RPS,
    TOOLS,
    Cost,
    cost_table,
    main,
    nginx,
    parse_cost,
    ratio_table,
    run_part,
)

OUTPUT = {
    "wrk": "  2 threads and 64 connections\n  136900 requests in 2.00s, 21.67MB read\n",
    "ab": "Concurrency Level:      64\nComplete requests:      28211\nFailed requests:        0\n",
    "hey": "Status code distribution:\n  [200]\t14467 responses\n",
    "locust": 'Response time percentiles\n{"requests": 5000, "cpu_s": 1.5}\n',
}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_parse_cost_reads_the_output_of_each_tool(tool: loadgen.Tool) -> None:
    costs = {
        "wrk": Cost(136900, 1.9),
        "ab": Cost(28211, 1.9),
        "hey": Cost(14467, 1.9),
        "locust": Cost(5000, 1.5),
    }
    assert parse_cost(tool, OUTPUT[tool.name], 1.9) == costs[tool.name]
    with pytest.raises(ValueError, match="reports no request: 'refused'"):
        parse_cost(tool, "refused", 1.9)


def test_cost_table_lists_the_cheapest_first() -> None:
    console = Console(width=100, record=True)
    console.print(cost_table({"dear": [50.0, 40.0, 90.0], "cheap": [99.0, 20.0, 25.0]}))
    rows = console.export_text().splitlines()
    cheap, dear = [row for row in rows if row.count(",") > 2]
    assert "cheap" in cheap and "25.0" in cheap and "40,000" in cheap
    assert "dear" in dear and "50.0" in dear and "50.0, 40.0, 90.0" in dear


def test_ratio_table_shows_ratios_of_the_same_round() -> None:
    costs = {"servetune": [20.0, 60.0, 30.0], "bare protocol, uvloop": [10.0, 20.0, 20.0]}
    late = {"p50_lateness_s": 0.0005, "p99_lateness_s": 0.002}
    figures = {
        f"{kind} {rate}": [{"us_per_request": us, "unsent": 7, "waited_for_core": 0.25, **late}]
        for kind, us in (("open", 15.0), ("bare", 12.0), ("timers", 0.0))
        for rate in RATES_RPS
    }
    console = Console(width=140, record=True)
    console.print(ratio_table(costs, figures))
    closed, *opened = [line for line in console.export_text().splitlines() if "│ " in line]
    assert [cell.strip() for cell in closed.split("│")[1:5]] == [
        "closed, 64 users", "2.00", "30.0", "20.0",
    ]  # fmt: skip
    assert len(opened) == len(RATES_RPS)
    assert [cell.strip() for cell in opened[-1].split("│")[1:-1]] == [
        "open, 10,000 rps", "1.25", "15.0", "12.0", "0.50, 2.00", "0.50, 2.00", "7", "25 %",
    ]  # fmt: skip


def test_main_names_missing_nginx(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loadgen.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(loadgen.shutil, "which", lambda *_, **__: None)
    assert main([]) == 1
    output = capsys.readouterr()
    assert output.err == "nginx is not on PATH; install it, the benchmark uses it as its server.\n"
    assert "left out: wrk, ab, hey, locust" in " ".join(output.out.split())


@pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin") is None, reason="needs nginx"
)
def test_run_part_measures_a_real_nginx(tmp_path: Path) -> None:
    core = min(loadgen.os.sched_getaffinity(0))
    with nginx(tmp_path, core) as url:
        for name in ("servetune", "aiohttp", "bare protocol, uvloop"):
            assert name in PYTHON_GENERATORS
            cost = Cost(**run_part(name, url, 0.2))
            assert cost.requests > 0
            assert 1 < cost.us_per_request < 100_000
        for name in ("open 1000", "bare 1000", "timers 1000"):
            figures = run_part(name, url, 0.2)
            assert figures["p99_lateness_s"] >= figures["p50_lateness_s"] > 0
            if name != "timers 1000":
                assert figures["unsent"] == 0
                assert 1 < figures["us_per_request"] < 100_000
        rss = run_part("rss", url, 500)
        assert rss["requests"] >= 500
        assert rss["peak_mb"] > 10
