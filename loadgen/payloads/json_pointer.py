"""Fields of a JSON document by JSON Pointer (RFC 6901). Pure."""

from __future__ import annotations

import re
from typing import Any

#: The value of a field that a document does not have.
MISSING = object()


def check_pointer(pointer: str) -> None:
    """Raise ValueError if a text is not a JSON Pointer."""
    if pointer and not pointer.startswith("/"):
        likely = "/" + "/".join(re.findall(r"[^\[\].$'\"/]+", pointer))
        raise ValueError(
            f"a field is named by a JSON Pointer such as /predictions/0/label (got {pointer!r}; "
            f"perhaps {likely!r})"
        )
    if re.search("~(?![01])", pointer):
        raise ValueError(f"'~' must be written as ~0 in the JSON Pointer {pointer!r}")


def resolve(document: Any, pointer: str) -> Any:
    """Return the field of a parsed document; `MISSING` if there is none."""
    for token in pointer.split("/")[1:]:
        if isinstance(document, dict):
            document = document.get(token.replace("~1", "/").replace("~0", "~"), MISSING)
        elif isinstance(document, list) and re.fullmatch("0|[1-9][0-9]{0,17}", token):
            index = int(token)
            document = document[index] if index < len(document) else MISSING
        else:
            return MISSING
    return document


def is_same(found: Any, expected: Any) -> bool:
    """Return whether two parsed JSON values are equal: 1 is 1.0, and neither is true."""
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(is_same(found[key], value) for key, value in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(map(is_same, found, expected))
        )
    return bool(found == expected)
