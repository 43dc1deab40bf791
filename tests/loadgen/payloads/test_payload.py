"""Tests of payloads and of correct answers."""

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.errors import PayloadError
from loadgen.payloads import Payload


@pytest.mark.parametrize(
    ("payload", "answer", "good"),
    [
        (Payload(b""), b"anything", True),
        (Payload(b"", contains="cat"), b"a cat", True),
        (Payload(b"", contains="cat"), b"a dog", False),
        (Payload(b"", matches="c.t$"), b"a cat", True),
        (Payload(b"", contains="a", matches="dog"), b"a cat", False),
        (Payload(b"", fields={"/a/0/b": "cat"}), b'{"a": [{"b": "cat"}]}', True),
        (Payload(b"", fields={"/a/0/b": "cat"}), b'{"a": [{"b": "dog"}]}', False),
        (Payload(b"", fields={"/a": None}), b'{"a": null}', True),
        (Payload(b"", fields={"/a": None}), b"{}", False),
        (Payload(b"", fields={"/a": 1}), b'{"a": 1.0}', True),
        (Payload(b"", fields={"/a": 1}), b'{"a": true}', False),
        (Payload(b"", fields={"/a": {"b": [1, False]}}), b'{"a": {"b": [1, false]}}', True),
        (Payload(b"", fields={"/a": {"b": [1, False]}}), b'{"a": {"b": [1, 0]}}', False),
        (Payload(b"", fields={"/a": [1]}), b'{"a": [1, 2]}', False),
        (Payload(b"", fields={"": [1]}), b"[1]", True),
        (Payload(b"", fields={"/a~1b/m~0n": 1}), b'{"a/b": {"m~n": 1}}', True),
        (Payload(b"", fields={"/1": "b"}), b'["a", "b"]', True),
        (Payload(b"", fields={"/2": "b"}), b'["a", "b"]', False),
        (Payload(b"", fields={"/-1": "b"}), b'["a", "b"]', False),
        (Payload(b"", fields={"/01": "b"}), b'["a", "b"]', False),
        (Payload(b"", fields={"/a/b": 1}), b'{"a": "b"}', False),
        (Payload(b"", fields={"/a": 1}), b"not JSON", False),
        (Payload(b"", fields={"/a": 1}), b"[" * 100_000, False),
        (Payload(b"", fields={"/a": 1}), b'{"a": ' + b"1" * 5000 + b"}", False),
        (Payload(b"", field_matches={"/a": "^c"}), b'{"a": "cat"}', True),
        (Payload(b"", field_matches={"/a": "^c"}), b'{"a": "dog"}', False),
        (Payload(b"", field_matches={"/a": r"^0\.9"}), b'{"a": 0.93}', True),
        (Payload(b"", field_matches={"/a": "."}), b"{}", False),
        (Payload(b"", contains="cat", fields={"/a": 1}), b'{"a": 1}', False),
    ],
)
def test_payload_accepts_a_correct_answer(payload: Payload, answer: bytes, good: bool) -> None:
    assert payload.accepts(answer) is good
    assert pickle.loads(pickle.dumps(payload)).accepts(answer) is good


@given(answer=st.binary(), pointer=st.text().map(lambda text: "/" + text.replace("~", "~0")))
def test_payload_judges_every_answer(answer: bytes, pointer: str) -> None:
    payload = Payload(b"", matches="a", fields={pointer: 1}, field_matches={pointer: "b"})
    assert payload.accepts(answer) in (True, False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"headers": {"Transfer-Encoding": "chunked"}}, "Transfer-Encoding is not supported"),
        ({"headers": {"X": "a\r\nY: b"}}, "header X must not contain line breaks"),
        ({"headers": {"X": "\ud800"}}, "header X must not contain"),
        ({"headers": {"X": 1}}, "header X must be a string (got 1)"),
        ({"path": "http://host/x"}, "path must be a path on the server"),
        ({"path": "/a b"}, "path must be percent-encoded: '/a%20b'"),
        ({"path": "/\ud800"}, "path must not contain control characters"),
        ({"method": "get"}, "method must be one of"),
        ({"method": "GET / HTTP/1.1\r\nX:"}, "method must be one of"),
        ({"status": ()}, "status must contain at least one code"),
        ({"status": (100,)}, "status must be a code from 200 to 599 (got 100)"),
        ({"weight": float("inf")}, "weight must be a number above 0"),
        ({"matches": "("}, "is not a regular expression"),
        ({"field_matches": {"/a": "["}}, "is not a regular expression"),
        ({"fields": {"a": 1}}, "is named by a JSON Pointer"),
    ],
)
def test_payload_refuses_what_cannot_be_sent(arguments: dict, sentence: str) -> None:
    with pytest.raises(PayloadError, match=re.escape(sentence)):
        Payload(b"", **arguments)


def test_payload_with_headers_replaces_those_of_the_same_name() -> None:
    payload = Payload(b"x", {"authorization": "old", "X": "1"}, path="/p", weight=2)
    replaced = payload.with_headers({"Authorization": "new"})
    assert replaced == Payload(b"x", {"X": "1", "Authorization": "new"}, path="/p", weight=2)


@pytest.mark.parametrize(
    ("method", "body", "content"),
    [("POST", b"", b""), ("GET", b"", None), ("GET", b"x", b"x"), ("DELETE", b"", None)],
)
def test_payload_content_differs_from_an_empty_body(
    method: str, body: bytes, content: bytes | None
) -> None:
    assert Payload(body, method=method).content == content
