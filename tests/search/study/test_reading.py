"""The outcome of a run, read from its folder: from a copy, and without its study."""

import json
import shutil
from pathlib import Path

import optuna
import pytest
import yaml

from search.confirmation.noise_history import NoiseEntry, NoiseHistory, host_key, write_history
from search.confirmation.plan import VERIFICATION, Plan
from search.confirmation.summary import confirmation_summary
from search.errors import RunError
from search.formats import MEASUREMENTS_VERSION
from search.spec.loading import load_spec
from search.study.driver import create_run
from search.study.outcome import Outcome
from search.study.reading import open_store, read_outcome
from search.study.run_folder import Run
from search.trial.request import TrialOrigin
from search.trial.result import TrialResult
from tests.results import result_for, trial_result, visit_for
from tests.specifications import make_model_files, write_spec

END = "all 5 trials were run"
NAMES = ["renamed", "run (copy)", "a?b", "a#b", "a%41", "a {x}", "a[b]", "é"]


def files_in(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Return the time of change and the content of every file."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


def forget_name(run: Run) -> None:
    """Make a run one of an earlier version, which did not record its name."""
    path = run.folder / "spec.yaml"
    data = yaml.safe_load(path.read_text())
    data["recorded"].pop("name", None)
    path.write_text(yaml.safe_dump(data))


def copy_of(run: Run, name: str) -> Run:
    """Copy a run, and delete the original."""
    folder = run.folder.with_name(name)
    shutil.copytree(run.folder, folder)
    shutil.rmtree(run.folder)
    return Run.open(folder)


def studies_of(run: Run) -> list[str]:
    return optuna.get_all_study_names(f"sqlite:///{run.folder / 'study.db'}")


def plan_of(outcome: Outcome) -> Plan:
    assert outcome.reference is not None
    return Plan.of(outcome.results, outcome.reference, 3)


def measure_confirmation(outcome: Outcome) -> None:
    """Record two rounds and a verification in the study and as files, as the driver does."""
    outcome.run.extend(rounds=2)
    store, plan = open_store(outcome.run, outcome.run.spec()), plan_of(outcome)

    def record(stage: str, result: TrialResult) -> None:
        store.record_visit(plan.name, stage, result)
        folder = outcome.run.folder / "confirm" / plan.name / f"{stage}-{result.number}"
        folder.mkdir(parents=True)
        data = {"format_version": MEASUREMENTS_VERSION, "result": result.to_dict()}
        (folder / "measurements.json").write_text(json.dumps(data))

    for number in range(2):
        for request in plan.requests:
            record(str(number), visit_for(request, 200.0 + number))
    record(VERIFICATION, result_for(plan.requests[1], 190.0, capacity_rps=200.0, p99_s=0.2))


@pytest.mark.parametrize("is_old", [False, True], ids=["named", "old"])
@pytest.mark.parametrize("name", NAMES)
def test_read_outcome_finds_trials_of_renamed_run(
    outcome: Outcome, name: str, is_old: bool
) -> None:
    if is_old:
        forget_name(outcome.run)
    before = read_outcome(outcome.run)
    after = read_outcome(copy_of(outcome.run, name))
    assert after.results == before.results == outcome.results
    assert after.reason == END and not after.restored
    assert after.chosen == before.chosen and after.importance == before.importance


@pytest.mark.parametrize("is_old", [False, True], ids=["named", "old"])
@pytest.mark.parametrize("name", NAMES)
def test_open_store_continues_trials_of_renamed_run(
    outcome: Outcome, name: str, is_old: bool
) -> None:
    if is_old:
        forget_name(outcome.run)
    studies = studies_of(outcome.run)
    run = copy_of(outcome.run, name)
    store = open_store(run, run.spec())
    assert store.results == outcome.results
    store.begin()
    _, request = store.ask() or pytest.fail("the study proposes no trial")
    assert request.number == len(outcome.results)
    assert studies_of(Run(run.folder.rename(run.folder.with_name("plain")))) == studies


def test_open_store_prefers_study_with_trials(outcome: Outcome) -> None:
    # An earlier version added an empty study when it read a copy.
    forget_name(outcome.run)
    run = copy_of(outcome.run, "renamed")
    optuna.create_study(storage=f"sqlite:///{run.folder / 'study.db'}", study_name="renamed")
    assert read_outcome(run).results == open_store(run, run.spec()).results == outcome.results


@pytest.mark.parametrize("study", ["intact", "missing", "damaged", "empty", "none began"])
def test_read_outcome_writes_nothing(outcome: Outcome, study: str) -> None:
    run, path = outcome.run, outcome.run.folder / "study.db"
    if study == "damaged":
        path.write_bytes(b"no database" * 100)
    elif study == "empty":
        path.write_bytes(b"")
    elif study != "intact":
        path.unlink()
    if study == "none began":
        (run.folder / "trials.jsonl").unlink()
    before = files_in(run.folder)
    read = read_outcome(run)
    assert files_in(run.folder) == before
    assert read.results == ([] if study == "none began" else outcome.results)
    assert read.restored is (study not in ("intact", "none began"))
    assert read.reason == (END if study == "intact" else None)


def test_read_outcome_restores_confirmation_without_study(outcome: Outcome) -> None:
    measure_confirmation(outcome)
    before = read_outcome(outcome.run)
    assert before.confirmation is not None and before.confirmation.race.rounds == 2
    (outcome.run.folder / "study.db").unlink()
    after = read_outcome(outcome.run)
    assert after.confirmation is not None and after.chosen == before.chosen
    assert confirmation_summary(after.confirmation) == confirmation_summary(before.confirmation)
    assert after.best == before.best and after.reference == before.reference


def test_read_outcome_leaves_out_damaged_measurement(outcome: Outcome) -> None:
    measure_confirmation(outcome)
    (outcome.run.folder / "study.db").unlink()
    paths = sorted(outcome.run.folder.glob("confirm/*/1-*/measurements.json"))
    paths[0].write_text('{"format_version": 2, "resu')
    confirmation = read_outcome(outcome.run).confirmation
    assert confirmation is not None and confirmation.race.rounds == 1


def test_read_outcome_uses_the_runs_copy_of_the_hosts_noise(outcome: Outcome) -> None:
    measure_confirmation(outcome)
    before = read_outcome(outcome.run).confirmation
    assert before is not None
    host = host_key(before.rounds[0][0])
    history = NoiseHistory().with_entry(host, NoiseEntry(run="earlier", variance=0.01, dof=30))
    write_history(outcome.run.noise_path, history)
    confirmation = read_outcome(outcome.run).confirmation
    assert confirmation is not None and confirmation.prior == history.prior(host)
    outcome.run.noise_path.write_text("{")
    confirmation = read_outcome(outcome.run).confirmation
    assert confirmation is not None and confirmation.prior is None, "a damaged copy is not used"


def test_read_outcome_adds_trials_that_study_lacks(outcome: Outcome) -> None:
    result = trial_result(7, 99.0)
    outcome.run.append(result)
    assert read_outcome(outcome.run).results == [*outcome.results, result]


def test_read_outcome_names_damaged_line(outcome: Outcome) -> None:
    path = outcome.run.folder / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "half a li\n", *lines[1:]]))
    with pytest.raises(RunError, match=r"trials\.jsonl: line 2 is damaged"):
        read_outcome(outcome.run)


@pytest.mark.parametrize("has_study", [True, False])
def test_read_outcome_needs_no_file_of_model(tmp_path: Path, has_study: bool) -> None:
    make_model_files(tmp_path)
    baseline = tmp_path / "config.properties"
    baseline.write_text("job_queue_size=50\n")
    sections = {"serving": {"baseline": baseline.name}, "output": {"folder": str(tmp_path / "r")}}
    run = create_run(load_spec(write_spec(tmp_path, **sections)))
    store = open_store(run, run.spec())
    store.begin()
    for _ in range(2):
        trial, request = store.ask() or pytest.fail("the study proposes no trial")
        result = result_for(request, 9.0, p99_s=0.1)
        store.tell(trial, result)
        run.append(result)
    for path in (baseline, tmp_path / "echo.mar", tmp_path / "requests.jsonl"):
        path.unlink()
    if not has_study:
        (run.folder / "study.db").unlink()
    reference = read_outcome(run).reference
    assert reference is not None and reference.origin is TrialOrigin.BASELINE


def test_read_outcome_finds_study_in_other_storage_by_recorded_name(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    make_model_files(tmp_path)
    output = {"folder": str(tmp_path / "runs"), "storage": f"sqlite:///{database}"}
    spec = load_spec(write_spec(tmp_path, output=output))
    for reason in ("first", "second"):
        run = create_run(spec)
        store = open_store(run, run.spec())
        store.end(reason)
    run = copy_of(run, "renamed")
    assert read_outcome(run).reason == "second"
    assert len(optuna.get_all_study_names(output["storage"])) == 2
    database.unlink()
    assert read_outcome(run).reason is None and not database.exists()
