"""Tests of requests files and of correct answers."""

import json
from pathlib import Path

import pytest

from loadgen.errors import PayloadError
from loadgen.payloads import Payload, mix, read_payloads
from loadgen.schedule import Share


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_read_payloads_reads_every_form(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8")
    path = write(
        tmp_path / "requests.jsonl",
        {"body": {"a": 1}, "expect": {"contains": "x", "matches": "^y"}, "headers": {"X": "1"}},
        {"body": "text"},
        {"file": "cat.jpg", "content_type": "image/jpeg"},
    )
    json_, text, binary = read_payloads(path)
    assert (json_.body, json_.headers) == (
        b'{"a": 1}',
        {"Content-Type": "application/json", "X": "1"},
    )
    assert text.headers["Content-Type"] == "text/plain"
    assert (binary.body, binary.headers["Content-Type"]) == (b"\xff\xd8", "image/jpeg")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"boddy": 1}, "line 2: unknown key 'boddy'"),
        ({}, "line 2: exactly one of 'body', 'body_base64', 'file' and 'multipart' is required"),
        ({"file": "missing.bin"}, "line 2: .*missing.bin"),
        ({"body": "a", "expect": {"status": 200}}, "write status beside expect"),
        ({"body": "a", "expect": {"matches": "("}}, "is not a regular expression"),
        ([1], "line 2"),
    ],
)
def test_read_payloads_names_the_line_of_a_mistake(
    tmp_path: Path, line: object, sentence: str
) -> None:
    path = write(tmp_path / "requests.jsonl", {"body": "fine"}, line)
    with pytest.raises(PayloadError, match=sentence):
        read_payloads(path)


def test_read_payloads_refuses_an_empty_or_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match="contains no requests"):
        read_payloads(write(tmp_path / "empty.jsonl"))
    with pytest.raises(PayloadError, match="cannot be read"):
        read_payloads(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("payload", "answer", "good"),
    [
        (Payload(b""), b"anything", True),
        (Payload(b"", contains="cat"), b"a cat", True),
        (Payload(b"", contains="cat"), b"a dog", False),
        (Payload(b"", matches="c.t$"), b"a cat", True),
        (Payload(b"", contains="a", matches="dog"), b"a cat", False),
    ],
)
def test_payload_accepts_a_correct_answer(payload: Payload, answer: bytes, good: bool) -> None:
    assert payload.accepts(answer) is good


def test_mix_is_the_same_for_every_window() -> None:
    payloads = [Payload(str(i).encode()) for i in range(10)]
    first = [next(m).body for m in [mix(payloads, Share())] for _ in range(30)]
    again = [next(m).body for m in [mix(payloads, Share())] for _ in range(30)]
    other = [next(m).body for m in [mix(payloads, Share(1, 2))] for _ in range(30)]
    assert first == again != other
    assert sorted(first[:10]) == sorted(p.body for p in payloads)
