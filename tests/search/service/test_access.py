"""Which requests the service answers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from search.errors import ServiceError
from search.service.access import Access, host_names, read_token
from search.service.app import Service
from search.service.job_queue import JobQueue
from search.service.jobs import JobStore
from search.service.options import ServiceOptions
from tests.search.service.conftest import Client


@pytest.mark.parametrize(
    ("bound", "host", "is_known"),
    [
        ("127.0.0.1", "127.0.0.1:8400", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LOCALHOST:1", True),
        ("127.0.0.1", "[::1]:8400", True),
        ("127.0.0.1", "127.5.5.5", True),
        ("127.0.0.1", "Tuning.Example.org:443", True),
        ("127.0.0.1", "attacker.example", False),
        ("127.0.0.1", "attacker.example:8400", False),
        ("127.0.0.1", "localhost.attacker.example", False),
        ("127.0.0.1", "127.0.0.1.attacker.example", False),
        ("127.0.0.1", "10.0.0.1", False),
        ("127.0.0.1", "127.0.0.1@attacker.example", False),
        ("127.0.0.1", "attacker.example#127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1/attacker.example", False),
        ("127.0.0.1", "127.0.0.1,attacker.example", False),
        ("127.0.0.1", "127.0.0.1 attacker.example", False),
        ("127.0.0.1", "127.0.0.1\tx", False),
        ("127.0.0.1", "127.0.0.1:port", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "[::1]x", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", ":8400", False),
        ("10.0.0.1", "10.0.0.1:8400", True),
        ("10.0.0.1", "10.0.0.2:8400", False),
        ("0.0.0.0", "10.0.0.1:8400", True),
        ("::", "[fe80::1]:8400", True),
        ("0.0.0.0", socket.gethostname(), True),
        ("0.0.0.0", "attacker.example", False),
    ],
)
def test_access_knows_the_names_of_the_service(bound: str, host: str, is_known: bool) -> None:
    access = Access(host_names(bound, ["tuning.example.org"]), None)
    assert access.is_known_host(host) is is_known


@pytest.fixture
async def open_client(store: JobStore, queue: JobQueue, root: Path) -> Client:
    """A client of a service without a token."""
    app = Service(store, queue, ServiceOptions((root,), None)).app()
    client: Client = TestClient(TestServer(app))
    await client.start_server()
    return client


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},
        {"Host": "attacker.example", "Origin": "http://attacker.example"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
async def test_service_without_token_refuses_pages_of_other_sites(
    open_client: Client, store: JobStore, headers: dict[str, str]
) -> None:
    """A page may give its own name the address of the service (DNS rebinding)."""
    async with open_client as client:
        for method, path in (("POST", "/v1/jobs"), ("GET", "/"), ("GET", "/static/main.js")):
            answer = await client.request(method, path, headers=headers, data=b"")
            assert answer.status == 403, await answer.text()
            assert answer.headers["X-Frame-Options"] == "DENY"
        assert store.all() == []
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        page = await client.get("/", headers=link)
        assert page.status == 200
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


async def test_service_refuses_several_hosts_and_none(open_client: Client) -> None:
    async with open_client as client:
        for head in ("Host: localhost\r\nHost: attacker.example\r\n", "", "Host:\r\n"):
            status = await raw_status(client, f"GET /v1/jobs HTTP/1.1\r\n{head}\r\n".encode())
            assert status in (400, 403), head
        head = "GET http://attacker.example/v1/jobs HTTP/1.1\r\nHost: attacker.example\r\n\r\n"
        assert await raw_status(client, head.encode()) in (400, 403)


async def raw_status(client: Client, request: bytes) -> int:
    """Send bytes to the service; return the status of its first answer."""
    import asyncio

    assert client.port is not None
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(request)
    line = await asyncio.wait_for(reader.readline(), 120)
    writer.close()
    return int(line.split()[1])


def test_read_token_creates_a_private_file_once(tmp_path: Path) -> None:
    token = read_token(tmp_path)
    assert len(token) > 30 and read_token(tmp_path) == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_read_token_refuses_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    with pytest.raises(ServiceError, match="is empty; delete it"):
        read_token(tmp_path)
