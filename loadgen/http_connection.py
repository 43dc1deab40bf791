"""One client connection as a state machine: idle, waiting for an answer, or closed.

No task, future or timer belongs to a connection. One request is outstanding at most, so an answer
needs no number, and a body is never omitted, because no HEAD request is sent.
"""

from __future__ import annotations

import asyncio
import zlib
from contextlib import suppress
from typing import Any, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from loadgen.posting import Post, Receiver

#: Window bits with which zlib detects gzip and deflate.
_ANY_HEADER = 47
#: In a longer beginning of an answer, the headers are parsed, not searched.
_SEARCHED_BYTES = 4096


class Pool(Protocol):
    """Owns connections."""

    receiver: Receiver

    def freed(self, connection: HttpConnection) -> None:
        """Use the connection for the next post."""
        ...

    def lost(self, connection: HttpConnection) -> None:
        """Forget the connection, which has ended."""
        ...


class HttpConnection(asyncio.Protocol):
    """A keep-alive connection to an HTTP/1.1 server.

    Attributes:
        post: the outstanding post; None if there is none.
        is_open: whether another post can be sent.
        lease: aiohttp's record of the connection, which its owner closes.
    """

    #: Read by aiohttp's connector, which must not keep the connection.
    should_close, closed = True, None

    def __init__(self, pool: Pool):
        self._pool, self._receiver = pool, pool.receiver
        self.transport: Any = None
        self.post: Post | None = None
        self.is_open = False
        self.lease: Any = None
        self._chunks: list[bytes] = []
        #: A whole answer: its status, its body, and whether the server keeps the connection.
        self._answer: tuple[int, bytes, bool] | None = None
        self._is_writing = False
        #: Data followed an answer; it belongs to no request.
        self._surplus = False
        #: Of an answer that arrives in parts: its beginning, then its head.
        self._beginning = b""
        self._head: _Head | None = None
        self._has_begun = self._head_complete = False
        # Read by the parser when it is created; a method of this class would cost a call.
        self.on_body = self._chunks.append
        self._parser = _parser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self.transport = transport
        # What is written is sent at once: a queue would cost CPU, and send late.
        self.transport.set_write_buffer_limits(high=0)
        self.is_open = True

    def pause_writing(self) -> None:
        """Note that the kernel has not yet taken the whole request."""
        self._is_writing = True

    def resume_writing(self) -> None:
        """Note that the request has left."""
        self._is_writing = False

    def send(self, post: Post, pieces: tuple[bytes, ...]) -> None:
        """Send a request; the connection must be open and idle."""
        self.post = post
        for piece in pieces:
            self.transport.write(piece)

    def data_received(self, data: bytes) -> None:
        """Parse a part of an answer; hand over the answer once it is whole."""
        post = self.post
        if post is None:
            # Nothing was asked for; it could be taken for the next answer.
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._surplus = True
        except HttpParserError:
            self.fail("malformed answer")
            return
        if self._answer is None:
            if self._head is None:
                self._keep_beginning(data)
            return
        head, self._head = self._head, None
        if head is None:
            if self._beginning:
                data, self._beginning = self._beginning + data, b""
            # `find` costs half of `in`.
            if len(data) > _SEARCHED_BYTES or data.lower().find(b"content-encoding") >= 0:
                head = _Head(data)
        self._hand_over(post, head, *self._answer)

    def _keep_beginning(self, data: bytes) -> None:
        """Keep the beginning of an answer until its head is whole, and then the head."""
        if not self._has_begun:
            self._beginning = b""  # Only 1xx came.
            return
        self._beginning += data
        if self._head_complete:
            self._head, self._beginning = _Head(self._beginning), b""

    def _hand_over(
        self, post: Post, head: _Head | None, status: int, body: bytes, keep_alive: bool
    ) -> None:
        self._answer = None
        if head is not None:
            try:
                body = _decompressed(body, head.encoding)
            except (zlib.error, ValueError):
                self.fail("incomplete body")
                return
        self.post = None
        if not keep_alive or self._surplus or self._is_writing:
            self.close()
        elif self.is_open:
            self._pool.freed(self)
        self._receiver.answered(post, status, body)

    def fail(self, cause: str) -> None:
        """End the connection, and its post as failed."""
        post, self.post = self.post, None
        self.abort()
        if post is not None:
            self._receiver.failed(post, cause)

    def close(self) -> None:
        """Close the connection; what was written is sent first."""
        self.is_open = False
        self.transport.close()

    def abort(self) -> None:
        """Close the connection now. Its post, if there is one, gets no result."""
        self.is_open = False
        self.post = None
        self.transport.abort()

    def eof_received(self) -> None:
        """Note that the server sends nothing more; the transport closes itself."""
        self.is_open = False

    def connection_lost(self, error: Exception | None) -> None:
        """End the post: a body without a length is whole, every other answer is incomplete."""
        self.is_open = False
        post, self.post = self.post, None
        status = self._parser.get_status_code() if self._head_complete else 0
        # The parser refers to this object, and this object to the parser.
        del self._parser, self.on_body
        self._pool.lost(self)
        if post is None:
            return
        if not self._head_complete:
            self._receiver.failed(post, "disconnected" if error is None else "reset")
            return
        head = self._head or _Head(self._beginning)
        try:
            if head.is_delimited or error is not None:
                raise ValueError("truncated")
            body = _decompressed(b"".join(self._chunks), head.encoding)
        except (zlib.error, ValueError):
            self._receiver.failed(post, "incomplete body")
        else:
            self._receiver.answered(post, status, body)

    # The parser calls the following methods.

    def on_message_begin(self) -> None:
        """Begin an answer."""
        self._has_begun = True
        if self._answer is not None:
            self._surplus = True

    def on_headers_complete(self) -> None:
        """Note that the body follows."""
        self._head_complete = True

    def on_message_complete(self) -> None:
        """Keep a final answer; 1xx announces one."""
        status = self._parser.get_status_code()
        if self._answer is not None:
            self._surplus = True
        elif _is_final(status):
            chunks = self._chunks
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._answer = status, body, self._parser.should_keep_alive()
            chunks.clear()
        else:
            self._has_begun = False
        self._head_complete = False


class _Head:
    """The headers of an answer's beginning that determine the length and encoding of its body.

    They are parsed here, and only if they count, because reading the headers of every answer would
    cost a quarter of the client's own time.
    """

    def __init__(self, beginning: bytes):
        self.encoding, self.is_delimited = b"", False
        self._is_final = False
        self._parser = _parser(self)
        with suppress(HttpParserError, HttpParserUpgrade):
            self._parser.feed_data(beginning)
        del self._parser

    # The parser calls the following methods.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header of the final answer."""
        if self._is_final:
            return  # A trailer.
        match name.lower():
            case b"content-length":
                self.is_delimited = True
            case b"content-encoding":
                self.encoding = value.strip().lower()
            case b"transfer-encoding":
                self.is_delimited = value.rstrip().lower().endswith(b"chunked")

    def on_headers_complete(self) -> None:
        """Forget the headers of an answer that announces another one."""
        if self._is_final:
            return  # Another answer, which nobody asked for.
        self._is_final = _is_final(self._parser.get_status_code())
        if not self._is_final:
            self.encoding, self.is_delimited = b"", False


def _parser(protocol: object) -> HttpResponseParser:
    parser = HttpResponseParser(protocol)
    # As in aiohttp: servers that break these rules are measured all the same.
    parser.set_dangerous_leniencies(
        lenient_headers=True,
        lenient_optional_cr_before_lf=True,
        lenient_spaces_after_chunk_size=True,
    )
    return parser


def _is_final(status: int) -> bool:
    """Return whether no other answer to the same request follows."""
    return status >= 200 or status == 101


def _decompressed(body: bytes, encoding: bytes) -> bytes:
    """Return a decompressed body.

    Raises:
        ValueError: the encoding is none that this package knows, or the body is truncated.
        zlib.error: the body is corrupt.
    """
    if encoding in (b"", b"identity") or not body:
        return body
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        raise ValueError(f"unknown encoding: {encoding!r}")
    # Some servers send deflate without zlib's header, whose first byte is even in its low half.
    raw = encoding == b"deflate" and body[0] & 0xF != 8
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS if raw else _ANY_HEADER)
    whole = decompressor.decompress(body) + decompressor.flush()
    if not decompressor.eof:
        raise ValueError("truncated")
    return whole
