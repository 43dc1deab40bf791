"""The files of a run's folder, and a driver that is killed while it writes them."""

import contextlib
import errno
import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from search.atomic_files import write_atomically
from search.errors import RunError
from search.formats import SPEC_VERSION
from search.report.summary import write_report
from search.spec.space_building import build_space
from search.study.outcome import Outcome
from search.study.run_folder import ResultReader, Run
from search.study.tune_adapter import StudySearcher
from search.trial.request import TrialOrigin, TrialRequest
from tests.results import WINDOW, result_for, trial_result
from tests.stores import open_store

TRIALS, KILLS = 14, 10
#: A window whose p99 and server are not known.
UNKNOWN = {**WINDOW, "latency_s": {"p50": 0.1, "p99": None}, "server": None}
#: Forks of one process that has imported everything.
PROCESSES = multiprocessing.get_context("forkserver")


def drive(folder: Path, opened: Event, recorded: Connection) -> None:
    """Write a run's files as a real driver does; a trial takes 50 ms."""
    run = Run(folder)
    store = open_store(folder, build_space({}, 2))
    opened.set()
    store.begin()
    run.rebuild(store.results)
    searcher = StudySearcher(
        store, lambda running: len(store.results) < TRIALS, print, run.append, str
    )
    while isinstance(config := searcher.suggest("x"), dict):
        request = TrialRequest.from_dict(config)
        time.sleep(0.05)
        result = result_for(request, 10.0 * (request.config.workers or 1))
        searcher.on_trial_complete("x", {"record": json.dumps(result.to_dict())})
        recorded.send(request.number)


def received(pipe: Connection) -> Iterator[int]:
    """Yield what was sent before the other end was closed."""
    with contextlib.suppress(EOFError):
        while True:
            yield pipe.recv()


@pytest.mark.processes
@pytest.mark.timeout(1200)
def test_run_loses_no_result_if_driver_is_killed(tmp_path: Path) -> None:
    PROCESSES.set_forkserver_preload([__name__])
    chance, recorded = random.Random(0), set()
    for kill in range(KILLS + 1):
        opened, (receiver, sender) = PROCESSES.Event(), PROCESSES.Pipe(duplex=False)
        driver = PROCESSES.Process(target=drive, args=(tmp_path, opened, sender))
        driver.start()
        sender.close()
        assert opened.wait(120)
        if kill < KILLS:
            time.sleep(chance.uniform(0, 0.5))
            driver.kill()
        recorded |= set(received(receiver))
        driver.join()
    assert driver.exitcode == 0
    store = open_store(tmp_path, build_space({}, 2))
    results = store.results
    assert len(results) == TRIALS
    assert [r.to_dict() for r in Run(tmp_path).results()] == [r.to_dict() for r in results]
    assert {r.number for r in results} >= recorded
    assert len({r.number for r in results}) == TRIALS
    digests = [r.config.digest for r in results if r.origin is not TrialOrigin.INCUMBENT]
    assert len(set(digests)) == len(digests), "nothing is measured twice"
    assert [r.origin for r in results].count(TrialOrigin.DEFAULT) == 1
    assert [r.origin for r in results].count(TrialOrigin.GUIDE) == 4
    states = [t.state.name for t in store._study.get_trials()]
    assert "RUNNING" not in states and "WAITING" not in states


def test_result_reader_reads_file_as_it_grows(tmp_path: Path) -> None:
    run = Run(tmp_path)
    first, second, third = (trial_result(number, 1.0) for number in range(3))
    reader = ResultReader(run)
    assert reader.read() == []
    run.append(second)
    run.append(first)
    assert reader.read() == [first, second]
    path = tmp_path / "trials.jsonl"
    run.append(third)
    text = path.read_text()
    path.write_text(text[:-5])
    assert reader.read() == [first, second], "an incomplete last line does not count"
    path.write_text(text)
    assert reader.read() == [first, second, third] == run.results()
    run.rebuild([first])
    assert reader.read() == [first], "a replaced file is read from its start"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("- 1\n", id="a list"),
        pytest.param("a: [", id="no YAML"),
        pytest.param("\0", id="binary"),
    ],
)
def test_run_spec_refuses_damaged_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(RunError, match=r"spec\.yaml"):
        Run.open(tmp_path).spec()


def test_run_rebuild_replaces_damaged_file_by_equal_results(outcome: Outcome) -> None:
    assert outcome.run.results() == outcome.results
    (outcome.run.folder / "trials.jsonl").write_text("half a li")
    outcome.run.rebuild(outcome.results)
    assert outcome.run.results() == outcome.results


def test_run_open_refuses_folder_of_job(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").touch()
    (tmp_path / "job.json").touch()
    with pytest.raises(RunError, match="is a job folder"):
        Run.open(tmp_path)


def test_run_windows_refuses_measurements_of_other_version(outcome: Outcome) -> None:
    folder = outcome.run.trial_folder(3)
    folder.mkdir(parents=True)
    path = folder / "measurements.json"
    path.write_text(json.dumps({"format_version": 6, "windows": [UNKNOWN], "probes": []}))
    assert outcome.run.windows(3) == [UNKNOWN] and outcome.run.probes(3) == []
    path.write_text('{"windows": [], "probes": []}')
    with pytest.raises(RunError, match=r"measurements.json has format_version 1, .* reads 6"):
        outcome.run.windows(3)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param('{"format_version": 6, "windows": [{"sch', id="cut off"),
        pytest.param("[]", id="a list"),
        pytest.param("[" * 100_000, id="nested"),
        pytest.param("\xff", id="binary"),
        pytest.param('{"format_version": 6}', id="no windows"),
        pytest.param('{"format_version": 6, "windows": [{}]}', id="an empty window"),
        pytest.param('{"format_version": 6, "windows": {}, "probes": {}}', id="no lists"),
    ],
)
def test_run_without_readable_windows_is_reported(outcome: Outcome, text: str) -> None:
    assert outcome.best is not None
    folder = outcome.run.trial_folder(outcome.best.number)
    folder.mkdir(parents=True)
    (folder / "measurements.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(
        RunError, match=r"^\S+/measurements\.json is damaged \(.+\); restore"
    ) as caught:
        outcome.run.windows(outcome.best.number)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="is damaged"):
        outcome.run.dataframe("windows")
    write_report(outcome)
    assert (outcome.run.folder / "report.html").is_file()


def test_read_outcome_leaves_out_a_confirmation_that_is_no_result(outcome: Outcome) -> None:
    folder = outcome.run.folder / "confirm" / "plan" / "0-1"
    folder.mkdir(parents=True)
    for result in ([1], {"number": 1, "config": []}, None):
        data = {"format_version": 6, "result": result}
        (folder / "measurements.json").write_text(json.dumps(data))
        assert list(outcome.run.confirmation_visits()) == []


def test_write_atomically_keeps_the_old_file_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_atomically(path, "ä")
    write_atomically(path, path.read_bytes() + b"\xff")
    assert path.read_bytes() == "ä".encode() + b"\xff"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "b")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == "ä".encode() + b"\xff"


def test_run_results_recovers_a_trial_that_follows_a_partial_line(tmp_path: Path) -> None:
    run, path = Run(tmp_path), tmp_path / "trials.jsonl"
    first, second = trial_result(0, 1.0), trial_result(1, 2.0)
    run.append(first)
    line = path.read_bytes()
    # As a full disk left it, and an earlier version continued it.
    path.write_bytes(line + line[: len(line) // 2])
    text = path.read_bytes()
    run.append(second)
    assert run.results() == [first, second]
    path.write_bytes(text + path.read_bytes()[len(line) :])
    assert run.results() == [first, second]


def test_run_around_a_folder_is_the_run_that_it_is_in(tmp_path: Path) -> None:
    files = tmp_path / "best"
    files.mkdir()
    assert Run.around(files) is None
    (tmp_path / "spec.yaml").write_text("name: a\n")
    assert Run.around(files) is None, "a study is no run"
    (tmp_path / "trials.jsonl").write_text("")
    assert Run.around(files) == Run(tmp_path.resolve())
    (tmp_path / "link").symlink_to(files)
    assert Run.around(tmp_path / "link") == Run(tmp_path.resolve())


def test_run_argument_is_what_a_command_understands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "runs" / "my run")
    assert run.argument == f"'{tmp_path}/runs/my run'"
    monkeypatch.chdir(tmp_path)
    assert run.argument == "'runs/my run'"
    assert Run(Path("runs/a")).argument == "runs/a"


@pytest.mark.parametrize("section", ["confirm: 5", "search: [x]", "goal: text"])
def test_run_specified_refuses_a_section_that_is_no_mapping(tmp_path: Path, section: str) -> None:
    (tmp_path / "spec.yaml").write_text(f"format_version: {SPEC_VERSION}\n{section}\n")
    name = section.partition(":")[0]
    with pytest.raises(RunError, match=f"spec.yaml is damaged: {name} is not a mapping"):
        Run(tmp_path).specified()
    (tmp_path / "spec.yaml").write_text(f"format_version: {SPEC_VERSION}\nconfirm: null\n")
    assert Run(tmp_path).specified()["confirm"] is None
