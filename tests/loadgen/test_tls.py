"""Tests of TLS to an endpoint: a stub behind certificates of a private authority."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadgen.client import Client
from loadgen.errors import CertificateError
from loadgen.measurement import Load, Measurement
from loadgen.payloads import Payload
from loadgen.schedule import Closed
from loadgen.tls import Tls, find_tls_problem
from tests.certificates import KeyPair, make_authority, make_key_pair

PAYLOADS = [Payload(b"{}", contains="ok")]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server_pair(authority: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """A certificate of the authority for localhost, and for no address."""
    return make_key_pair(tmp_path_factory.mktemp("server"), authority, "localhost")


@pytest.fixture(scope="module")
def port(server_pair: KeyPair) -> Iterator[int]:
    """A server that answers every POST over TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_pair.certificate, server_pair.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


async def post(url: str, tls: Tls | None, fast: bool) -> Measurement:
    client = Client(PAYLOADS, fast=fast)
    client._url, client._tls = url, tls
    return await client.run(Load(Closed(2, 6), 5.0))


@pytest.mark.parametrize("fast", [True, False])
async def test_client_trusts_the_authority_of_a_file(
    authority: KeyPair, port: int, fast: bool
) -> None:
    measured = await post(f"https://localhost:{port}/", Tls.read(authority.certificate), fast)
    assert (measured.succeeded, dict(measured.errors)) == (6, {})


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_client_accepts_any_certificate_only_if_it_is_not_verified(
    port: int, host: str, fast: bool
) -> None:
    url = f"https://{host}:{port}/"
    assert (await post(url, Tls(is_verified=False), fast)).succeeded == 6
    refused = await post(url, None, fast)
    assert refused.succeeded == 0
    assert all("CERTIFICATE_VERIFY_FAILED" in cause for cause in refused.errors)


async def test_client_accepts_a_pinned_certificate_for_any_host(
    authority: KeyPair, server_pair: KeyPair, port: int, tmp_path: Path
) -> None:
    url = f"https://127.0.0.1:{port}/"
    pinned = Tls(server_pair.certificate.read_text(), is_pinned=True)
    assert (await post(url, pinned, True)).succeeded == 6
    other = make_key_pair(tmp_path, authority, "localhost")
    assert (await post(url, Tls(other.certificate.read_text(), True), True)).succeeded == 0


async def test_client_accepts_a_pinned_certificate_that_expired(
    authority: KeyPair, tmp_path: Path
) -> None:
    expired = make_key_pair(tmp_path, authority, "localhost", is_expired=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(expired.certificate, expired.key)
    pinned = Tls(expired.certificate.read_text(), is_pinned=True).context()
    trusting = Tls.read(authority.certificate).context()
    assert _handshake(context, pinned) is None
    assert "expired" in str(_handshake(context, trusting))


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLError | None:
    """Return the client's error in a handshake of two contexts, in memory."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                return error
    return None


def test_find_tls_problem_names_both_options(authority: KeyPair, port: int, tmp_path: Path) -> None:
    url = f"https://localhost:{port}/"
    problem = find_tls_problem(url, Tls()) or ""
    assert problem.startswith(f"the certificate of localhost:{port} cannot be verified: ")
    assert "--ca-file FILE" in problem and "--insecure" in problem
    other = make_authority(tmp_path)
    assert "cannot be verified" in (find_tls_problem(url, Tls.read(other.certificate)) or "")
    by_address = f"https://127.0.0.1:{port}/"
    mismatch = find_tls_problem(by_address, Tls.read(authority.certificate)) or ""
    assert "127.0.0.1" in mismatch and "--ca-file" not in mismatch
    assert find_tls_problem(url, Tls.read(authority.certificate)) is None
    assert find_tls_problem(by_address, Tls(is_verified=False)) is None
    assert find_tls_problem(f"http://localhost:{port}/", Tls()) is None


def test_find_tls_problem_names_a_server_without_tls() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        problem = find_tls_problem(f"https://127.0.0.1:{server.server_port}/", Tls())
    finally:
        thread.join()
        server.server_close()
    assert problem and "does not accept a TLS connection" in problem
    # Nothing listens there any more, which is no problem of TLS.
    assert find_tls_problem(f"https://127.0.0.1:{server.server_port}/", Tls()) is None


def test_tls_read_ignores_comments(authority: KeyPair, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(f"# Autorité\n{authority.certificate.read_text()}", "utf-8")
    context = Tls.read(path).context()
    assert context.get_ca_certs() == Tls.read(authority.certificate).context().get_ca_certs()
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "it has no certificate in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\n", "it has no certificate in PEM"),
        (b"\x30\x82\xff\x00", "it has no certificate in PEM"),
    ],
)
def test_tls_read_refuses_what_is_no_certificate(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CertificateError, match=reason):
        Tls.read(path)
