"""Turn the members of one JSON object of a requests file into a payload."""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from loadgen.payloads.http_syntax import METHODS_WITH_BODY, check_headers, encode_target
from loadgen.payloads.multipart import Part, encode_form
from loadgen.payloads.payload import Payload
from loadgen.payloads.text import Member, Members, scan_objects, shortened, shown

_BODIES = ("body", "body_base64", "file", "multipart")
_KEYS = (*_BODIES, "content_type", "expect", "headers", "method", "path", "status", "weight")
_PART_BODIES = ("body", "body_base64", "file")
_PART_KEYS = (*_PART_BODIES, "content_type", "filename", "name")
_EXPECTATIONS = ("contains", "json", "json_matches", "matches")
#: What other tools call a key.
_OTHER_NAMES = {
    **dict.fromkeys(("url", "uri", "endpoint", "route"), "path"),
    **dict.fromkeys(("data", "payload", "content", "text"), "body"),
    **dict.fromkeys(("base64", "b64", "data_base64", "isBase64Encoded"), "body_base64"),
    **dict.fromkeys(("form", "files", "parts", "fields"), "multipart"),
    **dict.fromkeys(("status_code", "statuses", "code", "codes"), "status"),
    **dict.fromkeys(("verb", "http_method"), "method"),
    "Content-Type": "content_type",
    "header": "headers",
}
_TEXT_TYPE = "text/plain; charset=utf-8"
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s;"']+)""", re.IGNORECASE)

#: Returns the bytes of a file that a request names.
ReadFile = Callable[[str], bytes]


def build_payload(members: Members, read_file: ReadFile) -> Payload:
    """Return the payload that a JSON object describes.

    Raises:
        ValueError: the object describes no request that can be sent; one sentence.
        OSError: a file cannot be read.
    """
    _check_keys(members, _KEYS)
    values = {key: member.value for key, member in members.items()}
    method = _text(values, "method").upper() if "method" in values else "POST"
    headers = _headers(values)
    given = next((text for name, text in headers.items() if name.lower() == "content-type"), None)
    if given is not None and "content_type" in values:
        raise ValueError("content_type and headers both set Content-Type; keep one")
    if given is None and "content_type" in values:
        given = _text(values, "content_type")
    kinds = [key for key in _BODIES if key in values]
    body, kind = b"", None
    if len(kinds) > 1 or (not kinds and method in METHODS_WITH_BODY):
        raise ValueError(f"exactly one of {_listed(_BODIES)} is required")
    if "multipart" in values:
        if given is not None:
            raise ValueError("multipart sets the content type itself; remove content_type")
        kind, body = _form(members["multipart"], read_file)
    elif kinds:
        body, kind = _body(members, given, read_file)
    if given is None and kind is not None:
        headers = {"Content-Type": kind, **headers}
    elif given is not None and "content_type" in values:
        headers = {"Content-Type": given, **headers}
    return Payload(
        body,
        headers,
        path=encode_target(_text(values, "path")) if "path" in values else None,
        method=method,
        status=_status(values.get("status", 200)),
        weight=_weight(values.get("weight", 1.0)),
        **_expectations(values.get("expect", {})),
    )


def named_files(members: Members) -> Iterator[str]:
    """Yield the names of the files that a request reads; none if it is not valid."""
    objects: Sequence[Members] = [members]
    if "multipart" in members:
        try:
            objects = [members, *scan_objects(members["multipart"].source)]
        except ValueError:
            return
    for found in objects:
        if "file" in found and isinstance(found["file"].value, str):
            yield found["file"].value


def _check_keys(found: Collection[str], known: Sequence[str], where: str = "") -> None:
    unknown = [key for key in found if key not in known]
    if not unknown:
        return
    key = unknown[0]
    likely = _OTHER_NAMES.get(key)
    if likely not in known:
        likely = next(iter(difflib.get_close_matches(key, known, 1)), None)
    hint = f", perhaps {likely!r}" if likely is not None else ""
    if not hint and not where and len(unknown) == len(found):
        hint = ' (if this object is the body, write one request per line: {"body": {…}})'
    raise ValueError(f"unknown key {where + key!r}{hint}; known keys are {', '.join(known)}")


def _text(values: Mapping[str, Any], key: str, name: str = "") -> str:
    value, name = values[key], name or key
    if not isinstance(value, str):
        remedy = "remove it" if value is None else "write it in double quotes"
        raise ValueError(f"{name} must be a string (got {shown(value)}); {remedy}")
    if re.search("[\ud800-\udfff]", value):
        raise ValueError(f"{name} contains half of a surrogate pair, which is not text")
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        remedy = "; remove it" if value is None else ""
        raise ValueError(f"{name} must be a JSON object (got {shown(value)}){remedy}")
    return value


def _headers(values: Mapping[str, Any]) -> dict[str, str]:
    headers = _object(values.get("headers", {}), "headers")
    headers = {name: _text(headers, name, f"header {name}") for name in headers}
    # Before the rest, since other parts depend on the content type.
    check_headers(headers)
    return headers


def _body(members: Members, given: str | None, read_file: ReadFile) -> tuple[bytes, str]:
    """Return a body and its default content type; text is encoded in the charset that is given."""
    if "file" in members:
        return read_file(_text({"file": members["file"].value}, "file")), "application/octet-stream"
    if "body_base64" in members:
        text = _text({"body_base64": members["body_base64"].value}, "body_base64")
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"body_base64 is not base64: {error}") from None
        return data, "application/octet-stream"
    value = members["body"].value
    if isinstance(value, str):
        text, kind = _text({"body": value}, "body"), _TEXT_TYPE
    elif isinstance(value, dict | list):
        # As it is in the file: another writer of JSON would change numbers, escapes and spaces.
        text, kind = members["body"].source, "application/json"
    else:
        source = members["body"].source
        raise ValueError(
            f"body must be a JSON object, an array or a string (got {shortened(source)}); to send "
            'that as JSON, write it as a string and add "content_type": "application/json"'
        )
    charset = _CHARSET.search(given or "")
    try:
        return text.encode(charset[1] if charset else "utf-8"), kind
    except LookupError:
        raise ValueError(f"unknown charset in the content type {given!r}") from None
    except UnicodeError:
        raise ValueError(f"body has characters that the content type {given!r} lacks") from None


def _form(member: Member, read_file: ReadFile) -> tuple[str, bytes]:
    form = "multipart must be an array of parts, such as " + '{"name": "data", "file": "cat.jpg"}'
    if not isinstance(member.value, list) or not member.value:
        raise ValueError(f"{form} (got {shown(member.value)})")
    if not all(isinstance(part, dict) for part in member.value):
        raise ValueError(form)
    objects = scan_objects(member.source)
    return encode_form(
        [_part(part, f"multipart[{i}].", read_file) for i, part in enumerate(objects)]
    )


def _part(members: Members, where: str, read_file: ReadFile) -> Part:
    _check_keys(members, _PART_KEYS, where)
    values = {key: member.value for key, member in members.items()}
    if "name" not in values:
        raise ValueError(f"{where}name is missing")
    kinds = [key for key in _PART_BODIES if key in values]
    if len(kinds) != 1:
        raise ValueError(f"{where[:-1]}: exactly one of {_listed(_PART_BODIES)} is required")
    given = (
        _text(values, "content_type", f"{where}content_type") if "content_type" in values else None
    )
    filename = _text(values, "filename", f"{where}filename") if "filename" in values else None
    try:
        check_headers({"Content-Type": given or ""})
        body, kind = _body(members, given, read_file)
    except ValueError as error:
        raise ValueError(f"{where[:-1]}: {error}") from None
    if filename is None and "file" in values:
        filename = PurePath(values["file"]).name
    # A plain field has no content type, as in a form of a browser.
    is_field = kind == _TEXT_TYPE and filename is None
    name = _text(values, "name", f"{where}name")
    return Part(name, body, given or (None if is_field else kind), filename)


def _status(value: Any) -> tuple[int, ...]:
    codes = value if isinstance(value, list) else [value]
    for code in codes:
        if isinstance(code, bool) or not isinstance(code, int):
            raise ValueError(
                f"status must be a code such as 200, or an array of codes (got {shown(code)})"
            )
    return tuple(codes)


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"weight must be a number above 0 (got {shown(value)})")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"weight must be a number above 0 (got {shown(value)})") from None


def _expectations(value: Any) -> dict[str, Any]:
    """Return the expectations under the names of `Payload`'s attributes."""
    expect = _object(value, "expect")
    if "status" in expect:
        raise ValueError("expect.status: write status beside expect, not in it")
    _check_keys(expect, _EXPECTATIONS, "expect.")
    found: dict[str, Any] = {}
    for key in ("contains", "matches"):
        if key in expect:
            found[key] = _text(expect, key, f"expect.{key}")
    if "matches" in found:
        _check_pattern(found["matches"], "expect.matches")
    found["fields"] = _object(expect.get("json", {}), "expect.json")
    patterns = _object(expect.get("json_matches", {}), "expect.json_matches")
    for pointer in patterns:
        _check_pattern(_text(patterns, pointer, f"expect.json_matches {pointer}"), pointer)
    found["field_matches"] = patterns
    return found


def _check_pattern(pattern: str, name: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{name} is not a regular expression: {error}") from None


def _listed(names: Sequence[str]) -> str:
    *first, last = [f"'{name}'" for name in names]
    return f"{', '.join(first)} and {last}"
