"""The history of the noise of a host."""

import json
from pathlib import Path

import pytest

from search.confirmation.noise_history import (
    NoiseEntry,
    NoiseHistory,
    add_to_history,
    copy_history,
    history_path,
    host_key,
    read_history,
)
from search.errors import RunError
from tests.results import trial_result


def entry(run: str, variance: float = 0.0025, dof: float = 20) -> NoiseEntry:
    return NoiseEntry(run=run, variance=variance, dof=dof)


def test_history_path_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert history_path() == Path("/somewhere/servetune/noise.json")


def test_history_gives_each_host_the_prior_of_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "new" / "noise.json"
    assert read_history(path) == NoiseHistory()
    for n in range(3):
        assert add_to_history(path, "a", entry(f"run {n}")) is None
    assert add_to_history(path, "b", entry("run 9", 0.01)) is None
    history = read_history(path)
    prior, other = history.prior("a"), history.prior("b")
    assert prior is not None and other is not None and other.value > 2 * prior.value
    assert history.prior("c") is None


def test_history_keeps_one_entry_of_a_run_and_the_newest_runs(tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    add_to_history(path, "a", entry("resumed", 0.01))
    for n in range(40):
        add_to_history(path, "a", entry(f"run {n}"))
        add_to_history(path, "a", entry("resumed"))
    entries = read_history(path).hosts["a"]
    assert len(entries) == 30 and [e.run for e in entries].count("resumed") == 1


def test_copy_history_takes_only_the_hosts_of_the_run(tmp_path: Path) -> None:
    source, target = tmp_path / "noise.json", tmp_path / "run.json"
    assert copy_history(source, target, ["a"]) is None, "no history is an empty one"
    assert read_history(target) == NoiseHistory()
    add_to_history(source, "a", entry("run 1"))
    add_to_history(source, "b", entry("run 2"))
    assert copy_history(source, target, ["a"]) is None
    assert list(read_history(target).hosts) == ["a"]
    add_to_history(source, "a", entry("run 3"))
    assert len(read_history(target).hosts["a"]) == 1, "the copy does not change"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "expected an object"),
        ('{"format_version": 99}', "format_version 99"),
        ('{"hosts": {"a": [{"run": "r", "variance": -1, "dof": 3}]}}', "hosts.a.0.variance"),
        ('{"hosts": {"a": [{"run": "r", "variance": NaN, "dof": 3}]}}', "hosts.a.0.variance"),
        ('{"hosts": {"a": 3}}', "hosts.a"),
        ("\udcff", "cannot be read"),
    ],
)
def test_history_that_is_damaged_is_not_used(tmp_path: Path, text: str, message: str) -> None:
    path, copy = tmp_path / "noise.json", tmp_path / "copy.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(RunError, match=message):
        read_history(path)
    assert message in (copy_history(path, copy, ["a"]) or "")
    assert read_history(copy) == NoiseHistory()
    assert message in (add_to_history(path, "a", entry("run")) or "")
    assert path.read_text(errors="surrogateescape") == text, "it is left as it is"


def test_add_to_history_reports_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    problem = add_to_history(tmp_path / "file" / "noise.json", "a", entry("run"))
    assert problem is not None and "was not added" in problem


def test_host_key_names_host_and_processor() -> None:
    result = trial_result(facts={"host": "h", "cpu": "EPYC", "cores": 2})
    assert host_key(result) == "h, EPYC, 2 cores"
    assert json.dumps(host_key(trial_result()))
