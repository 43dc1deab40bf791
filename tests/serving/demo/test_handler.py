"""The bundled model's handler, without its libraries."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from serving.demo import handler
from tests.serving.demo.tokenizers import OneTokenPerWord

JSON = "application/json"


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
    """A handler with at most 5 tokens per request, whose model returns the width of its batch."""
    codegen = handler.CodeGenHandler()
    codegen.tokenizer = OneTokenPerWord()
    codegen.encode_options = {}
    codegen.generate_options = {"max_length": 5}
    monkeypatch.setattr(codegen, "inference", lambda ids, masks: [f"w{len(row)}" for row in ids])
    return codegen


@pytest.mark.parametrize(
    ("request_", "content_type", "prompt"),
    [
        pytest.param({"body": {"prompt": "def f"}}, JSON, "def f", id="JSON decoded by TorchServe"),
        pytest.param({"body": b'{"prompt": "x"}'}, JSON, "x", id="JSON as bytes"),
        pytest.param({"body": "def f"}, "text/plain", "def f", id="plain text"),
        pytest.param({"body": bytearray(b"def f")}, "", "def f", id="bytes without content type"),
        pytest.param(
            {"body": b'{"prompt": 1}'}, "", '{"prompt": 1}', id="JSON without content type is text"
        ),
        pytest.param({"data": "def f"}, "", "def f", id="form field data"),
    ],
)
def test_read_prompt_returns_prompt(
    request_: dict[str, Any], content_type: str, prompt: str
) -> None:
    assert handler.read_prompt(request_, content_type) == prompt


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        pytest.param({"body": b"{"}, "not valid JSON", id="broken JSON"),
        pytest.param({"body": b"\xff"}, "not valid UTF-8", id="invalid UTF-8"),
        pytest.param({"body": {"prompt": "\ud800"}}, "not valid UTF-8", id="lone surrogate"),
        pytest.param({"body": {"text": "x"}}, "must be text or a JSON", id="object without prompt"),
        pytest.param({"body": {"prompt": 3}}, "must be text or a JSON", id="number as prompt"),
        pytest.param({"body": [1]}, "must be text or a JSON", id="list"),
        pytest.param({}, "must be text or a JSON", id="no body"),
        pytest.param({"body": {"prompt": ""}}, "empty", id="empty prompt"),
    ],
)
def test_read_prompt_names_problem_of_body(request_: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        handler.read_prompt(request_, JSON)


def test_handle_answers_batch_with_invalid_request(codegen: handler.CodeGenHandler) -> None:
    context = FakeContext()
    bodies = [{"prompt": "a b"}, {"prompt": 3}, {"prompt": "a b c d e f"}, {"prompt": "a b c d"}]
    answers = codegen.handle([{"body": body} for body in bodies], context)
    assert [next(iter(answer)) for answer in answers] == [
        "completion",
        "error",
        "error",
        "completion",
    ]
    assert answers[0]["completion"] == "w4", "the batch must not be as wide as the refused prompt"
    assert answers[2]["error"] == "the prompt has 6 tokens, more than the 4 that fit"
    assert context.status == {1: 400, 2: 400}


def test_handle_answers_batch_of_invalid_requests(codegen: handler.CodeGenHandler) -> None:
    context = FakeContext()
    assert all("error" in answer for answer in codegen.handle([{}, {}], context))
    assert context.status == {0: 400, 1: 400}


def test_handler_is_only_class_of_its_file() -> None:
    classes = [
        name
        for name, value in inspect.getmembers(handler, inspect.isclass)
        if value.__module__ == handler.__name__
    ]
    assert classes == ["CodeGenHandler"], "TorchServe refuses a file with two classes"
