"""Tests of both posters, which must return the same for each server in a table."""

import asyncio
import contextlib
import errno
import gzip
import os
import socket
import ssl
import struct
import subprocess
import zlib
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from loadgen.connection import Connections, Sessions, connections_to, supported, target_url
from loadgen.errors import PayloadError
from loadgen.http_connection import HttpConnection
from loadgen.payloads import Payload
from loadgen.payloads.http_syntax import encode_target
from loadgen.posting import Post, Poster

PAYLOAD = Payload(b'{"a": 1}', {"Content-Type": "application/json", "X-Own": "y"})
LARGE = bytes(range(256)) * 8192
PACKED = gzip.compress(b"ok")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

#: Causes of failures for which a server is responsible.
FAILURES = {"disconnected", "incomplete body", "malformed answer", "reset", "timeout"}

Outcome = tuple[int, bytes] | str
Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Server:
    """A server that performs the same steps for every request.

    Bytes are written, a float is a pause in seconds; "close" and "reset" end the connection.
    """

    def __init__(self, steps: list[Any]):
        self.steps, self.connections, self.requests = steps, 0, list[bytes]()
        self.ended: asyncio.Queue[None] = asyncio.Queue()
        self.asked = asyncio.Event()
        #: Ends every pause.
        self.released = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                self.asked.set()
                for step in self.steps:
                    match step:
                        case bytes():
                            writer.write(step)
                            await writer.drain()
                        case float():
                            with contextlib.suppress(TimeoutError):
                                async with asyncio.timeout(step):
                                    await self.released.wait()
                        case "close":
                            await self._end(writer)
                            return
                        case "reset":
                            await asyncio.sleep(0.01)
                            connection = writer.get_extra_info("socket")
                            connection.setsockopt(
                                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                            )
                            writer.transport.abort()
                            await self._end(writer)
                            return
                        case "half-close":
                            writer.write_eof()
                            await reader.read()
                            await self._end(writer)
                            return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.ended.put_nowait(None)

    async def settled(self) -> None:
        """Wait until the poster can know that the server has ended the last connection."""
        if self.steps[-1] in ("close", "reset", "half-close"):
            await self.ended.get()
        for _ in range(10):
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(server: Server, host: str = "127.0.0.1", **options: Any):
    """Run a server; yield its port."""
    listening = await asyncio.start_server(server, host, 0, **options)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


class Results:
    """Keeps the results of posts, in the order in which they come."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[Post, Outcome]] = asyncio.Queue()

    def answered(self, post: Post, status: int, body: bytes) -> None:
        self.queue.put_nowait((post, (status, body)))

    def failed(self, post: Post, cause: str) -> None:
        self.queue.put_nowait((post, cause))

    def unsent(self, post: Post) -> None:
        self.queue.put_nowait((post, "unsent"))

    def broken(self, error: Exception) -> None:
        self.queue.put_nowait(((PAYLOAD, 0.0, 0.0), repr(error)))

    async def of(self, poster: Poster, payload: Payload, within_s: float = 30.0) -> Outcome:
        """Post a payload and return its result."""
        assert self.queue.empty(), "each post has one result"
        poster.post((payload, 0.0, 0.0))
        timer = asyncio.get_running_loop().call_later(within_s, poster.expire, 1.0)
        try:
            return (await self.queue.get())[1]
        finally:
            timer.cancel()


async def outcomes(
    url: str,
    fast: bool,
    payload: Payload = PAYLOAD,
    posts: int = 2,
    server: Server | None = None,
    within_s: float = 30.0,
):
    """Post and return each answer, or the cause of its failure."""
    answers: list[Outcome] = []
    results = Results()
    async with connections_to(url, [payload], results, fast) as poster:
        assert type(poster) is (Connections if fast else Sessions)
        for _ in range(posts):
            answers.append(await results.of(poster, payload, within_s))
            if server is not None:
                await server.settled()
    assert results.queue.empty()
    return answers


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param


@pytest.fixture(params=[True, False], ids=["fast", "session"])
def fast(request: pytest.FixtureRequest) -> bool:
    return request.param


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("sentence", "steps", "outcome", "connections"),
    [
        ("a connection is kept", [OK], (200, b"ok"), 1),
        ("chunks are joined", [CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n"], (200, b"ok"), 1),
        ("chunks may be split", [CHUNKED + b"1\r\no", 0.02, b"\r\n1\r\nk\r\n0\r\n", 0.02, b"\r\n"], (200, b"ok"), 1),
        ("an answer may come byte by byte", [bytes([b]) for b in OK], (200, b"ok"), 1),
        ("a large body may arrive in pieces", [answer("200 OK", LARGE)[:70000], 0.02, answer("200 OK", LARGE)[70000:]], (200, LARGE), 1),
        ("a large chunked body may arrive in pieces", [CHUNKED, *[b"1000\r\n" + LARGE[i : i + 4096] + b"\r\n" for i in range(0, len(LARGE), 4096)], b"0\r\n\r\n"], (200, LARGE), 1),
        ("204 has no body", [b"HTTP/1.1 204 No Content\r\n\r\n"], (204, b""), 1),
        ("304 has no body despite its length", [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"], (304, b""), 1),
        ("a body may be empty", [answer("200 OK")], (200, b""), 1),
        ("4xx is a status", [answer("404 Not Found", b"no")], (404, b"no"), 1),
        ("5xx is a status", [answer("503 Busy", b"later")], (503, b"later"), 1),
        ("a redirect is not followed", [answer("302 Found", b"", "Location: /elsewhere")], (302, b""), 1),
        ("Connection: close ends the connection", [answer("200 OK", b"ok", "Connection: close"), "close"], (200, b"ok"), 2),
        ("Connection: close ends it even if the server does not", [answer("200 OK", b"ok", "Connection: close")], (200, b"ok"), 2),
        ("HTTP/1.0 closes", [b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "close"], (200, b"ok"), 2),
        ("a body without a length ends with the connection", [b"HTTP/1.1 200 OK\r\n\r\no", 0.02, b"k", "close"], (200, b"ok"), 2),
        ("a kept connection that was closed while idle is replaced", [OK, "close"], (200, b"ok"), 2),
        ("a kept connection that was reset while idle is replaced", [OK, "reset"], (200, b"ok"), 2),
        ("closed before the answer", ["close"], "disconnected", 2),
        ("closed in the head", [b"HTTP/1.1 200 OK\r\nConte", "close"], "disconnected", 2),
        ("reset before the answer", ["reset"], "reset", 2),
        ("reset in the body", [answer("200 OK", LARGE)[:500], "reset"], "incomplete body", 2),
        ("closed in the body", [OK[:-1], "close"], "incomplete body", 2),
        ("closed between chunks", [CHUNKED + b"1\r\no\r\n", "close"], "incomplete body", 2),
        ("no answer", [60.0], "timeout", 2),
        ("an answer that stops", [OK[:-1], 60.0], "timeout", 2),
        ("not HTTP", [b"HELLO\r\n\r\n"], "malformed answer", 2),
        ("a chunk without a length", [CHUNKED + b"x\r\n"], "malformed answer", 2),
        ("100 is not the answer", [b"HTTP/1.1 100 Continue\r\n\r\n" + OK], (200, b"ok"), 1),
        ("103 is not the answer", [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.02, OK], (200, b"ok"), 1),
        ("a compressed body is decompressed", [answer("200 OK", PACKED, "Content-Encoding: gzip")], (200, b"ok"), 1),
        ("1xx may come with the answer's head", [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK[:20], 0.02, OK[20:]], (200, b"ok"), 1),
        ("1xx alone is no answer", [b"HTTP/1.1 100 Continue\r\n\r\n", "close"], "disconnected", 2),
        ("a compressed body may have no length", [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + PACKED, "close"], (200, b"ok"), 2),
        ("a compressed body without a length may be corrupt", [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b" + b"no gzip!" * 4, "close"], "incomplete body", 2),
        ("deflate is decompressed", [answer("200 OK", zlib.compress(b"ok"), "Content-Encoding: Deflate")], (200, b"ok"), 1),
        ("deflate may lack its header", [answer("200 OK", zlib.compress(b"ok", wbits=-15), "Content-Encoding: deflate")], (200, b"ok"), 1),
        ("a compressed body may come in chunks", [CHUNKED[:-2] + b"content-encoding: gzip\r\n\r\n" + b"%x\r\n" % len(PACKED) + PACKED[:9], 0.02, PACKED[9:] + b"\r\n0\r\n\r\n"], (200, b"ok"), 1),
        ("an encoding has a name of any case", [answer("200 OK", PACKED, "cONTENT-eNCODING: GZIP")], (200, b"ok"), 1),
        ("an encoding may arrive in parts", [answer("200 OK", PACKED, "Content-Encoding: gzip")[:25], 0.02, answer("200 OK", PACKED, "Content-Encoding: gzip")[25:]], (200, b"ok"), 1),
        ("an encoding may follow a long header", [answer("200 OK", PACKED, "X: " + "x" * 5000, "Content-Encoding: gzip")], (200, b"ok"), 1),
        ("an encoding may arrive before its body", [answer("200 OK", PACKED, "Content-Encoding: gzip")[:-9], 0.02, PACKED[-9:]], (200, b"ok"), 1),
        ("an encoding may follow 1xx", [b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.02, answer("200 OK", PACKED, "Content-Encoding: gzip")], (200, b"ok"), 1),
        ("an encoding of 1xx is not the answer's", [b"HTTP/1.1 103 Early Hints\r\nContent-Encoding: gzip\r\n\r\n" + OK], (200, b"ok"), 1),
        ("an encoding in a body is text", [answer("200 OK", b"\r\nContent-Encoding: gzip\r\n\r\n")], (200, b"\r\nContent-Encoding: gzip\r\n\r\n"), 1),
        ("an encoding in a trailer comes too late", [CHUNKED + b"2\r\nok\r\n0\r\nContent-Encoding: gzip\r\n\r\n"], (200, b"ok"), 1),
        ("a compressed body may be corrupt", [answer("200 OK", b"\x1f\x8b" + b"no gzip!" * 4, "Content-Encoding: gzip")], "incomplete body", 2),
        ("chunks may have extensions and trailers", [CHUNKED + b"2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n"], (200, b"ok"), 1),
        ("an unrequested second answer ends the connection", [OK + OK], (200, b"ok"), 2),
        ("data that is no answer may follow one", [OK + b"ok"], "malformed answer", 2),
        ("data may follow the last answer", [answer("200 OK", b"ok", "Connection: close") + b"ok"], "malformed answer", 2),
        ("a half-closed connection after the answer is replaced", [OK, "half-close"], (200, b"ok"), 2),
        ("a half-closed connection before the answer has none", ["half-close"], "disconnected", 2),
        ("a half-closed connection ends a body without a length", [b"HTTP/1.1 200 OK\r\n\r\nok", "half-close"], (200, b"ok"), 2),
        ("an error may be followed by a reset", [answer("503 Busy", b"later", "Connection: close"), "reset"], (503, b"later"), 2),
        ("an error may be followed by an unannounced reset", [answer("400 Bad", b"no"), "reset"], (400, b"no"), 2),
        ("a transfer encoding that is not chunked ends with the connection", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", "close"], (200, b"ok"), 2),
        ("header names have any case", [b"HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh: 2\r\n\r\no", "close"], "incomplete body", 2),
        ("reasons and headers may be empty or long", [b"HTTP/1.1 200 \r\nX: \r\nY: " + b"y" * 4000 + b"\r\nContent-Length: 2\r\n\r\nok"], (200, b"ok"), 1),
        ("a large answer with an error status is a status", [answer("500 Oh", LARGE)], (500, LARGE), 1),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)  # fmt: skip
def test_posters_return_the_same(
    run: Run, fast: bool, sentence: str, steps: list[Any], outcome: Outcome, connections: int
) -> None:
    async def scenario() -> None:
        server = Server(steps)
        async with serving(server) as port:
            within_s = 0.4 if outcome == "timeout" else 30.0
            url = f"http://127.0.0.1:{port}/"
            found = await outcomes(url, fast, server=server, within_s=within_s)
            assert found == [outcome] * 2, sentence
            assert server.connections == connections, sentence

    run(scenario())


def test_connections_use_none_whose_request_was_not_read(run: Run, fast: bool) -> None:
    """An answer that precedes the end of its request leaves the rest of it in the connection."""

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer("413 Large", b"no"))

    async def scenario() -> None:
        large, results = Payload(bytes(2**26)), Results()
        async with serving(hasty, limit=2**10) as port:  # type: ignore[arg-type]
            async with connections_to(
                f"http://127.0.0.1:{port}/", [large], results, fast
            ) as poster:
                for _ in range(2):
                    assert await results.of(poster, large) == (413, b"no")
            assert len(opened) == 2
            for writer in opened:
                writer.close()

    opened: list[asyncio.StreamWriter] = []
    run(scenario())


@pytest.mark.parametrize("steps", [[OK + OK[:20]], [OK, 0.02, OK], [OK, 0.02, b"x"]])
def test_connections_use_none_with_unrequested_data(run: Run, steps: list[Any]) -> None:
    """It could be taken for the answer to the next request."""

    async def scenario() -> None:
        server = Server(steps)
        async with serving(server) as port:
            found = await outcomes(f"http://127.0.0.1:{port}/", True, server=server)
            assert found == [(200, b"ok")] * 2
            assert server.connections == 2

    run(scenario())


@pytest.mark.parametrize(
    ("host", "rest", "payload"),
    [
        ("127.0.0.1", "/predictions/m?a=1&b=%20x", PAYLOAD),
        ("127.0.0.1", "", Payload(b"")),
        ("[::1]", "/ü?q=ä", PAYLOAD),
        ("localhost", "/", Payload(LARGE, {"Host": "own", "accept": "text/plain"})),
        ("u:p@127.0.0.1", "/#part", Payload(b"x", {"Accept-Encoding": "gzip"})),
        ("u:p@127.0.0.1", "/a?b=c", Payload(b"x", path="/d%2Fe/%7e?f=%20")),
    ],
)
def test_posters_send_the_same(run: Run, host: str, rest: str, payload: Payload) -> None:
    async def scenario() -> None:
        sent = []
        for fast in (True, False):
            server = Server([answer("200 OK", b"ok", "Set-Cookie: a=b")])
            bound = {"[::1]": "::1", "localhost": "localhost"}.get(host, "127.0.0.1")
            async with serving(server, bound, limit=2**22) as port:
                url = f"http://{host}:{port}{rest}"
                assert await outcomes(url, fast, payload) == [(200, b"ok")] * 2
                sent.append([r.replace(str(port).encode(), b"PORT") for r in server.requests])
        assert sent[0] == sent[1]
        assert b"Cookie" not in sent[0][1], "a cookie of an answer must not be sent back"
        assert sent[0][0].endswith(payload.body)

    run(scenario())


@pytest.mark.parametrize(
    ("payload", "line", "headers", "absent"),
    [
        (Payload(b"x"), b"POST /own HTTP/1.1", [b"Content-Length: 1"], []),
        (Payload(b""), b"POST /own HTTP/1.1", [b"Content-Length: 0"], []),
        (Payload(b"x", path="/predictions/m/1.0/a?b=c%20d&e"), b"POST /predictions/m/1.0/a?b=c%20d&e HTTP/1.1", [], []),
        (Payload(b"x", path="/v1/models/m:predict"), b"POST /v1/models/m:predict HTTP/1.1", [], []),
        (Payload(b"x", path="/%7Eu/%C3%A9//x/;a=1,'(b)[c]"), b"POST /%7Eu/%C3%A9//x/;a=1,'(b)[c] HTTP/1.1", [], []),
        (Payload(b"x", path="/"), b"POST / HTTP/1.1", [], []),
        (Payload(b"", path="/ping", method="GET"), b"GET /ping HTTP/1.1", [], [b"content-length", b"content-type"]),
        (Payload(b"q", path="/x", method="GET"), b"GET /x HTTP/1.1", [b"Content-Length: 1"], []),
        (Payload(b"\0\xff", method="PUT"), b"PUT /own HTTP/1.1", [b"Content-Length: 2"], []),
        (Payload(b"", method="DELETE"), b"DELETE /own HTTP/1.1", [b"Content-Length: 0"], [b"content-type"]),
        (Payload(b"x", method="PATCH"), b"PATCH /own HTTP/1.1", [], []),
        (Payload(b"", method="OPTIONS"), b"OPTIONS /own HTTP/1.1", [], [b"content-length"]),
        (Payload(b"x", {"content-type": "a/b", "HOST": "pets.example.com"}), b"POST /own HTTP/1.1", [b"content-type: a/b", b"HOST: pets.example.com"], []),
        (Payload(b"x", {"X-Name": "é", "Cookie": "a=b", "Connection": "keep-alive"}), b"POST /own HTTP/1.1", ["X-Name: é".encode(), b"Cookie: a=b", b"Connection: keep-alive"], []),
        (Payload(b"\x1f\x8b", {"Content-Encoding": "gzip"}), b"POST /own HTTP/1.1", [b"Content-Encoding: gzip"], []),
        (Payload(LARGE, {"Content-Type": "multipart/form-data; boundary=b"}), b"POST /own HTTP/1.1", [b"Content-Type: multipart/form-data; boundary=b"], []),
    ],
)  # fmt: skip
def test_posters_send_each_shape_byte_for_byte(
    run: Run,
    fast: bool,
    payload: Payload,
    line: bytes,
    headers: list[bytes],
    absent: list[bytes],
) -> None:
    async def scenario() -> None:
        server = Server([OK])
        async with serving(server, limit=2**22) as port:
            url = f"http://127.0.0.1:{port}/own"
            assert await outcomes(url, fast, payload) == [(200, b"ok")] * 2
        assert len(set(server.requests)) == 1
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        found, *fields = head.split(b"\r\n")
        names = [field.partition(b":")[0].lower() for field in fields]
        assert (found, body) == (line, payload.body)
        assert set(headers) <= set(fields)
        assert len(names) == len(set(names)), "each header is sent once"
        assert not {*absent, b"transfer-encoding"} & set(names)

    run(scenario())


@settings(deadline=None)
@given(st.text(alphabet="ab/?=&%2eE.:;@[]!$'()*+,~-_é |", max_size=12))
def test_target_url_keeps_the_path_as_it_is(text: str) -> None:
    try:
        payload = Payload(b"", path=encode_target(f"/{text}"))
    except PayloadError:
        return
    for base in (URL("http://h:1/x"), URL("https://u:p@h/y?z=1"), URL("http://[::1]:8080")):
        url = target_url(base, payload)
        assert url.raw_path_qs == payload.path
        assert url.raw_authority == base.raw_authority


async def test_posters_send_a_head_request() -> None:
    payload = Payload(b"", method="HEAD", path="/ping")
    server = Server([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
    async with serving(server) as port:
        url, results = f"http://127.0.0.1:{port}/", Results()
        async with connections_to(url, [payload], results) as poster:
            for _ in range(2):
                assert await results.of(poster, payload) == (200, b"")
    assert server.requests[0].startswith(b"HEAD /ping HTTP/1.1\r\n")


@pytest.mark.timeout(3000)
@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")), deadline=None)
@given(
    head=st.sampled_from([OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n", answer("200 OK", PACKED, "Content-Encoding: gzip"), answer("200 OK", b"ok", "Content-Encoding: deflate")]),
    place=st.floats(0, 1, exclude_max=True),
    removed=st.integers(0, 8),
    added=st.binary(max_size=8),
    fast=st.booleans(),
)  # fmt: skip
def test_posters_never_fail_by_their_own_fault(
    head: bytes, place: float, removed: int, added: bytes, fast: bool
) -> None:
    """Whatever a server sends is an answer, or a failure of the connection or of the protocol."""
    start = int(place * len(head))
    sent = head[:start] + added + head[start + removed :]

    async def scenario() -> None:
        async with serving(Server([sent, "close"])) as port:
            found = await outcomes(f"http://127.0.0.1:{port}/", fast, within_s=10)
        for result in found:
            if isinstance(result, str):
                assert result in FAILURES
            else:
                assert isinstance(result[0], int) and isinstance(result[1], bytes)

    asyncio.run(scenario())


def test_posters_check_tls(
    run: Run, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate,
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def scenario() -> None:
        server = Server([answer("200 OK", LARGE)])
        async with serving(server, ssl=context) as port:
            url = f"https://127.0.0.1:{port}/"
            refused = await outcomes(url, fast, posts=1)
            assert "CERTIFICATE_VERIFY_FAILED" in str(refused[0])
            trusting = ssl.create_default_context(cafile=certificate)
            monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
            assert await outcomes(url, fast) == [(200, LARGE)] * 2
            assert len(server.requests) == 2

    run(scenario())


def test_posters_raise_for_a_refused_connection(run: Run, fast: bool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        assert run(outcomes(url, fast, posts=1)) == ["connection refused"]


def test_connections_close_after_an_expired_post(run: Run, fast: bool) -> None:
    async def scenario() -> None:
        server, results = Server([60.0]), Results()
        async with serving(server) as port:
            url = f"http://127.0.0.1:{port}/"
            async with connections_to(url, [PAYLOAD], results, fast) as poster:
                poster.post((PAYLOAD, 1.0, 1.0))
                await server.asked.wait()
                poster.expire(1.0)
                assert results.queue.empty(), "it was due at this time, not before"
                poster.expire(1.5)
                assert (await results.queue.get())[1] == "timeout"
                server.steps = [OK]
                assert await results.of(poster, PAYLOAD) == (200, b"ok")
                assert server.connections == 2

    run(scenario())


def test_connections_match_concurrent_answers_to_their_posts(run: Run, fast: bool) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                writer.write(answer("200 OK", await reader.readexactly(length)))
        writer.close()

    async def scenario() -> None:
        payloads, results = [Payload(str(i).encode()) for i in range(50)], Results()
        async with serving(echo) as port:  # type: ignore[arg-type]
            url = f"http://127.0.0.1:{port}/"
            async with connections_to(url, payloads, results, fast) as poster:
                for _ in range(3):
                    for payload in payloads:
                        poster.post((payload, 0.0, 0.0))
                    for _ in payloads:
                        post, result = await results.queue.get()
                        assert result == (200, post[0].body)
                assert results.queue.empty()

    run(scenario())


def test_connections_serve_waiting_posts_with_the_first_free_connection(run: Run) -> None:
    """Posts that come before a connection is open are sent in order, on as many as there are."""

    async def scenario() -> None:
        server, results = Server([OK]), Results()
        async with serving(server) as port:
            async with connections_to(f"http://127.0.0.1:{port}/", [PAYLOAD], results) as poster:
                for number in range(20):
                    poster.post((PAYLOAD, number, number))
                found = [await results.queue.get() for _ in range(20)]
                assert sorted(post[1] for post, _ in found) == list(range(20))
                assert all(result == (200, b"ok") for _, result in found)
                await results.of(poster, PAYLOAD)
                assert 1 <= server.connections <= 20

    run(scenario())


def test_connections_expire_a_post_that_waits_for_a_connection(run: Run, fast: bool) -> None:
    """A full accept queue drops connections without an answer."""

    async def scenario() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            url, results = f"http://127.0.0.1:{full.getsockname()[1]}/", Results()
            async with connections_to(url, [PAYLOAD], results, fast) as poster:
                for number in range(5):
                    poster.post((PAYLOAD, float(number), float(number)))
                await asyncio.sleep(0.05)
                poster.expire(2.5)
                expired = [await results.queue.get() for _ in range(3)]
                assert [(post[1], cause) for post, cause in expired] == [
                    (float(number), "timeout") for number in range(3)
                ]
                assert results.queue.empty()
            assert results.queue.empty(), "closing ends posts without a result"

    run(scenario())


def test_connections_report_a_process_without_files_as_unsent(
    run: Run, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_files(*arguments: object, **options: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    async def scenario() -> None:
        results = Results()
        with monkeypatch.context() as patched:
            patched.setattr("socket.socket", no_files)
            async with connections_to("http://127.0.0.1:9/", [PAYLOAD], results, fast) as poster:
                assert await results.of(poster, PAYLOAD) == "unsent"

    run(scenario())


def test_connections_leave_nothing_behind(run: Run, fast: bool) -> None:
    """Idle, waiting, half-answered and opening connections end with the context."""

    async def scenario() -> None:
        results, server = Results(), Server([OK])
        async with serving(server) as port:
            before = our_tasks(), open_sockets()
            async with connections_to(
                f"http://127.0.0.1:{port}/", [PAYLOAD], results, fast
            ) as poster:
                assert await results.of(poster, PAYLOAD) == (200, b"ok")
                server.steps = [OK[:-1], 60.0]
                server.asked.clear()
                for _ in range(3):
                    poster.post((PAYLOAD, 0.0, 0.0))
                await server.asked.wait()
                poster.post((PAYLOAD, 0.0, 0.0))
                await asyncio.sleep(0)
                poster.post((PAYLOAD, 0.0, 0.0))
            assert our_tasks() == before[0]
            assert results.queue.empty(), "closing ends posts without a result"
            server.released.set()
            for _ in range(200):
                await asyncio.sleep(0.005)
                if open_sockets() <= before[1]:
                    break
            assert open_sockets() <= before[1]
            timers = getattr(asyncio.get_running_loop(), "_scheduled", [])
            assert all(timer.cancelled() for timer in timers)

    run(scenario())


def our_tasks() -> set[asyncio.Task[Any]]:
    """The tasks of this event loop that are not the server's."""
    servers = ("Server.__call__", "_accept_connection")
    return {t for t in asyncio.all_tasks() if not any(name in repr(t) for name in servers)}


def open_sockets() -> int:
    """The number of open sockets of this process."""
    return sum(
        file.is_symlink() and "socket" in str(file.readlink())
        for file in Path("/proc/self/fd").iterdir()
    )


@pytest.mark.parametrize(
    "special",
    [
        Payload(b"", {"Expect": "100-continue"}),
        Payload(b"", {"accept-encoding": "gzip, br"}),
        Payload(b"", method="HEAD"),
    ],
    ids=["expect", "encoding", "head"],
)
async def test_connections_to_uses_a_session_for_special_payloads(special: Payload) -> None:
    payloads = [PAYLOAD, special]
    async with connections_to("http://127.0.0.1:1/", payloads, Results()) as poster:
        assert isinstance(poster, Sessions)


async def test_connections_to_uses_a_session_with_another_aiohttp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OtherConnector(aiohttp.TCPConnector):
        async def connect(self, request: object, timeout: object) -> None:  # type: ignore[override]
            """Take other parameters."""

    async with aiohttp.ClientSession() as session:
        assert supported(session.connector)
    monkeypatch.setattr("aiohttp.TCPConnector", OtherConnector)
    async with connections_to("http://127.0.0.1:1/", [PAYLOAD], Results()) as poster:
        assert isinstance(poster, Sessions)


class _Pool:
    """Keeps the results of one connection without a network."""

    def __init__(self) -> None:
        self.receiver: Any = Results()

    def freed(self, connection: HttpConnection) -> None:
        pass

    def lost(self, connection: HttpConnection) -> None:
        pass


def result_of(connection: HttpConnection, *reads: bytes) -> Outcome:
    """Return the result of a post whose answer arrives in these reads."""
    connection.send((PAYLOAD, 0.0, 0.0), ())
    for read in reads:
        connection.data_received(read)
    return connection._receiver.queue.get_nowait()[1]


GZIPPED = answer("200 OK", PACKED, "Content-Encoding: gzip")


@pytest.mark.parametrize(
    "first", [OK, GZIPPED, CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], ids=["plain", "gzip", "chunked"]
)
@pytest.mark.parametrize("second", [OK, GZIPPED], ids=["plain", "gzip"])
@pytest.mark.parametrize("end", [15, -4, None])
async def test_connection_forgets_the_head_of_the_answer_before(
    first: bytes, second: bytes, end: int | None
) -> None:
    connection = HttpConnection(_Pool())
    connection.connection_made(Mock())
    reads = [first] if end is None else [first[:end], first[end:]]
    assert result_of(connection, *reads) == (200, b"ok")
    assert result_of(connection, second) == (200, b"ok")
    assert connection.is_open


async def test_connection_keeps_no_more_of_an_answer_than_its_body() -> None:
    connection = HttpConnection(_Pool())
    connection.connection_made(Mock())
    connection.send((PAYLOAD, 0.0, 0.0), ())
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
    for _ in range(10):
        connection.data_received(bytes(1000))
    assert connection._beginning == b"" and sum(map(len, connection._chunks)) == 11_000
    informed = HttpConnection(_Pool())
    informed.connection_made(Mock())
    many = [b"HTTP/1.1 102 Processing\r\n\r\n"] * 1000
    assert result_of(informed, *many, OK) == (200, b"ok")
    informed.send((PAYLOAD, 0.0, 0.0), ())
    for read in many:
        informed.data_received(read)
        assert informed._beginning == b""


async def test_connection_reads_an_encoding_before_data_that_nobody_asked_for() -> None:
    connection = HttpConnection(_Pool())
    connection.connection_made(Mock())
    assert result_of(connection, GZIPPED + b"HTTP/1.1 103 Early\r\n\r\n") == (200, b"ok")
    assert not connection.is_open
