"""Tests of refusing deployments that cannot be measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.archive import Archive
from serving.unsupported import find_grpc_only, find_streaming_handler
from tests.archives import ECHO, as_folder, as_tar, make_archive

STREAMING = """
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    send_intermediate_predict_response(["a"], context.request_ids, "", 200, context)
    return ["b"]
"""


@pytest.mark.parametrize("form", [lambda mar: mar, as_folder, as_tar], ids=["mar", "folder", "tar"])
def test_find_streaming_handler_names_the_handler(
    tmp_path: Path, form: Callable[[Path], Path]
) -> None:
    problem = find_streaming_handler(Archive.read(form(make_archive(tmp_path, STREAMING)))) or ""
    assert problem.startswith("handler.py streams its answers (send_intermediate_predict_response)")
    assert "whole answers to HTTP requests" in problem


@pytest.mark.parametrize(
    ("source", "files", "named"),
    [
        ("from answers import stream\n", {"answers.py": STREAMING}, "answers.py"),
        ("import lib.answers\n", {"lib/answers.py": STREAMING}, "lib/answers.py"),
        ("def f():\n    import lib\n", {"lib/__init__.py": STREAMING}, "lib/__init__.py"),
        ("import a\n", {"a.py": "import b\n", "b.py": f"import a\n{STREAMING}"}, "b.py"),
        ("import a\n", {"a.py": "", "unused.py": STREAMING}, None),
        ("from lib import answers\n", {"lib/answers.py": STREAMING}, "lib/answers.py"),
        (
            "import json, lib\n",
            {"lib/__init__.py": "from .answers import s\n", "lib/answers.py": STREAMING},
            "lib/answers.py",
        ),
        ("import a.b\n", {"a/b.py": "from .. import c\n", "c.py": STREAMING}, "c.py"),
        ("import (\n", {"a.py": STREAMING}, None),
    ],
)
def test_find_streaming_handler_follows_imports(
    tmp_path: Path, source: str, files: dict[str, str], named: str | None
) -> None:
    folder = as_folder(make_archive(tmp_path, source))
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    problem = find_streaming_handler(Archive.read(folder))
    assert (problem or "").partition(" streams")[0] == (named or "")


@pytest.mark.parametrize("source", [ECHO, f"# not send_intermediate_predict_response\n{ECHO}"])
def test_find_streaming_handler_accepts_whole_answers(tmp_path: Path, source: str) -> None:
    assert find_streaming_handler(Archive.read(make_archive(tmp_path, source))) is None


@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v2", "GRPC-V2"])
def test_find_grpc_only_says_what_is_supported(protocol: str) -> None:
    problem = find_grpc_only({"PROTOCOL_VERSION": protocol}) or ""
    assert protocol in problem and "set v1 or v2" in problem


@pytest.mark.parametrize("environment", [{}, {"PROTOCOL_VERSION": "v2"}, {"A": "grpc-v2"}])
def test_find_grpc_only_accepts_http(environment: dict[str, str]) -> None:
    assert find_grpc_only(environment) is None
