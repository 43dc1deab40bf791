"""Tests of forms, read back by the parser of the standard library."""

from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from loadgen.payloads import read_payloads
from loadgen.payloads.multipart import Part, encode_form


def parse(kind: str, body: bytes) -> list[Message]:
    """Return the parts of a form."""
    whole = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    assert whole.is_multipart() and not whole.defects
    return list(whole.iter_parts())  # type: ignore[attr-defined]


def test_encode_form_writes_each_kind_of_part(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8\r\n--\r\n")
    path = tmp_path / "requests.jsonl"
    path.write_text(
        '{"multipart": [{"name": "data", "file": "cat.jpg", "content_type": "image/jpeg"},'
        '{"name": "n\\"a", "body": "é"}, {"name": "j", "body": {"a": 1.50}},'
        '{"name": "b", "body_base64": "/9g=", "filename": "b.bin"}]}'
    )
    (payload,) = read_payloads(path)
    kind = payload.headers["Content-Type"]
    boundary = kind.removeprefix("multipart/form-data; boundary=").encode()
    assert payload.body == b"".join(
        b"--" + boundary + b"\r\n" + part + b"\r\n"
        for part in (
            b'Content-Disposition: form-data; name="data"; filename="cat.jpg"\r\n'
            b"Content-Type: image/jpeg\r\n\r\n\xff\xd8\r\n--\r\n",
            'Content-Disposition: form-data; name="n%22a"\r\n\r\né'.encode(),
            b'Content-Disposition: form-data; name="j"\r\n'
            b'Content-Type: application/json\r\n\r\n{"a": 1.50}',
            b'Content-Disposition: form-data; name="b"; filename="b.bin"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n\xff\xd8",
        )
    ) + b"--" + boundary + b"--\r\n"  # fmt: skip
    assert read_payloads(path) == [payload], "equal forms must be equal bytes"


@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans()), min_size=1, max_size=3))
def test_encode_form_keeps_every_byte(contents: list[tuple[bytes, bool]]) -> None:
    parts = [
        Part("a", body, "application/octet-stream", "f" if is_file else None)
        for body, is_file in contents
    ]
    kind, body = encode_form(parts)
    boundary = kind.partition("boundary=")[2].encode()
    pieces = body.split(b"--" + boundary)
    assert pieces[0] == b"" and pieces[-1] == b"--\r\n"
    found = [piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in pieces[1:-1]]
    assert found == [content for content, _ in contents]


def test_encode_form_is_read_by_another_parser() -> None:
    parts = [Part("a", b"text"), Part("b", b"x", "text/csv", "b.csv")]
    first, second = parse(*encode_form(parts))
    assert first.get_param("name", header="content-disposition") == "a"
    assert first.get_payload(decode=True) == b"text"
    assert (second.get_filename(), second.get_content_type()) == ("b.csv", "text/csv")
