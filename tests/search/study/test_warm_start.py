"""What an earlier run teaches a new one."""

from __future__ import annotations

from pathlib import Path

from search.spec.loading import load_spec
from search.spec.schema import StudySpec
from search.study.run_folder import Run
from search.study.warm_start import earlier_results, warm_points
from serving.configuration.config import ServerConfig
from tests.results import trial_result
from tests.specifications import make_model_files, write_spec


def replace_warm_start(spec: StudySpec, run: Run) -> StudySpec:
    return spec.model_copy(
        update={"search": spec.search.model_copy(update={"warm_start": run.folder})}
    )


def earlier_run(folder: Path) -> Run:
    run = Run(folder / "earlier")
    run.folder.mkdir()
    (run.folder / "spec.yaml").touch()
    for result in (
        trial_result(0, 5.0, facts={"cores": 2}, settings={"batch_size": 1}, peak_memory_mb=800),
        trial_result(1, 90.0, ServerConfig(workers=4, batch_size=8), peak_memory_mb=900),
        trial_result(2, 300.0, ServerConfig(workers=9, batch_size=32), peak_memory_mb=3000),
    ):
        run.append(result)
    return run


def test_earlier_results_have_the_defaults_of_their_own_host(tmp_path: Path) -> None:
    make_model_files(tmp_path)
    spec = load_spec(write_spec(tmp_path))
    run = earlier_run(tmp_path)
    warm = replace_warm_start(spec, run)
    default, explicit, _ = [result.config for result in earlier_results(warm)]
    assert (default.workers, default.netty_threads, default.batch_size) == (2, 4, 1)
    assert (explicit.workers, explicit.netty_threads) == (4, None), "its cores are not known"
    assert earlier_results(spec) == []


def test_warm_points_are_the_best_by_the_objective(tmp_path: Path) -> None:
    make_model_files(tmp_path)
    run = earlier_run(tmp_path)
    rates = load_spec(write_spec(tmp_path))
    assert warm_points(replace_warm_start(rates, run))[0].workers == 9
    small = load_spec(write_spec(tmp_path, goal={"limits": {"memory_mb": 1000}}))
    assert warm_points(replace_warm_start(small, run))[0].workers == 4
    none = load_spec(write_spec(tmp_path, goal={"limits": {"memory_mb": 100}}))
    assert warm_points(replace_warm_start(none, run))[0].workers == 9
