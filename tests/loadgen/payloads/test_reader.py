"""Tests of requests files: what is understood, and one sentence with its line for the rest."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadgen.errors import PayloadError
from loadgen.payloads import Payload, read_payloads, reader, referenced_files
from tests.fuzzing import TIMEOUT_S, fuzz

JSON, TEXT, BYTES = (
    {"Content-Type": kind}
    for kind in ("application/json", "text/plain; charset=utf-8", "application/octet-stream")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A requests file to write, beside a picture."""
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8")
    return tmp_path / "requests.jsonl"


def read(path: Path, text: str | bytes) -> list[Payload]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    return read_payloads(path)


@pytest.mark.parametrize(
    ("line", "payload"),
    [
        # The body
        ('{"body": {"a": 1.0,  "b": 1e400, "a": "\\u00e9é"}}', Payload('{"a": 1.0,  "b": 1e400, "a": "\\u00e9é"}'.encode(), JSON)),
        ('{"body": [1,2]}', Payload(b"[1,2]", JSON)),
        ('{"body": {"n": ' + "7" * 5000 + "}}", Payload(b'{"n": ' + b"7" * 5000 + b"}", JSON)),
        ('{"body": {"n": NaN}}', Payload(b'{"n": NaN}', JSON)),
        ('{"body": "é \\ud83d\\ude00"}', Payload("é 😀".encode(), TEXT)),
        ('{"body": ""}', Payload(b"", TEXT)),
        ('{"body": "é", "content_type": "text/plain; charset=ISO-8859-1"}', Payload(b"\xe9", {"Content-Type": "text/plain; charset=ISO-8859-1"})),
        ('{"body": {"a": "é"}, "content_type": "application/json;charset=\\"utf-16-le\\""}', Payload('{"a": "é"}'.encode("utf-16-le"), {"Content-Type": 'application/json;charset="utf-16-le"'})),
        ('{"file": "cat.jpg"}', Payload(b"\xff\xd8", BYTES)),
        ('{"file": "cat.jpg", "content_type": "image/jpeg"}', Payload(b"\xff\xd8", {"Content-Type": "image/jpeg"})),
        ('{"body_base64": "/9g="}', Payload(b"\xff\xd8", BYTES)),
        ('{"body_base64": "/9\\n g=\\n"}', Payload(b"\xff\xd8", BYTES)),
        ('{"body_base64": ""}', Payload(b"", BYTES)),
        # The head
        ('{"body": "x", "headers": {"X-A": "1", "Host": "pets.example.com:80", "Connection": "Keep-Alive"}}', Payload(b"x", {**TEXT, "X-A": "1", "Host": "pets.example.com:80", "Connection": "Keep-Alive"})),
        ('{"body": "{}", "headers": {"CONTENT-type": "application/json"}}', Payload(b"{}", {"CONTENT-type": "application/json"})),
        ('{"method": "get", "path": "/ping"}', Payload(b"", {}, method="GET", path="/ping")),
        ('{"method": "DELETE", "path": "/x", "body": "y"}', Payload(b"y", TEXT, method="DELETE", path="/x")),
        ('{"body": "x", "path": "/v1/models/m:predict?a=1&b=%20"}', Payload(b"x", TEXT, path="/v1/models/m:predict?a=1&b=%20")),
        ('{"body": "x", "path": "/é x"}', Payload(b"x", TEXT, path="/%C3%A9%20x")),
        ('{"body": "x", "path": "/a..b/.c?d=../e"}', Payload(b"x", TEXT, path="/a..b/.c?d=../e")),
        # The answer
        ('{"body": "x", "status": 404}', Payload(b"x", TEXT, status=(404,))),
        ('{"body": "x", "status": [200, 202]}', Payload(b"x", TEXT, status=(200, 202))),
        ('{"body": "x", "expect": {}}', Payload(b"x", TEXT)),
        ('{"body": "x", "expect": {"contains": "a", "matches": "^b"}}', Payload(b"x", TEXT, "a", "^b")),
        ('{"body": "x", "expect": {"json": {"/a/0": null}, "json_matches": {"/b": "c|d"}}}', Payload(b"x", TEXT, fields={"/a/0": None}, field_matches={"/b": "c|d"})),
        ('{"body": "x", "weight": 3}', Payload(b"x", TEXT, weight=3.0)),
    ],
)  # fmt: skip
def test_read_payloads_understands_a_line(path: Path, line: str, payload: Payload) -> None:
    assert read(path, line) == [payload]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"boddy": 1}', "unknown key 'boddy', perhaps 'body'"),
        ('{"url": "/x", "body": "a"}', "unknown key 'url', perhaps 'path'"),
        ('{"body": "a", "zzz": 1}', "unknown key 'zzz'; known keys are body"),
        ("{}", "exactly one of 'body', 'body_base64', 'file' and 'multipart' is required"),
        ('{"body": "a", "file": "cat.jpg"}', "exactly one of"),
        ('{"method": "GET", "path": "/x", "body": "a", "file": "cat.jpg"}', "exactly one of"),
        ('{"body": "a", "body": "b"}', "key 'body' is given twice"),
        ('{"body": "a", "headers": {"X": "1", "X": "2"}}', "headers: key 'X' is given twice"),
        # Null and numbers
        ('{"body": null}', r"body must be .* \(got null\)"),
        ('{"body": 1.50}', r"body must be .* \(got 1.50\)"),
        ('{"body": true}', r"body must be .* \(got true\)"),
        ('{"body": "a", "content_type": null}', r"content_type must be a string \(got null\); remove it"),
        ('{"body": "a", "content_type": 1}', r"content_type must be a string \(got 1\)"),
        ('{"body": "a", "headers": null}', r"headers must be a JSON object \(got null\)"),
        ('{"body": "a", "headers": {"X": 1}}', r"header X must be a string \(got 1\)"),
        ('{"body": "a", "headers": {"X": ["1"]}}', r'header X must be a string \(got \["1"\]\)'),
        ('{"body": "a", "expect": null}', r"expect must be a JSON object \(got null\)"),
        ('{"body": "a", "expect": "b"}', r'expect must be a JSON object \(got "b"\)'),
        ('{"body": "a", "expect": {"contains": null}}', r"expect.contains must be a string \(got null\)"),
        ('{"body": "a", "expect": {"matches": 1}}', r"expect.matches must be a string \(got 1\)"),
        ('{"body": "a", "path": null}', r"path must be a string \(got null\)"),
        ('{"body": "a", "method": 1}', r"method must be a string \(got 1\)"),
        ('{"file": 1}', r"file must be a string \(got 1\)"),
        ('{"file": null}', r"file must be a string \(got null\)"),
        ('{"body_base64": 1}', r"body_base64 must be a string \(got 1\)"),
        ('{"body": "a", "status": null}', r"status must be a code .* \(got null\)"),
        ('{"body": "a", "status": "200"}', r'status must be a code .* \(got "200"\)'),
        ('{"body": "a", "status": [true]}', r"status must be a code .* \(got true\)"),
        ('{"body": "a", "status": []}', "status must contain at least one code"),
        ('{"body": "a", "status": 100}', r"status must be a code from 200 to 599 \(got 100\)"),
        ('{"body": "a", "weight": null}', r"weight must be a number above 0 \(got null\)"),
        ('{"body": "a", "weight": 0}', "weight must be a number above 0"),
        ('{"body": "a", "weight": 1' + "0" * 400 + "}", "weight must be a number above 0"),
        ('{"body": "a", "weight": NaN}', "weight: NaN is not a JSON number"),
        # Headers that belong to the client
        ('{"body": "a", "headers": {"Content-Length": "1"}}', "header Content-Length is computed"),
        ('{"body": "a", "headers": {"transfer-encoding": "chunked"}}', "header transfer-encoding is not supported"),
        ('{"body": "a", "headers": {"Connection": "close"}}', "header Connection must be keep-alive"),
        ('{"body": "a", "headers": {"Upgrade": "h2c"}}', "header Upgrade belongs to the connection"),
        ('{"body": "a", "headers": {"Expect": "200-ok"}}', "header Expect must be 100-continue"),
        ('{"body": "a", "headers": {"Host": "http://x/"}}', "header Host must be a host name"),
        ('{"body": "a", "headers": {"X": "1", "x": "2"}}', "headers X and x are the same"),
        ('{"body": "a", "headers": {"X": "a\\r\\nY: b"}}', "header X must not contain line breaks"),
        ('{"body": "a", "headers": {":path": "/"}}', "':path' is not the name of a header"),
        ('{"body": "a", "headers": {"": "a"}}', "'' is not the name of a header"),
        ('{"body": "a", "content_type": "a/b", "headers": {"content-type": "c/d"}}', "both set Content-Type"),
        ('{"body": "a", "content_type": "a\\nb"}', "header Content-Type must not contain line breaks"),
        # Paths
        ('{"body": "a", "path": "http://other/x"}', "path must be a path on the server"),
        ('{"body": "a", "path": "//other/x"}', "path must be a path on the server"),
        ('{"body": "a", "path": "predictions/m"}', "path must begin with /"),
        ('{"body": "a", "path": ""}', "path must begin with /"),
        ('{"body": "a", "path": "/a/../b"}', r"path must not contain \. or \.\. as a segment"),
        ('{"body": "a", "path": "/a/%2E%2e/b"}', r"path must not contain \. or \.\. as a segment"),
        ('{"body": "a", "path": "/a#b"}', "path must not contain #"),
        ('{"body": "a", "path": "/a?"}', "path must not end with an empty query"),
        ('{"body": "a", "path": "/100%"}', "'%' must be written as %25"),
        ('{"body": "a", "path": "/a\\nb"}', "path must not contain control characters"),
        ('{"body": "a", "method": "FETCH"}', r"method must be one of DELETE, .* \(got 'FETCH'\)"),
        # Text
        ('{"body": "\\ud800"}', "body contains half of a surrogate pair"),
        ('{"body": "a", "path": "/\\udc00"}', "path contains half of a surrogate pair"),
        ('{"body": {"a": "€"}, "content_type": "application/json; charset=latin-1"}', "characters that the content type"),
        ('{"body": "a", "content_type": "text/plain; charset=nonsense"}', "unknown charset"),
        ('{"body": "a", "content_type": "text/plain; charset=rot13"}', "unknown charset"),
        ('{"body_base64": "/9g"}', "body_base64 is not base64"),
        ('{"body_base64": "_-=="}', "body_base64 is not base64"),
        ('{"body_base64": "é"}', "body_base64 is not base64"),
        # Files
        ('{"file": "missing.bin"}', "file 'missing.bin' cannot be read: No such file"),
        ('{"file": "."}', r"file '\.' is a folder"),
        ('{"file": ""}', "file '' is a folder"),
        ('{"file": "/dev/zero"}', "file '/dev/zero' is not a regular file"),
        ('{"file": "a\\u0000"}', "cannot be read: embedded null byte"),
        ('{"file": "' + "x" * 5000 + '"}', "cannot be read: File name too long"),
        # Expectations
        ('{"body": "a", "expect": {"status": 200}}', "write status beside expect"),
        ('{"body": "a", "expect": {"contain": "b"}}', "unknown key 'expect.contain', perhaps 'contains'"),
        ('{"body": "a", "expect": {"matches": "("}}', "expect.matches is not a regular expression"),
        ('{"body": "a", "expect": {"json": {"a[0].b": 1}}}', "JSON Pointer .*perhaps '/a/0/b'"),
        ('{"body": "a", "expect": {"json": {"/a~b": 1}}}', "'~' must be written as ~0"),
        ('{"body": "a", "expect": {"json": 1}}', r"expect.json must be a JSON object \(got 1\)"),
        ('{"body": "a", "expect": {"json_matches": {"/a": 1}}}', r"expect.json_matches /a must be a string \(got 1\)"),
        ('{"body": "a", "expect": {"json_matches": {"/a": "["}}}', "/a is not a regular expression"),
        # Forms
        ('{"multipart": {"data": "x"}}', "multipart must be an array of parts"),
        ('{"multipart": []}', "multipart must be an array of parts"),
        ('{"multipart": ["x"]}', "multipart must be an array of parts"),
        ('{"multipart": [{"file": "cat.jpg"}]}', r"multipart\[0\].name is missing"),
        ('{"multipart": [{"name": "a", "body": "b"}, {"name": "a"}]}', r"multipart\[1\]: exactly one of"),
        ('{"multipart": [{"name": "a", "file": "no"}]}', r"multipart\[0\]: file 'no' cannot be read"),
        ('{"multipart": [{"name": "a", "body": "b", "value": 1}]}', r"unknown key 'multipart\[0\].value'"),
        ('{"multipart": [{"name": "a", "body": "b", "name": "c"}]}', "key 'name' is given twice"),
        ('{"multipart": [{"name": 1, "body": "b"}]}', r"multipart\[0\].name must be a string"),
        ('{"multipart": [{"name": "a", "body": 1}]}', r"multipart\[0\]: body must be"),
        ('{"multipart": [{"name": "a", "body": "b", "content_type": "x\\ny"}]}', "must not contain line breaks"),
        ('{"multipart": [{"name": "a", "body": "b"}], "content_type": "x/y"}', "multipart sets the content type"),
        # JSON
        ("[1]", r"a request must be a JSON object \(got 1\)"),
        ('"text"', r'a request must be a JSON object \(got "text"\)'),
        ("nonsense", "not valid JSON: expecting value"),
        ("{'body': 1}", "not valid JSON: a key in double quotes is missing"),
        ('{"body" 1}', "not valid JSON: ':' is missing"),
        ('{"body": 1,}', "not valid JSON: a key is missing after ','"),
        ('{"body": "a"', "not valid JSON: ',' or '}' is missing"),
        ('{"body": "a', "not valid JSON: unterminated string"),
        ('{"body": "a"} {"body": "b"}', "one request per line"),
        ('{"body": "a"},', "one request per line"),
        ('{"body": ' + "[" * 100_000, "nested too deeply"),
        ('{"body": "a", "expect": {"json": {"/a": ' + "[" * 100_000, "nested too deeply"),
        ('{"body": "a", "status": ' + "2" * 5000 + "}", "status: a number has 5000 digits"),
    ],
)  # fmt: skip
def test_read_payloads_refuses_a_line_in_one_sentence(path: Path, line: str, sentence: str) -> None:
    with pytest.raises(PayloadError, match=sentence) as caught:
        read(path, '{"body": "fine"}\n' + line)
    (problem,) = caught.value.problems
    assert problem.startswith(f"requests file {path}, line 2: ")
    assert "\n" not in problem and len(problem) < 500 + len(str(path))


@pytest.mark.parametrize(
    ("text", "bodies"),
    [
        (b'{"body": "a"}\r\n\r\n{"body": "b"}\r\n', [b"a", b"b"]),
        (b'\xef\xbb\xbf{"body": "a"}\n\xef\xbb\xbf{"body": "b"}', [b"a", b"b"]),
        ('{"body": "a\u2028b\x85c"}\n{"body": {"d": "\u2029"}}', ["a\u2028b\x85c".encode(), '{"d": "\u2029"}'.encode()]),
        (b'{\n  "body": {\n    "a": 1\n  }\n}\n{"body": "b"}', [b'{\n    "a": 1\n  }', b"b"]),
        (b'[{"body": "a"}, {"body": "b"}]', [b"a", b"b"]),
        (b'[\n  {\n "body": "a"},\n\n  {"body": "b"}\n]\n', [b"a", b"b"]),
        (b'[{"body": "a"}]\n[{"body": "b"}]\n', [b"a", b"b"]),
        (b' \t\n{"body": "a"}   \n\n', [b"a"]),
    ],
)  # fmt: skip
def test_read_payloads_understands_a_file(path: Path, text: str | bytes, bodies: list) -> None:
    assert [payload.body for payload in read(path, text)] == bodies


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "contains no requests"),
        (b" \n\t\n", "contains no requests"),
        (b"[]", "contains no requests"),
        (b'{"body": "a"}\n{"body": "\xe9"}', "line 2: byte 0xe9 is not UTF-8"),
        ('{"body": "a"}'.encode("utf-16"), "line 1: the text is UTF-16"),
        (b'{"body": "a"}\n\n{\n "body" "b"}', r"line 3: not valid JSON: ':' is missing after a key \(line 4, column 9"),
        (b'{"body": "a"\n{"body": "b"}', r"line 1: not valid JSON: .* \(line 2, column 1"),
        (b'[{"body": "a"},\n7,\n{"body": "b"}]', r"line 2: a request must be a JSON object \(got 7\)"),
        (b'[{"body": "a"}\n{"body": "b"}]', r"line 1: not valid JSON: ',' or '\]' is missing \(line 2"),
        (b'[{"body": "a"},]', "line 1: not valid JSON: expecting value"),
        (b'{"body": "\x85\xe2\x80\xa8"}', "line 1: byte 0x85 is not UTF-8"),
        ("{\u00a0}", "line 1: not valid JSON: a key in double quotes"),
    ],
)  # fmt: skip
def test_read_payloads_refuses_a_file(path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(PayloadError, match=sentence) as caught:
        read(path, text)
    assert len(caught.value.problems) == 1


def test_read_payloads_lists_the_first_mistakes(path: Path) -> None:
    with pytest.raises(PayloadError) as caught:
        read(path, '{"body": "fine"}\n' + '{"body": null}\n' * 12)
    problems = caught.value.problems
    assert [f"line {n}: " in problem for n, problem in enumerate(problems[:10], 2)] == [True] * 10
    assert problems[10] == f"and 2 more mistakes in {path}"


def test_read_payloads_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match="cannot be read: No such file"):
        read_payloads(tmp_path / "missing.jsonl")
    with pytest.raises(PayloadError, match="is a folder"):
        read_payloads(tmp_path)
    with pytest.raises(PayloadError, match="is not a regular file"):
        read_payloads(Path("/dev/null"))


def test_read_payloads_reads_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"body": "a"}')
    os.close(writing)
    try:
        assert read_payloads(Path(f"/dev/fd/{reading}")) == [Payload(b"a", TEXT)]
    finally:
        os.close(reading)


@pytest.mark.parametrize("large", ["requests.jsonl", "cat.jpg"])
def test_read_payloads_refuses_large_files(
    path: Path, monkeypatch: pytest.MonkeyPatch, large: str
) -> None:
    path.write_text('{"file": "cat.jpg"}\n')
    os.truncate(path.parent / large, reader.MAX_BYTES + 1)
    with pytest.raises(PayloadError, match=r"is too large: .* 1024 MiB"):
        read_payloads(path)


def test_read_payloads_counts_each_file_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_BYTES", 100)
    (path.parent / "a.bin").write_bytes(b"x" * 60)
    (path.parent / "b.bin").write_bytes(b"x" * 60)
    first, second = read(path, '{"file": "a.bin"}\n' * 2)
    assert first.body is second.body
    with pytest.raises(PayloadError, match=r"line 2: file 'b.bin' is too large"):
        read(path, '{"file": "a.bin"}\n{"file": "b.bin"}')


def test_referenced_files_names_every_file_and_reads_none(path: Path) -> None:
    path.write_text(
        '{"file": "no"}\n{"body": "x"}\n'
        '[{"multipart": [{"name": "a", "body": "b"},\n {"name": "c", "file": "../d"}]}]\n'
        '{"file": 1}\n{"multipart": 1, "file": "e"}'
    )
    assert list(referenced_files(path)) == [(1, "no"), (3, "../d")]
    with pytest.raises(PayloadError):
        list(referenced_files(path.parent / "missing"))


# The cases of /shared: each with variants. ------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # F11: an envelope's request
        ('{"body": {"instances": [{"x": 1}]}, "expect": {"contains": "predictions"}}', b'{"instances": [{"x": 1}]}'),
        ('{"expect": {"contains": "predictions"}, "body": {"instances": [{"x": 1}]}}', b'{"instances": [{"x": 1}]}'),
        ('{"body": {"instances":[{"data":{"b64":"eA=="}}]}, "path": "/v1/models/pets:predict"}', b'{"instances":[{"data":{"b64":"eA=="}}]}'),
        ('[{"body": {"instances": [{"x": 1}]}, "expect": {"json": {"/predictions/0": 1}}}]', b'{"instances": [{"x": 1}]}'),
        # F32: one Content-Type, however it is written
        ('{"body": "{\\"a\\": 1}", "headers": {"content-type": "application/json"}}', b'{"a": 1}'),
        ('{"body": {"a": 1}, "headers": {"CONTENT-TYPE": "application/json"}}', b'{"a": 1}'),
        ('{"body": {"a": 1}, "headers": {"Content-type": "application/x-pets"}}', b'{"a": 1}'),
        ('{"file": "cat.jpg", "headers": {"cOnTeNt-TyPe": "image/jpeg"}}', b"\xff\xd8"),
        # F34: null where text belongs
        ('{"body": "x", "content_type": null, "headers": {"X-A": null}}', "line 1: header X-A must be a string (got null)"),
        ('{"body": "x", "content_type": null}', "line 1: content_type must be a string (got null)"),
        ('{"body": "x", "headers": {"X-A": 7}}', "line 1: header X-A must be a string (got 7)"),
        ('{"body": "x", "headers": {"X-A": {"a": "b"}}}', "line 1: header X-A must be a string (got"),
        # F34b
        ('{"body": "x", "expect": null}', "line 1: expect must be a JSON object (got null); remove it"),
        ('{"body": "x", "expect": []}', "line 1: expect must be a JSON object (got [])"),
        ('{"body": "x", "expect": {"matches": null}}', "line 1: expect.matches must be a string (got null)"),
        ('{"body": "x", "expect": {"json": null}}', "line 1: expect.json must be a JSON object (got null)"),
        # F36: framing
        ('{"body": "abc", "headers": {"Transfer-Encoding": "chunked"}}', "line 1: header Transfer-Encoding is not supported"),
        ('{"body": "abc", "headers": {"TRANSFER-ENCODING": "gzip, chunked"}}', "line 1: header TRANSFER-ENCODING is not supported"),
        ('{"body": "abc", "headers": {"content-length": "3"}}', "line 1: header content-length is computed from the body"),
        ('{"body": "abc", "headers": {"Trailer": "X"}}', "line 1: header Trailer belongs to the connection"),
        # F37: a body instead of a request
        ('{\n  "instances": [[1, 2]]\n}', "line 1: unknown key 'instances' (if this object is the body, write one request per line"),
        ('{\n  "inputs": [\n    {"name": "x"}\n  ]\n}', "line 1: unknown key 'inputs' (if this object is the body, write one request per line"),
        ('[\n  {"instances": [[1, 2]]}\n]', "line 2: unknown key 'instances' (if this object is the body"),
        ('[[1, 2]]', "line 1: a request must be a JSON object (got [1, 2])"),
        # F38: an array of requests
        ('[{"body": "x"}, {"body": "y"}]', b"xy"),
        ('[\r\n{"body": "x"}\r\n,{"body": "y"}]', b"xy"),
        ('\ufeff[{"body": "x"},\n{"body": "y"}]\n', b"xy"),
        ('[{"body": "x"}]\n\n{"body": "y"}', b"xy"),
    ],
)  # fmt: skip
def test_read_payloads_on_common_mistakes(path: Path, text: str, found: bytes | str) -> None:
    if isinstance(found, bytes):
        payloads = read(path, text)
        assert b"".join(payload.body for payload in payloads) == found
        names = [[name.lower() for name in payload.headers] for payload in payloads]
        assert all(listed.count("content-type") == 1 for listed in names)
        return
    with pytest.raises(PayloadError) as caught:
        read(path, text)
    assert found in str(caught.value)


# Generated files --------------------------------------------------------------------------

pytestmark = pytest.mark.timeout(TIMEOUT_S)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["/", "..", "/a/%2e%2e", "//h", "cat.jpg", ".", "\ud800", "\x00", "é", "("]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
parts = st.lists(
    st.dictionaries(
        st.sampled_from(["name", "body", "body_base64", "file", "filename", "content_type", "x"]),
        values,
        max_size=4,
    ),
    max_size=3,
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "body": values,
        "body_base64": values,
        "file": st.one_of(values, st.just("cat.jpg")),
        "multipart": st.one_of(values, parts),
        "content_type": st.one_of(
            values, st.text(max_size=9).map(lambda name: f"text/plain; charset={name}")
        ),
        "headers": st.one_of(values, st.dictionaries(st.text(max_size=6), st.text(max_size=6))),
        "method": st.one_of(values, st.sampled_from(["get", "PUT", "CONNECT"])),
        "path": st.one_of(values, st.text(max_size=9).map(lambda text: f"/{text}")),
        "status": st.one_of(values, st.integers(0, 700)),
        "expect": st.one_of(
            values,
            st.dictionaries(
                st.sampled_from(["contains", "matches", "json", "json_matches"]), values
            ),
        ),
        "weight": values,
    },
)


def assert_read_or_refused(path: Path, text: bytes) -> list[Payload]:
    """The file is read, or refused in sentences that name the file and a line."""
    path.write_bytes(text)
    try:
        return read_payloads(path)
    except PayloadError as error:
        for problem in error.problems:
            assert str(path) in problem and "Traceback" not in problem
            assert "\n" not in problem.replace(str(path), "") and len(problem) < 1000
    return []


@fuzz
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda t: t.encode("utf-8", "replace"))))  # fmt: skip
@example(b"\xef\xbb\xbf")
@example(b'{"body":{"":"\xed\xa0\x80"}}')
@example(b"[" * 5000)
def test_read_payloads_never_fails_on_text(path: Path, text: bytes) -> None:
    assert_read_or_refused(path, text)


@fuzz
@given(st.lists(objects, min_size=1, max_size=3), st.sampled_from([None, 2]), st.booleans())
def test_read_payloads_never_fails_on_objects(
    path: Path, found: list[Any], indent: int | None, as_array: bool
) -> None:
    text = (
        json.dumps(found, indent=indent)
        if as_array
        else "\n".join(json.dumps(value, indent=indent) for value in found)
    )
    assert_read_or_refused(path, text.encode())


@fuzz
@given(st.lists(objects, min_size=1, max_size=2), st.data())
def test_read_payloads_never_fails_on_damaged_files(
    path: Path, found: list[Any], data: st.DataObject
) -> None:
    text = bytearray("\n".join(json.dumps(value) for value in found).encode())
    place = data.draw(st.integers(0, len(text)))
    text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert_read_or_refused(path, bytes(text))


@fuzz
@given(st.dictionaries(st.text(), st.recursive(st.text(), st.lists)), st.sampled_from([None, 1, 4]))
def test_read_payloads_sends_json_as_it_is_written(
    path: Path, body: dict[str, Any], indent: int | None
) -> None:
    written = json.dumps(body, indent=indent)
    (payload,) = assert_read_or_refused(path, f'{{"body": {written} }}'.encode())
    assert payload.body == written.encode()
