"""Tests of both posters, which must return the same for each server in a table."""

import asyncio
import contextlib
import gzip
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

import loadgen.connection
from loadgen.client import failure_cause
from loadgen.connection import Connections, Sessions, connections_to, supported, target_url
from loadgen.errors import PayloadError
from loadgen.payloads import Payload
from loadgen.payloads.http_syntax import encode_target

PAYLOAD = Payload(b'{"a": 1}', {"Content-Type": "application/json", "X-Own": "y"})
LARGE = bytes(range(256)) * 8192
PACKED = gzip.compress(b"ok")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

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
                            await asyncio.sleep(step)
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
        if self.steps[-1] in ("close", "reset"):
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
    async with connections_to(url, [payload], fast) as poster:
        assert type(poster) is (Connections if fast else Sessions)
        for _ in range(posts):
            try:
                answers.append(await poster.post(payload, within_s))
            except TimeoutError:
                answers.append("timeout")
            except Exception as error:
                answers.append(failure_cause(error))
            if server is not None:
                await server.settled()
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
        ("an unrequested second answer ends the connection", [OK + OK], (200, b"ok"), 2),
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
        async with connections_to(f"http://127.0.0.1:{port}/", [payload]) as poster:
            for _ in range(2):
                assert await poster.post(payload, 30) == (200, b"")
    assert server.requests[0].startswith(b"HEAD /ping HTTP/1.1\r\n")


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
            async with connections_to(f"http://127.0.0.1:{port}/", [PAYLOAD], fast) as poster:
                try:
                    status, body = await poster.post(PAYLOAD, 10)
                except (OSError, aiohttp.ClientError):
                    return
                assert isinstance(status, int) and isinstance(body, bytes)

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


def test_connections_close_after_a_cancelled_post(run: Run, fast: bool) -> None:
    async def scenario() -> None:
        server = Server([60.0])
        async with serving(server) as port:
            url = f"http://127.0.0.1:{port}/"
            async with connections_to(url, [PAYLOAD], fast) as poster:
                post = asyncio.create_task(poster.post(PAYLOAD, 30))
                await server.asked.wait()
                post.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await post
                server.steps = [OK]
                assert await poster.post(PAYLOAD, 30) == (200, b"ok")
                assert server.connections == 2

    run(scenario())


def test_connections_match_concurrent_answers_to_their_posts(run: Run) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            writer.write(answer("200 OK", await reader.readexactly(length)))

    async def scenario() -> None:
        payloads = [Payload(str(i).encode()) for i in range(50)]
        async with serving(echo) as port:  # type: ignore[arg-type]
            async with connections_to(f"http://127.0.0.1:{port}/", payloads) as poster:
                for _ in range(3):
                    found = await asyncio.gather(*[poster.post(p, 30) for p in payloads])
                    assert [body for _, body in found] == [p.body for p in payloads]

    run(scenario())


@pytest.mark.parametrize(
    "special",
    [Payload(b"", {"Expect": "100-continue"}), Payload(b"", method="HEAD")],
    ids=["expect", "head"],
)
async def test_connections_to_uses_a_session_for_special_payloads(special: Payload) -> None:
    async with connections_to("http://127.0.0.1:1/", [PAYLOAD, special]) as poster:
        assert isinstance(poster, Sessions)


async def test_connections_to_uses_a_session_with_another_aiohttp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert supported()
    loadgen.connection.supported.cache_clear()
    monkeypatch.delattr("aiohttp.client_proto.ResponseHandler.should_close")
    try:
        assert not supported()
        async with connections_to("http://127.0.0.1:1/", [PAYLOAD]) as poster:
            assert isinstance(poster, Sessions)
    finally:
        loadgen.connection.supported.cache_clear()
