"""The service, as an attacker sees it: raw requests, endless bodies, many connections."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import resource
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from aiohttp import FormData, web

from search.service import event_stream, job_handlers, sending, uploads
from search.service.event_stream import EventStreams
from search.service.jobs import Job, JobState, JobStore
from tests.search.service.conftest import (
    TOKEN,
    Client,
    FakeRunner,
    submit,
    wait_for_state,
    wait_until_running,
    write_run,
)

HEAD = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"


async def connect(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert client.port is not None
    return await asyncio.open_connection(client.host, client.port)


async def exchange(client: Client, request: bytes) -> bytes:
    """Send bytes; return everything that the service answers until it closes the connection."""
    reader, writer = await connect(client)
    writer.write(request)
    answer = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while data := await asyncio.wait_for(reader.read(1 << 16), 2):
            answer += data
    writer.close()
    return answer


def files_of(store: JobStore) -> list[Path]:
    return list(store._folder.iterdir())


# --- header smuggling ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", id="both lengths"),
        pytest.param("Content-Length: 4\r\nContent-Length: 40\r\n", id="two lengths"),
        pytest.param("Content-Length: 4, 40\r\n", id="a list of lengths"),
        pytest.param("Content-Length: +4\r\n", id="a sign"),
        pytest.param("Content-Length: -4\r\n", id="a negative length"),
        pytest.param("Content-Length: 4_0\r\n", id="an underscore"),
        pytest.param("Content-Length : 4\r\n", id="a space before the colon"),
        pytest.param("Transfer-Encoding: chunked, identity\r\n", id="chunked is not last"),
        pytest.param("Transfer-Encoding: xchunked\r\n", id="an unknown encoding"),
        pytest.param("Transfer-Encoding : chunked\r\n", id="an encoding with a space"),
        pytest.param("X: a\0b\r\n", id="a NUL"),
        pytest.param("X: a\rContent-Length: 4\r\n", id="a bare CR"),
        pytest.param(" X: folded\r\n", id="a folded line"),
        pytest.param("X" * 20_000 + ": a\r\n", id="a long name"),
        pytest.param("X: " + "a" * 100_000 + "\r\n", id="a long value"),
        pytest.param("X: a\r\n" * 10_000, id="many headers"),
    ],
)
async def test_service_refuses_ambiguous_heads(client: Client, store: JobStore, head: str) -> None:
    """Whatever follows the head must not be answered as a second request."""
    second = f"GET /v1/jobs HTTP/1.1\r\n{HEAD}\r\n"
    request = f"POST /v1/jobs HTTP/1.1\r\n{HEAD}{head}\r\n0\r\n\r\n{second}"
    answer = await exchange(client, request.encode())
    assert b'"jobs"' not in answer and b" 200 " not in answer and b" 201 " not in answer
    assert answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.0 4") or not answer
    assert store.all() == []


async def test_service_answers_no_token_in_any_error(client: Client) -> None:
    for request in (b"\x16\x03\x01\x02", b"GET", b"G" * 100_000, b"GET / HTTP/9.9\r\n\r\n"):
        answer = await exchange(client, request)
        assert TOKEN.encode() not in answer and b"Traceback" not in answer
    for path in ("/v1/jobs/" + "a" * 9000, "/%00", "/static/..%2fapp.py", "/static/../app.py"):
        answer = await exchange(client, f"GET {path} HTTP/1.1\r\n{HEAD}\r\n".encode())
        assert b"ServiceOptions" not in answer and b"Traceback" not in answer
        assert b" 200 " not in answer.partition(b"\r\n")[0]


# --- uploads ------------------------------------------------------------------------------


def upload(spec: dict[str, Any], filename: str, part: str = "archive") -> FormData:
    form = FormData(quote_fields=False)
    form.add_field("spec", yaml.safe_dump(spec))
    form.add_field(part, b"x", filename=filename)
    return form


@pytest.mark.parametrize("part", ["archive", "requests"])
@pytest.mark.parametrize(
    "name",
    [
        *("..", ".", "../..", "a\tb.mar", "a\\b.mar", "a,b.mar", "a=b.mar", ".hidden"),
        *("a;b.mar", "$(id).mar", "`id`.mar", "a|b.mar", "-a.mar", "a" * 300 + ".mar", "a:b.mar"),
    ],
)
async def test_service_refuses_file_names_that_mean_more(
    client: Client, store: JobStore, spec: dict[str, Any], part: str, name: str
) -> None:
    answer = await client.post("/v1/jobs", data=upload(spec, name, part))
    assert answer.status == 400, await answer.text()
    assert files_of(store) == []


async def test_service_refuses_repeated_and_nested_parts(
    client: Client, store: JobStore, spec: dict[str, Any]
) -> None:
    for part in ("spec", "archive"):
        form = upload(spec, "a.mar")
        form.add_field(part, b"x", filename="b.mar")
        answer = await client.post("/v1/jobs", data=form)
        assert answer.status == 400 and "is repeated" in (await answer.json())["error"]
    body = (
        b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n"
        b'Content-Disposition: form-data; name="spec"\r\n\r\n--y--\r\n--x--\r\n'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = await client.post("/v1/jobs", data=body, headers=headers)
    assert answer.status == 400
    assert files_of(store) == []


async def test_service_refuses_compressed_bodies(
    client: Client, store: JobStore, spec: dict[str, Any]
) -> None:
    body = gzip.compress(b"#" * (100 << 20))
    for path in ("/v1/jobs", "/v1/check"):
        for encoding in ("gzip", "deflate", "br"):
            headers = {"Content-Encoding": encoding, "Content-Type": "application/yaml"}
            answer = await client.post(path, data=body, headers=headers, compress=False)
            assert answer.status in (400, 415), await answer.text()
    assert files_of(store) == []


async def endless(chunk: bytes, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    while True:
        yield chunk
        await asyncio.sleep(pause_s)


PART = b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a.mar"\r\n'


MULTIPART = "multipart/form-data; boundary=x"
#: Bodies without an end by the part in which they have none: type, start, repeated bytes.
ENDLESS = {
    "specification": ("application/yaml", b"", b"#" * 65536),
    "preamble": (MULTIPART, b"", b"-\r\n" * 9999),
    "archive": (MULTIPART, PART + b"\r\n", b"a" * 65536),
    "headers": (MULTIPART, PART, b"X: " + b"a" * 999 + b"\r\n"),
    "line": (MULTIPART, b"", b"a" * 65536),
}


async def test_service_ends_endless_bodies(client: Client, store: JobStore) -> None:
    async def upload(content_type: str, start: bytes, chunk: bytes) -> bytes:
        reader, writer = await connect(client)
        head = f"POST /v1/jobs HTTP/1.1\r\n{HEAD}Content-Type: {content_type}\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())

        async def send() -> None:
            for data in [start] if start else []:
                writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await writer.drain()

        sender = asyncio.ensure_future(send())
        try:
            line = await asyncio.wait_for(reader.readline(), 120)
            # Soon the service closes the connection without reading the rest.
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 120)
            return line.split()[1]
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            writer.close()

    # Side by side, since each connection lingers for seconds.
    answers = await asyncio.gather(*(upload(*body) for body in ENDLESS.values()))
    refused = {
        part: status in (b"400", b"413") for part, status in zip(ENDLESS, answers, strict=True)
    }
    assert refused == dict.fromkeys(ENDLESS, True)
    assert files_of(store) == []


async def test_service_ends_slow_bodies(
    client: Client, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_STALL_S", 0.2)
    monkeypatch.setattr(uploads, "_POLL_S", 0.05)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for pause_s in (0.1, 60.0):
        answer = await client.post("/v1/jobs", data=endless(b"a", pause_s), headers=headers)
        assert answer.status == 408, await answer.text()
        answer.close()
    assert files_of(store) == []


async def test_service_limits_concurrent_submissions(
    client: Client, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    slow = [
        asyncio.ensure_future(client.post("/v1/jobs", data=endless(b"a", 0.1), headers=headers))
        for _ in range(8)
    ]
    for _ in range(600):
        if len(files_of(store)) == 8:
            break
        await asyncio.sleep(0.05)
    answer = await client.post("/v1/jobs", data=b"")
    assert answer.status == 503 and "try again later" in (await answer.json())["error"]
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    for _ in range(600):
        if not files_of(store):
            break
        await asyncio.sleep(0.05)
    assert files_of(store) == [], "nothing of an interrupted upload stays"


# --- streams and connections --------------------------------------------------------------


async def test_service_disconnects_a_client_that_reads_no_events(
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send, sent = event_stream._send, asyncio.Event()

    async def recorded(*arguments: Any) -> web.StreamResponse:
        try:
            return await send(*arguments)
        finally:
            sent.set()

    monkeypatch.setattr(sending, "WRITE_LIMIT_S", 0.5)
    monkeypatch.setattr(event_stream, "_send", recorded)
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    event = json.dumps(
        {"format_version": 2, "kind": "phase", "time_s": 0, "data": {"x": "a" * 100_000}}
    )
    with job.events.path.open("a") as file:
        file.write(f"{event}\n" * 400)
    reader, writer = await connect(client)
    writer.write(f"GET /v1/jobs/{job.id}/events HTTP/1.1\r\n{HEAD}\r\n".encode())
    transport = writer.transport
    transport.pause_reading()  # type: ignore[attr-defined]
    received = 0
    await sent.wait()
    transport.resume_reading()  # type: ignore[attr-defined]
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(reader.read(1 << 20), 120):
            received += len(data)
    assert received < 40_000_000, "the connection has ended before the last event"
    answer = await client.get("/v1/jobs")
    assert answer.status == 200


async def test_event_streams_are_limited(
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    service = EventStreams(2)
    original = EventStreams.send

    async def send(_: EventStreams, *arguments: Any) -> Any:
        return await original(service, *arguments)

    monkeypatch.setattr(EventStreams, "send", send)
    url = f"/v1/jobs/{job.id}/events"
    streams = [await client.get(url) for _ in range(2)]
    refused = await client.get(url)
    assert refused.status == 503
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)
    for stream in streams:
        assert "event: state" in await stream.text()
    assert (await client.get(url)).status == 200


async def test_service_limits_concurrent_checks(client: Client) -> None:
    slow = [
        asyncio.ensure_future(client.post("/v1/check", data=endless(b"a", 0.1))) for _ in range(9)
    ]
    (refused,), others = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
    assert refused.result().status == 503
    assert (await client.get("/v1/jobs")).status == 200
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.mark.parametrize("path", ["/v1/check", "/v1/jobs"])
async def test_service_answers_while_it_reads_a_specification(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Reading a large specification takes seconds, in which others must not wait."""
    reading, may_end = threading.Event(), threading.Event()

    def read(text: bytes) -> dict[str, Any]:
        reading.set()
        assert may_end.wait(120)
        return {}

    monkeypatch.setattr(job_handlers, "parse", read)
    task = asyncio.ensure_future(client.post(path, data=b"name: a"))
    assert await asyncio.to_thread(reading.wait, 120)
    assert (await client.get("/v1/jobs")).status == 200
    may_end.set()
    assert (await task).status == 422


@pytest.fixture
async def large_job(
    client: Client,
    store: JobStore,
    runner: FakeRunner,
    spec: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Job:
    """A job that is over, with a model of 20 MB for production and a report of 20 MB."""
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    write_run(job)
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)
    run = job.run()
    assert run is not None
    (run.folder / "best").mkdir()
    (run.folder / "best" / "model.mar").write_bytes(random.Random(0).randbytes(20_000_000))
    (run.folder / "best" / "README.md").touch()
    (run.folder / "report.html").write_text("a" * 20_000_000)
    return job


@pytest.mark.parametrize("name", ["best.tar.gz", "report"])
async def test_service_disconnects_a_client_that_reads_no_answer(
    client: Client, large_job: Job, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write, given_up = sending.write_part, asyncio.Event()

    async def recorded(*arguments: Any) -> None:
        try:
            await write(*arguments)
        except ConnectionError:
            given_up.set()
            raise

    monkeypatch.setattr(sending, "WRITE_LIMIT_S", 0.5)
    monkeypatch.setattr(sending, "write_part", recorded)
    reader, writer = await connect(client)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(f"GET /v1/jobs/{large_job.id}/{name} HTTP/1.1\r\n{HEAD}\r\n".encode())
    await asyncio.wait_for(given_up.wait(), 120)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    received = 0
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(reader.read(1 << 20), 120):
            received += len(data)
    assert received < 20_000_000, "the connection has ended before the end of the answer"
    answer = await client.get(f"/v1/jobs/{large_job.id}/{name}")
    assert answer.status == 200 and len(await answer.read()) >= 20_000_000


async def test_service_limits_concurrent_downloads(client: Client, large_job: Job) -> None:
    path = f"/v1/jobs/{large_job.id}/best.tar.gz"
    answers = await asyncio.gather(*(client.get(path) for _ in range(9)))
    assert sorted(answer.status for answer in answers) == [*[200] * 8, 503]
    for answer in answers:
        answer.close()
    for _ in range(600):
        head = await client.head(path)
        if head.status == 200:
            break
        await asyncio.sleep(0.05)
    assert int(head.headers["Content-Length"]) > 20_000_000 and await head.read() == b""


async def test_service_answers_beside_1000_idle_connections(client: Client) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"the host permits {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    connections = []
    try:
        for number in range(1000):
            _, writer = await connect(client)
            # Half of them have begun a request.
            if number % 2:
                writer.write(f"GET /v1/jobs HTTP/1.1\r\n{HEAD}".encode())
            connections.append(writer)
        for _ in range(20):
            answer = await asyncio.wait_for(client.get("/v1/jobs"), 120)
            assert answer.status == 200
    finally:
        for writer in connections:
            writer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- secrets ------------------------------------------------------------------------------


SECRETS = {
    "the service's token": TOKEN,
    "a variable of the baseline": "hf_of-the-tests",
    "a variable of the file of secrets": "plain-of-the-tests",
    "a password in config.properties": "keystore-of-the-tests",
    "the URL of a webhook": "hook-of-the-tests",
}


@pytest.fixture
async def secret_job(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any], root: Path
) -> Job:
    """A job that is over, with every kind of secret."""
    _, variable, plain, password, hook = SECRETS.values()
    (root / "config.properties").write_text(f"job_queue_size=7\nkeystore_pass={password}\n")
    (root / "environment").write_text(f"HF_TOKEN={variable}\nA=b\n")
    (root / "secrets").write_text(f"PLAIN={plain}\n")
    files = {"properties": "config.properties", "secrets": "secrets"}
    notify = [{"url": f"http://127.0.0.1:9/{hook}", "on": ["stopped"]}]
    job = await submit(client, store, {**spec, "serving": {"baseline": files}, "notify": notify})
    await wait_until_running(job, runner)
    write_run(job)
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)
    return job


async def test_no_answer_contains_a_secret(client: Client, secret_job: Job) -> None:
    app = client.app
    assert app is not None
    spec = secret_job.spec_path.read_text()
    bodies = {"/v1/check": spec, "/v1/jobs": spec.replace("requests.jsonl", "none.jsonl")}
    paths = {}
    for route in app.router.routes():
        path = (route.resource.canonical if route.resource else "").format(
            id=secret_job.id, number=0, filename="main.js"
        )
        paths[route.method, path] = f"{path}?rps=10" if path.endswith("/plan") else path
    # The job is resumed and stopped at the end.
    order = ("HEAD", "GET", "POST", "DELETE")
    for method, path in sorted(paths, key=lambda key: (order.index(key[0]), key[1])):
        body = bodies.get(path, "") if method == "POST" else None
        answer = await client.request(method, paths[method, path], data=body)
        text = (await answer.read()).decode(errors="replace")
        if method == "GET" and path != "/static":
            assert answer.status == 200, (path, text)
        for name, secret in SECRETS.items():
            assert secret not in text + str(answer.headers), (name, method, path)


async def test_no_refusal_contains_a_secret(client: Client, spec: dict[str, Any]) -> None:
    """What is refused is quoted, but not what may be a secret."""
    hook = SECRETS["the URL of a webhook"]
    urls = (f"http://u:{hook}@127.0.0.1/", f"ftp://127.0.0.1/{hook}", f"http://10.0.0.1/{hook}")
    sections: list[dict[str, Any]] = [
        *({"notify": [{"url": url}]} for url in (*urls, f"http://127.0.0.1/{hook} ", [hook])),
        *({"output": {"mlflow": url}} for url in urls),
        {"output": {"storage": f"postgresql://u:{hook}@127.0.0.1/d"}},
        {"notify": [{"address": hook}]},
        {"notify": [hook]},
        {"notify": hook},
    ]
    for path in ("/v1/check", "/v1/jobs"):
        for section in sections:
            answer = await client.post(path, data=yaml.safe_dump({**spec, **section}))
            text = await answer.text()
            assert hook not in text, (path, section)
            is_fine = path == "/v1/check" and answer.status == 200
            assert is_fine or answer.status == 422, (path, section, text)


async def test_no_file_of_a_run_contains_a_secret(secret_job: Job) -> None:
    files = [path for path in secret_job.folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        text = path.read_text(errors="replace")
        found = {name for name, secret in SECRETS.items() if secret in text}
        # The webhook must be called later; only the owner may read its URL.
        if "the URL of a webhook" in found:
            assert path.name == "spec.yaml"
            is_private = path.parent == secret_job.folder or not path.stat().st_mode & 0o077
            assert is_private and not secret_job.folder.stat().st_mode & 0o077
            found.remove("the URL of a webhook")
        assert found == set(), path


def test_job_with_any_id_stays_in_its_folder(store: JobStore) -> None:
    for name in ("..", ".", "", "/etc", "a/b", "20260101-000000-abcde\n", "20260101-000000-abcdeg"):
        assert store.get(name) is None


@pytest.mark.parametrize(
    "field", ["model.archive", "output.folder", "serving.baseline.properties", "serving.models.x"]
)
async def test_check_does_not_reveal_users_and_links(
    client: Client, spec: dict[str, Any], root: Path, field: str
) -> None:
    (root.parent / "loop").symlink_to("loop")
    (root / "loop").symlink_to("loop")
    answers = set()
    for name in ("~no-such-user/x", "~root/x", str(root.parent / "loop"), "loop", "none"):
        value: Any = name
        first, *rest = field.split(".")
        for key in reversed(rest):
            value = {key: value}
        section = {**spec[first], **value} if first == "model" else value
        answer = await client.post("/v1/check", data=yaml.safe_dump({**spec, first: section}))
        answers.add((answer.status, await answer.text()))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 200


async def test_check_answers_in_one_sentence_if_a_path_cannot_be_used(
    client: Client, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (RuntimeError("Symlink loop from '/secret'"), OSError("/secret")):
        monkeypatch.setattr(job_handlers, "check_fields", Mock(side_effect=error))
        answer = await client.post("/v1/check", data=yaml.safe_dump(spec))
        text = await answer.text()
        assert answer.status == 422 and "a path cannot be used on this host" in text
        assert "secret" not in text
