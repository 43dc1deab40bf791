"""Sweeps: their points, loads, tables; no JVM, no cluster."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from search.errors import SpecError
from search.report.plots import plots
from search.report.summary import render, write_report
from search.report.sweep_tables import tables
from search.spec.loading import load_spec, parse_spec
from search.spec.schema import StudySpec
from search.spec.sweep_loads import SweepLoad
from search.study.driver import create_run
from search.study.reading import open_store, outcome_of
from search.study.run_folder import Run
from search.study.store import StudyStore
from search.trial.load_result import LoadResult, result_of
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult, TrialState
from tests.archives import make_archive
from tests.results import trial_result
from tests.simulated import Simulated
from tests.specifications import write_spec

LOADS = [
    {"kind": "burst", "requests": 100},
    {"kind": "serial", "requests": 5},
    {"kind": "interval", "interval_ms": 20, "duration_s": 2},
    {"kind": "closed", "users": 4, "duration_s": 1},
    {"kind": "sustained"},
]


def spec_of(folder: Path, **sections: Any) -> StudySpec:
    make_archive(folder)
    (folder / "requests.jsonl").write_text('{"body": {"a": 1}}\n')
    sections = {
        "space": {"workers": 1, "batch_size": [8, 16], "max_batch_delay_ms": [50, 100]},
        "sweep": {"loads": LOADS, "repeats": 3},
        "output": {"folder": str(folder / "runs")},
        **sections,
    }
    return load_spec(write_spec(folder, **sections))


def listed(*points: dict[str, Any]) -> dict[str, Any]:
    return {"sweep": {"loads": LOADS, "points": list(points)}}


def test_a_sweep_is_every_point_as_often_as_it_is_repeated(tmp_path: Path) -> None:
    points = spec_of(tmp_path).points()
    counts = Counter(point.digest for point in points)
    assert len(counts) == 4 and set(counts.values()) == {3}
    assert points == spec_of(tmp_path).points(), "the order is the seed's"
    first = points[:4]
    assert len({point.digest for point in first}) < 4 or first != sorted(points, key=str)[:4]
    assert all(point.netty_threads is None for point in points), "what is not named is left alone"


def test_a_sweep_may_list_its_points(tmp_path: Path) -> None:
    space = {"max_batch_delay_ms": 50, "properties": {"prefer_direct_buffer": True}}
    listed = [
        {"workers": 1, "batch_size": 8, "environment": {"A": "x"}},
        {"workers": 2, "batch_size": 16, "environment": {"A": "y"}},
        {"workers": 2, "batch_size": 8, "environment": {"A": "y"}},
    ]
    spec = spec_of(tmp_path, space=space, sweep={"loads": LOADS, "points": listed, "repeats": 2})
    points = spec.points()
    told = {(p.workers, p.batch_size, p.environment["A"], p.max_batch_delay_ms) for p in points}
    assert len(points) == 6
    assert told == {(1, 8, "x", 50), (2, 16, "y", 50), (2, 8, "y", 50)}
    assert all(p.properties == {"prefer_direct_buffer": "true"} for p in points)
    again = parse_spec(spec.resolved(), tmp_path)
    assert again.points() == points, "the run's own file says the same"
    assert again.resolved() == spec.resolved()


def test_loads_carry_their_names_and_units(tmp_path: Path) -> None:
    sweep = spec_of(tmp_path).sweep
    assert sweep is not None
    assert [offered.name for offered in sweep.sweep_loads()] == [
        "100 requests at once",
        "5 requests one after another",
        "50 rps for 2 s",
        "4 users for 1 s",
        "the sustained rate",
    ]


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"sweep": {"loads": []}}, "sweep.loads: is empty"),
        ({"sweep": {"loads": [{"kind": "interval"}]}}, "needs interval_ms or rate_rps"),
        ({"sweep": {"loads": [{"kind": "burst"}]}}, "requests: is missing"),
        ({"sweep": {"loads": [{"kind": "flood"}]}}, "sweep.loads.0"),
        ({"space": {"batch_size": {"low": 1, "high": 8}}}, "give a list of choices"),
        (listed({"worker": 1}), "sweep.points.0.worker: unknown key"),
        (listed({"workers": [1, 2]}), "must be one value, not a range, a list or null"),
        (listed({"workers": None}), "must be one value, not a range, a list or null"),
        (listed({"workers": 1}, {"mkl_threads": 1}), "must name the same settings"),
        (listed({"netty_threads": 1}), "remove space.batch_size"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(
    tmp_path: Path, sections: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence):
        spec_of(tmp_path, **sections)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(spec_of(tmp_path))


def load_result(seconds: float, **more: Any) -> LoadResult:
    return LoadResult(
        "100 requests at once",
        "burst",
        scheduled=100,
        sent=100,
        answered=100,
        success_rate=1.0,
        completion_s=seconds,
        mean_latency_s=seconds / 2,
        **more,
    )


def measure_all(run: Run, study: StudyStore, most: int = 100) -> None:
    seen: Counter[str] = Counter()
    while most and (asked := study.ask()):
        most -= 1
        trial, request = asked
        assert request.origin is TrialOrigin.SWEEP and request.incumbent_rps is None
        repeat = seen[request.config.digest]
        seen[request.config.digest] += 1
        fast = request.config.batch_size == 16 and request.config.max_batch_delay_ms == 50
        told = trial_result(
            request.number,
            None,
            request.config,
            request.origin,
            state=TrialState.COMPLETE,
            loads=(load_result((2.0 if fast else 4.0) + 0.1 * repeat),),
        )
        study.tell(trial, told)
        run.append(told)


def test_a_sweep_goes_on_where_it_was_killed(run: Run) -> None:
    study = open_store(run, run.spec())
    study.begin()
    measure_all(run, study, most=5)
    study.ask()  # It was under way when its driver was killed.
    again = open_store(run, run.spec())
    again.begin()
    measure_all(run, again)
    counts = Counter(result.config.digest for result in again.results)
    assert len(counts) == 4 and set(counts.values()) == {3}
    assert again.ask() is None
    assert [TrialResult.from_dict(r.to_dict()) for r in again.results] == again.results


def test_the_report_marks_the_best_only_where_intervals_part(run: Run) -> None:
    study = open_store(run, run.spec())
    study.begin()
    measure_all(run, study)
    study.end("all 12 trials were run")
    found = outcome_of(run, run.spec(), study)
    write_report(found)
    text = (run.folder / "report.md").read_text()
    assert "Everywhere: workers=1." in text
    rows = [line for line in text.splitlines() if line.startswith("| 100 requests")]
    assert len(rows) == 4
    bold = [row.split(" | ")[1:4] for row in rows if "**" in row]
    assert bold == [["16", "50", "**2.1 (2 to 2.2)**"]]
    table = pd.read_csv(run.folder / "trials.csv")
    assert len(table) == 12 and table["completion_s"].min() == 2.0
    assert render(found)
    ((heading, heat),) = plots(found)
    assert heading == "100 requests at once: completion_s"
    assert heat.data[0].x == ("8", "16") and heat.data[0].y == ("50", "100")
    assert heat.data[0].z[0][1] == 2.1, "the best point"
    alike = [
        replace(
            r,
            loads=(
                replace(r.loads[0], completion_s=3.0 + 0.5 * (r.number % 3), mean_latency_s=1.0),
            ),
        )
        for r in found.results
    ]
    assert "**" not in tables(alike)[0].markdown()


def test_a_point_that_failed_is_no_rival_and_hides_no_doubt(run: Run) -> None:
    study = open_store(run, run.spec())
    study.begin()
    measure_all(run, study)
    results = [
        replace(r, state=TrialState.FAILED, loads=(), cause="worker died") if r.number == 0 else r
        for r in study.results
    ]
    (table,) = tables(results)
    assert any(row[-1] == "3, 1 failed" for row in table.rows)


async def test_the_figures_of_a_window_keep_the_teams_meaning() -> None:
    server = Simulated(0.08, 16)
    offered = SweepLoad("interval", rate_rps=100.0, duration_s=5.0)
    measured = await server.measure(offered.load("constant", 10.0, 0, 16))
    told = result_of(offered, replace(measured, last_answer_s=5.05), None)
    assert (told.scheduled, told.sent, told.answered) == (500, 500, 500)
    assert told.success_rate == 1 and told.requested_rps == 100
    assert told.achieved_rps == pytest.approx(500 / 5.05)
    assert result_of(offered, measured, None).completion_s is None, "nobody answered"
    assert told.max_minus_mean_s is not None and told.max_minus_mean_s >= 0


def test_a_sweep_is_not_searched_and_a_search_not_swept(tmp_path: Path) -> None:
    from search.cli.main import run_command

    spec_of(tmp_path)
    assert run_command(["tune", str(tmp_path / "study.yaml")]) == 2
    spec_of(tmp_path, sweep=None, space={})
    assert run_command(["sweep", str(tmp_path / "study.yaml")]) == 2
    assert not (tmp_path / "runs").exists()
