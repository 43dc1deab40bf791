"""The build of the bundled model, without its libraries."""

from __future__ import annotations

import json
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import serving.demo
from serving.demo import build as demo
from serving.demo.prompts import PROMPTS
from tests.serving.demo.tokenizers import OneTokenPerWord


@pytest.fixture
def installed_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """All libraries of the bundled model, in version 1.0."""
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")


def test_request_lines_are_json_with_different_prompts() -> None:
    tokenizer: Any = OneTokenPerWord()
    lines = [json.loads(line) for line in demo.request_lines(tokenizer).splitlines()]
    assert len({line["body"]["prompt"] for line in lines}) == len(PROMPTS)
    assert all(line["expect"] == {"contains": "completion"} for line in lines)


def test_truncate_prompt_shortens_long_prompt_only() -> None:
    tokenizer: Any = OneTokenPerWord()
    long = " ".join(["word"] * (demo.PROMPT_TOKENS + 1))
    assert demo.truncate_prompt(long, tokenizer).split() == ["word"] * demo.PROMPT_TOKENS
    assert demo.truncate_prompt("def f", tokenizer) == "def f"


def write_built_files(folder: Path, fingerprint: str) -> Path:
    """Write the files of an earlier build as far as the next build reads them."""
    with zipfile.ZipFile(folder / "codegen.mar", "w") as archive:
        archive.writestr("variant.json", json.dumps({"built_from": fingerprint}))
    (folder / "requests.jsonl").touch()
    return folder / "codegen.mar"


@pytest.mark.usefixtures("installed_libraries")
def test_build_skips_current_archive(tmp_path: Path) -> None:
    archive = write_built_files(tmp_path, demo._fingerprint())
    assert demo.build(tmp_path) == archive


@pytest.mark.parametrize("state", ["stale", "no requests", "no archive", "truncated archive"])
@pytest.mark.usefixtures("installed_libraries")
def test_build_replaces_any_other_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    archive = write_built_files(tmp_path, "old" if state == "stale" else demo._fingerprint())
    if state == "no requests":
        (tmp_path / "requests.jsonl").unlink()
    elif state == "no archive":
        archive.unlink()
    elif state == "truncated archive":
        archive.write_bytes(archive.read_bytes()[:20])
    # None in sys.modules makes the import of codegen fail, which proves that a build started.
    monkeypatch.setitem(sys.modules, "serving.demo.codegen", None)
    monkeypatch.delattr(serving.demo, "codegen", raising=False)
    with pytest.raises(demo.DemoError):
        demo.build(tmp_path)


@pytest.mark.usefixtures("installed_libraries")
def test_fingerprint_depends_on_library_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = demo._fingerprint()
    monkeypatch.setattr(metadata, "version", lambda name: "2.0")
    assert demo._fingerprint() != before


def test_build_reports_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(demo.DemoError) as caught:
        demo.build(tmp_path)
    assert str(caught.value) == (
        "the bundled model requires the extra 'demo'; run pip install 'servetune[demo]'"
    )


def test_build_refuses_unknown_variant(tmp_path: Path) -> None:
    with pytest.raises(demo.DemoError, match=r"must be one of fast, original \(got 'slow'\)"):
        demo.build(tmp_path, "slow")
