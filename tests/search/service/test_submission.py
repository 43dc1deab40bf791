"""Checks of submitted specifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.errors import SpecError
from search.service.submission import accept, parse
from tests.archives import make_archive


def test_accept_lists_other_problems_beside_misplaced_paths(
    spec: dict[str, Any], root: Path
) -> None:
    invalid = {
        **spec,
        "model": {**spec["model"], "archive": "/etc/passwd"},
        "serving": {"python": "/usr/bin/python3"},
        "search": {"trials": 0},
        "serch": {},
    }
    with pytest.raises(SpecError) as caught:
        accept(invalid, {}, [root])
    problems = sorted(caught.value.problems)
    starts = (
        "model.archive: '/etc/passwd' is outside the folders",
        "search.trials: ",
        "serch: ",
        "serving.python: is set by the service; remove it",
    )
    assert len(problems) == 4, problems
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(start)


@pytest.mark.parametrize(
    ("section", "path", "message"),
    [
        (
            {"model": {"archive": "../secret.mar", "requests": "requests.jsonl"}},
            "model.archive",
            "is outside the folders",
        ),
        (
            {"model": {"archive": "/etc/passwd", "requests": "requests.jsonl"}},
            "model.archive",
            "is outside the folders",
        ),
        (
            {"model": {"archive": "echo.mar", "requests": "link.jsonl"}},
            "model.requests",
            "is outside the folders",
        ),
        (
            {"model": {"archive": "echo.mar", "requests": "stray.jsonl"}},
            "model.requests",
            "line 1: '../secret.mar' is outside the folders",
        ),
        ({"serving": {"python": "/bin/sh"}}, "serving.python", "is set by the service"),
        ({"serving": {"baseline": "../a"}}, "serving.baseline", "is outside the folders"),
        ({"output": {"folder": "/tmp/x"}}, "output.folder", "is set by the service"),
        ({"output": {"storage": "sqlite:///x"}}, "output.storage", "is set by the service"),
        (
            {"serving": {"baseline": {"properties": "../a"}}},
            "serving.baseline.properties",
            "is outside the folders",
        ),
        (
            {"serving": {"models": {"zoo.1": "../secret.mar"}}},
            "serving.models.zoo.1",
            "is outside the folders",
        ),
        (
            {"serving": {"baseline": "stray.properties"}},
            "serving.models.secret",
            "serves secret from secret.mar, which is not in",
        ),
        (
            {"load": {"mix": {"echo": 1, "zoo": 1}, "requests": {"zoo": "/etc/hostname"}}},
            "load.requests.zoo",
            "is outside the folders",
        ),
        (
            {"load": {"background": [{"model": "z", "rate_rps": 1, "requests": "../a"}]}},
            "load.background.0.requests",
            "is outside the folders",
        ),
        (
            {"load": {"background": [{"model": "z", "rate_rps": 1, "requests": "stray.jsonl"}]}},
            "load.background.0.requests",
            "line 1: '../secret.mar' is outside the folders",
        ),
        ({"search": {"warm_start": "/"}}, "search.warm_start", "is outside the folders"),
    ],
)
def test_accept_refuses_paths_outside_the_roots(
    spec: dict[str, Any], root: Path, section: dict[str, Any], path: str, message: str
) -> None:
    make_archive(root.parent, name="secret")
    (root / "stray.properties").write_text("model_store=..\nload_models=echo.mar,secret.mar\n")
    (root / "link.jsonl").symlink_to("/etc/hostname")
    (root / "stray.jsonl").write_text('{"file": "../secret.mar"}\n')
    with pytest.raises(SpecError) as caught:
        accept({**spec, **section}, {}, [root])
    first = caught.value.records[0]
    assert first.path == path and message in first.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"body": " "}\n{"file": "../secret.mar"}', 2),
        ('{"body": "a"}\n{"multipart": [{"name": "a", "file": "../secret.mar"}]}', 2),
        ('[\n{"body": "a"},\n{"file": "/etc/hostname"}]', 3),
        ('{"file": "../missing.bin"}', 1),
        ('{"file": "../secret.mar", "path": "http://no/x"}', 1),
        ('{"file": "../secret.mar"}\n{"body": ', 1),
    ],
)
@pytest.mark.parametrize("is_uploaded", [True, False])
def test_accept_refuses_files_outside_the_roots_in_every_form(
    spec: dict[str, Any], root: Path, text: str, line: int, is_uploaded: bool
) -> None:
    (root.parent / "secret.mar").write_text("")
    requests = root / "requests.jsonl"
    requests.write_text(text)
    with pytest.raises(SpecError) as caught:
        accept(spec, {"requests": requests} if is_uploaded else {}, [root])
    (problem,) = caught.value.problems
    assert problem.startswith(f"model.requests: line {line}: ")
    assert problem.endswith("is outside the folders that the service may read")


def test_accept_reports_requests_that_cannot_be_read(spec: dict[str, Any], root: Path) -> None:
    (root / "requests.jsonl").write_bytes(b'{"body": "a"}\n{"body": "\xe9"}')
    with pytest.raises(SpecError, match="line 2: byte 0xe9 is not UTF-8"):
        accept(spec, {}, [root])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"- 1", "must be a mapping"),
        (b"a: [", "neither YAML nor JSON"),
        (b"\x00", "neither YAML nor JSON"),
        (b"model: &m {}\nother: *m", "aliases .* are not allowed"),
    ],
)
def test_parse_refuses_invalid_text(text: bytes, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        parse(text)
