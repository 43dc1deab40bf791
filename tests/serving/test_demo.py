"""The bundled model without its libraries: requests in, prompts, and when a build is skipped."""

from __future__ import annotations

import inspect
import json
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import serving.demo
from serving.demo import build as demo
from serving.demo import handler
from serving.demo.prompts import PROMPTS

JSON = "application/json"


class OneTokenPerWord:
    """A tokeniser for both its users: the builder's encode and the handler's call."""

    def encode(self, text: str) -> Any:
        return SimpleNamespace(ids=text.split())

    def __call__(self, prompts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        lengths = [len(prompt.split()) for prompt in prompts]
        width = max(lengths)
        masks = [[0] * (width - length) + [1] * length for length in lengths]
        return {"input_ids": [[7] * width for _ in prompts], "attention_mask": masks}


class FakeContext:
    """The part of TorchServe's context that the handler uses, for JSON requests."""

    def __init__(self) -> None:
        self.status: dict[int, int] = {}

    def get_request_header(self, index: int, name: str) -> dict[str, str]:
        return {"content-type": JSON}

    def set_response_status(self, code: int, phrase: str, index: int) -> None:
        self.status[index] = code

    def set_response_content_type(self, index: int, value: str) -> None:
        assert value == JSON


@pytest.fixture
def codegen(monkeypatch: pytest.MonkeyPatch) -> handler.CodeGenHandler:
    """A handler with at most 5 tokens in all, whose model repeats the width of its batch."""
    made = handler.CodeGenHandler()
    made.tokenizer = OneTokenPerWord()
    made.encode_options = {}
    made.generate_options = {"max_length": 5}
    monkeypatch.setattr(made, "inference", lambda ids, masks: [f"w{len(row)}" for row in ids])
    return made


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")


@pytest.mark.parametrize(
    ("request_", "content_type", "prompt"),
    [
        pytest.param({"body": {"prompt": "def f"}}, JSON, "def f", id="TorchServe decoded it"),
        pytest.param({"body": b'{"prompt": "x"}'}, JSON, "x", id="TorchServe left JSON encoded"),
        pytest.param({"body": "def f"}, "text/plain", "def f", id="text is the prompt"),
        pytest.param({"body": bytearray(b"def f")}, "", "def f", id="bytes are text"),
        pytest.param({"body": b'{"prompt": 1}'}, "", '{"prompt": 1}', id="JSON must say so"),
        pytest.param({"data": "def f"}, "", "def f", id="a form's field is called data"),
    ],
)
def test_reads_a_prompt(request_: dict[str, Any], content_type: str, prompt: str) -> None:
    assert handler.read_prompt(request_, content_type) == prompt


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        pytest.param({"body": b"{"}, "not valid JSON", id="broken JSON arrives as bytes"),
        pytest.param({"body": b"\xff"}, "not valid UTF-8", id="bytes that are no text"),
        pytest.param({"body": {"prompt": "\ud800"}}, "not valid UTF-8", id="half a character"),
        pytest.param({"body": {"text": "x"}}, "must be text or a JSON", id="no prompt in it"),
        pytest.param({"body": {"prompt": 3}}, "must be text or a JSON", id="a number"),
        pytest.param({"body": [1]}, "must be text or a JSON", id="a list"),
        pytest.param({}, "must be text or a JSON", id="no body"),
        pytest.param({"body": {"prompt": ""}}, "empty", id="an empty prompt"),
    ],
)
def test_says_what_is_wrong_with_a_body(request_: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        handler.read_prompt(request_, JSON)


def test_a_bad_request_does_not_fail_its_batch(codegen: handler.CodeGenHandler) -> None:
    context = FakeContext()
    bodies = [{"prompt": "a b"}, {"prompt": 3}, {"prompt": "a b c d e f"}, {"prompt": "a b c d"}]
    answers = codegen.handle([{"body": body} for body in bodies], context)
    assert [next(iter(answer)) for answer in answers] == [
        "completion",
        "error",
        "error",
        "completion",
    ]
    assert answers[0]["completion"] == "w4", "the refused prompt must not widen the batch"
    assert answers[2]["error"] == "the prompt has 6 tokens, more than the 4 that fit"
    assert context.status == {1: 400, 2: 400}


def test_a_batch_of_bad_requests_is_answered(codegen: handler.CodeGenHandler) -> None:
    context = FakeContext()
    assert all("error" in answer for answer in codegen.handle([{}, {}], context))
    assert context.status == {0: 400, 1: 400}


def test_the_handler_is_the_only_class_of_its_file() -> None:
    own = [
        name
        for name, value in inspect.getmembers(handler, inspect.isclass)
        if value.__module__ == handler.__name__
    ]
    assert own == ["CodeGenHandler"], "TorchServe refuses a file with more than one"


def test_prompts_are_36_and_all_different() -> None:
    assert len(PROMPTS) == len(set(PROMPTS)) == 36
    assert all(prompt == prompt.rstrip("\n") and '"""' in prompt for prompt in PROMPTS)


def test_request_lines_are_json_with_distinct_prompts() -> None:
    tokenizer: Any = OneTokenPerWord()
    lines = [json.loads(line) for line in demo.request_lines(tokenizer).splitlines()]
    assert len({line["body"]["prompt"] for line in lines}) == len(PROMPTS)
    assert all(line["expect"] == {"contains": "completion"} for line in lines)


def test_a_prompt_is_cut_to_its_tokens_and_a_short_one_kept() -> None:
    tokenizer: Any = OneTokenPerWord()
    long = " ".join(["word"] * (demo.PROMPT_TOKENS + 1))
    assert demo.cut(long, tokenizer).split() == ["word"] * demo.PROMPT_TOKENS
    assert demo.cut("def f", tokenizer) == "def f"


def _leave(folder: Path, stamp: str) -> Path:
    """What a build with that stamp leaves behind, as far as the next one looks at it."""
    with zipfile.ZipFile(folder / "codegen.mar", "w") as archive:
        archive.writestr("variant.json", json.dumps({"built_from": stamp}))
    (folder / "requests.jsonl").touch()
    return folder / "codegen.mar"


@pytest.mark.usefixtures("installed")
def test_a_current_archive_is_not_built_again(tmp_path: Path) -> None:
    archive = _leave(tmp_path, demo._fingerprint())
    assert demo.build(tmp_path) == archive


@pytest.mark.parametrize("because", ["stale", "no requests", "no archive", "torn archive"])
@pytest.mark.usefixtures("installed")
def test_anything_else_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, because: str
) -> None:
    archive = _leave(tmp_path, "old" if because == "stale" else demo._fingerprint())
    if because == "no requests":
        (tmp_path / "requests.jsonl").unlink()
    elif because == "no archive":
        archive.unlink()
    elif because == "torn archive":
        archive.write_bytes(archive.read_bytes()[:20])
    # None in sys.modules makes the import of the heavy part fail: proof that it was reached.
    monkeypatch.setitem(sys.modules, "serving.demo.codegen", None)
    monkeypatch.delattr(serving.demo, "codegen", raising=False)
    with pytest.raises(demo.DemoError):
        demo.build(tmp_path)


@pytest.mark.usefixtures("installed")
def test_another_library_version_means_another_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    before = demo._fingerprint()
    monkeypatch.setattr(metadata, "version", lambda name: "2.0")
    assert demo._fingerprint() != before


def test_a_missing_library_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(demo.DemoError) as caught:
        demo.build(tmp_path)
    assert str(caught.value) == (
        "the bundled model needs the extra 'demo': pip install 'servetune[demo]'"
    )


def test_an_unknown_variant_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(demo.DemoError, match=r"'slow'.*fast, original"):
        demo.build(tmp_path, "slow")
