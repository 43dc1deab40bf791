"""Bodies of the type multipart/form-data (RFC 7578). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of a form.

    Attributes:
        content_type: None for a plain field.
        filename: None for a field, which then is no file.
    """

    name: str
    body: bytes
    content_type: str | None = None
    filename: str | None = None

    def encode(self) -> bytes:
        """Return the part's headers and body."""
        head = f'Content-Disposition: form-data; name="{_quoted(self.name)}"'
        if self.filename is not None:
            head += f'; filename="{_quoted(self.filename)}"'
        if self.content_type is not None:
            head += f"\r\nContent-Type: {self.content_type}"
        return f"{head}\r\n\r\n".encode() + self.body


def encode_form(parts: Sequence[Part]) -> tuple[str, bytes]:
    """Return the content type and the body of a form; equal parts give equal bytes."""
    encoded = [part.encode() for part in parts]
    digest = hashlib.sha256(b"".join(encoded))
    while (boundary := f"servetune-{digest.hexdigest()[:32]}").encode() in b"\n".join(encoded):
        digest.update(b"again")
    pieces = [f"--{boundary}\r\n".encode() + part + b"\r\n" for part in encoded]
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", body


def _quoted(text: str) -> str:
    """Return a name as browsers write it in a header."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
