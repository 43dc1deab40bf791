"""Checks of a specification against a host."""

import socket
from pathlib import Path

import pytest

from search.errors import SpecError
from search.spec.loading import load_spec
from search.spec.preflight import HostFacts, preflight
from search.spec.space_building import DEFAULT_SETTINGS
from tests.specifications import write_spec


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"model": {"archive": "no.mar", "requests": "requests.jsonl"}}, "model.archive: .*no.mar does not exist"),
        ({"model": {"archive": "requests.jsonl", "requests": "requests.jsonl"}}, "model.archive: .*not a model archive"),
        ({"model": {"archive": "m" * 300, "requests": "requests.jsonl"}}, "model.archive: .* cannot be read: File name too long"),
        ({"model": {"archive": "echo.mar", "requests": "no"}}, "model.requests: .*no does not exist"),
        ({"model": {"archive": "echo.mar", "requests": "echo.mar"}}, "model.requests: requests file"),
        ({"load": {"cores": [4096]}}, "load.cores.0: this host has no core 4096"),
        ({"search": {"warm_start": "."}}, "search.warm_start: .* is not a run folder"),
        ({"serving": {"baseline": "no.properties"}}, "serving.baseline.properties: .*does not exist"),
        ({"serving": {"baseline": "bad.properties"}}, "serving.baseline: .*an integer that Java reads"),
        ({"serving": {"java": "/no/java"}}, "serving.java: no Java: /no/java does not run"),
        ({"serving": {"python": "/no/python"}}, "serving.python: no Python: the interpreter /no/python"),
        ({"serving": {"python": "/bin/true"}}, "serving.python: no Python: the interpreter /bin/true does not run: it is not a Python interpreter"),
    ],
)  # fmt: skip
def test_preflight_reports_a_problem_with_its_path(
    folder: Path, sections: dict, sentence: str
) -> None:
    (folder / "bad.properties").write_text("job_queue_size=1_000\n")
    with pytest.raises(SpecError, match=sentence) as caught:
        preflight(load_spec(write_spec(folder, **sections)))
    assert len(caught.value.problems) == 1, caught.value.problems


def test_preflight_reports_each_mistake_in_the_requests(folder: Path) -> None:
    (folder / "requests.jsonl").write_text('{"body": "a"}\n{"body": null}\n{"file": "no"}\n')
    with pytest.raises(SpecError) as caught:
        preflight(load_spec(write_spec(folder)))
    first, second = caught.value.problems
    assert first.startswith("model.requests: requests file") and "line 2: body must be" in first
    assert "line 3: file 'no' cannot be read" in second


def test_preflight_refuses_a_port_in_use(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SpecError) as caught:
            preflight(load_spec(write_spec(folder, serving={"ports": {"inference": port}})))
    (problem,) = caught.value.problems
    assert problem.startswith(f"serving.ports.inference: port {port} is in use")


def test_preflight_allows_a_fixed_space_only_on_request(folder: Path) -> None:
    spec = load_spec(write_spec(folder, space=dict.fromkeys(DEFAULT_SETTINGS, 1)))
    with pytest.raises(SpecError, match="space: no setting varies"):
        preflight(spec)
    preflight(spec, allow_fixed_space=True)


def test_host_facts_of_this_host_respect_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.spec.preflight.available_cores", lambda: 77)
    assert HostFacts.of_this_host().cores == 77
