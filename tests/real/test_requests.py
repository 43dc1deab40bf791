"""A real TorchServe receives each request byte for byte, from both clients."""

from __future__ import annotations

import asyncio
import json
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadgen.client import Client
from loadgen.connection import Connections, Sessions, connections_to
from loadgen.fleet import Fleet
from loadgen.local_process import local_processes
from loadgen.measurement import Load
from loadgen.payloads import Payload, read_payloads
from loadgen.rate.goal import Goal
from loadgen.schedule import Closed
from search.trial.request import TrialOrigin, TrialRequest
from search.trial.result import TrialState
from search.trial.runner import run_trial
from servetune.errors import FailureKind
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.installation import find_installation
from serving.server import TorchServe
from serving.site import Site
from tests.archives import make_archive
from tests.examples import PICTURE, documented_requests
from tests.loadgen.payloads.broken import broken_payload
from tests.loadgen.test_connection import Results

#: Answers with what it received, and what the examples expect.
MIRROR = """
def handle(data, context):
    if data is None:
        return None
    return [
        {
            "received": {key: bytes(value).hex() for key, value in row.items()},
            "headers": context.get_all_request_header(index),
            "explain": context.get_request_header(index, "explain"),
            "predictions": [{"label": "cat", "score": 0.93}],
            "completion": "return a + b",
        }
        for index, row in enumerate(data)
    ]
"""
RAW = ServerConfig(workers=1, properties={"decode_input_request": "false"})


@pytest.fixture
def pets(tmp_path: Path) -> Site:
    return Site(
        Archive.read(make_archive(tmp_path / "store", MIRROR, name="pets")), find_installation()
    )


async def send(url: str, payload: Payload, fast: bool) -> tuple[int, dict[str, Any]]:
    results = Results()
    async with connections_to(url, [payload], results, fast) as poster:
        assert isinstance(poster, Connections if fast else Sessions)
        result = await results.of(poster, payload, 60)
    assert isinstance(result, tuple), result
    status, body = result
    assert status in payload.status and payload.accepts(body), (payload, status, body)
    return status, json.loads(body)


def form_values(payload: Payload) -> dict[str, str]:
    """Return the values of a form of the examples, as the handler must receive them."""
    if payload.headers["Content-Type"].startswith("multipart/"):
        return {"data": PICTURE.hex(), "question": b"Which animal?".hex()}
    return {"question": b"Which animal?".hex(), "top": b"5".hex()}


async def test_torchserve_receives_every_documented_request(tmp_path: Path, pets: Site) -> None:
    examples = documented_requests(tmp_path)
    examples.pop("Workflows")
    more = [
        Payload('{"text": "é\u2028\x85"}'.encode(), {"Content-Type": "application/json"}),
        Payload("é\u2028\x85\x00".encode(), {"Content-Type": "text/plain"}),
        Payload("é".encode("latin-1"), {"Content-Type": "text/plain; charset=latin-1"}),
        Payload(bytes(range(256)) * 2000, {"Content-Type": "application/octet-stream"}),
        Payload(b"", {"Content-Type": "text/plain"}),
        Payload(b"x", {"content-type": "text/csv", "X-A": "1", "Cookie": "a=b"}, method="PATCH"),
    ]
    async with TorchServe(RAW, pets, tmp_path / "server") as server:
        for heading, payloads in {**examples, "more": more}.items():
            for payload in payloads:
                for fast in (True, False):
                    _, answer = await send(server.url, payload, fast)
                    kind = next(
                        v for k, v in payload.headers.items() if k.lower() == "content-type"
                    )
                    if kind.startswith(("multipart/", "application/x-www-form-urlencoded")):
                        expected = form_values(payload)
                    else:
                        expected = {"body": payload.body.hex()}
                    if "?model_name=" in (payload.path or ""):
                        expected["model_name"] = b"pets".hex()
                    assert answer["received"] == expected, (heading, payload, fast)
                    headers = {name.lower(): text for name, text in answer["headers"].items()}
                    sent = {name.lower(): text for name, text in payload.headers.items()}
                    assert sent.items() <= headers.items(), (heading, payload, fast)
                    assert headers["content-length"] == str(len(payload.body))
                    assert "transfer-encoding" not in headers
        (subpath,) = [
            p for p in examples["A version, and a path behind it"] if "top=5" in str(p.path)
        ]
        _, answer = await send(server.url, subpath, True)
        assert answer["headers"]["url_path"] == "v1/classify"


async def test_torchserve_answers_other_methods(tmp_path: Path, pets: Site) -> None:
    async with TorchServe(RAW, pets, tmp_path / "server") as server:
        for fast in (True, False):
            ping = Payload(b"", path="/ping", method="GET", fields={"/status": "Healthy"})
            await send(server.url, ping, fast)
            described = Payload(b"", path="/predictions/pets", method="OPTIONS", contains="openapi")
            await send(server.url, described, fast)
            missing = Payload(b"", path="/predictions/dogs", status=(404,), fields={"/code": 404})
            await send(server.url, missing, fast)
            measured = await Client(
                [Payload(b"x"), Payload(b"x", path="/wfpredict/dogs")], server.url, fast=fast
            ).run(Load(Closed(1, 10), 30.0))
            assert measured.errors == {"status 404 for POST /wfpredict/dogs": 5}
            assert measured.succeeded == 5


#: Each function hands its input on.
WORKFLOW = """
def pre(data, context):
    return None if data is None else [bytes(next(iter(row.values()))) for row in data]

post = pre
"""


def make_workflow(folder: Path) -> None:
    """Write pets_workflow.war, which calls the model between two functions."""
    spec = {
        "models": {
            "min-workers": 1, "max-workers": 1, "batch-size": 1, "max-batch-delay": 5,
            "retry-attempts": 1, "timeout-ms": 30000, "pets": {"url": "pets.mar"},
        },
        "dag": {"pre": ["pets"], "pets": ["post"]},
    }  # fmt: skip
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "archiverVersion": "0.2.15",
        "workflow": {
            "workflowName": "pets_workflow", "specFile": "spec.yaml", "handler": "workflow.py"
        },
    }  # fmt: skip
    folder.mkdir()
    with zipfile.ZipFile(folder / "pets_workflow.war", "w") as archive:
        archive.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("spec.yaml", yaml.safe_dump(spec))
        archive.writestr("workflow.py", WORKFLOW)


async def test_torchserve_receives_a_request_for_a_workflow(tmp_path: Path, pets: Site) -> None:
    make_workflow(tmp_path / "workflows")
    (payload,) = documented_requests(tmp_path)["Workflows"]
    properties = {"workflow_store": str(tmp_path / "workflows"), "enable_model_api": "true"}
    config = ServerConfig(workers=1, properties={**RAW.properties, **properties})
    async with TorchServe(config, pets, tmp_path / "server") as server:
        management = f"http://127.0.0.1:{server.ports.management}"
        request = urllib.request.Request(
            f"{management}/workflows?url=pets_workflow.war", method="POST"
        )
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=120).close())
        for fast in (True, False):
            _, answer = await send(server.url, payload, fast)
            assert bytes.fromhex(answer["received"]["body"]) == payload.body


@pytest.mark.parametrize(
    ("envelope", "line", "field"),
    [
        ("json", '{"body": {"instances": [{"x": 1}]}, "expect": {"contains": "predictions"}}', "/predictions/0"),
        ("kserve", '{"path": "/v1/models/pets:predict", "body": {"instances": [{"x": 1}]}}', "/predictions/0"),
        ("kservev2", '{"path": "/v2/models/pets/infer", "body": {"id": "7", "inputs": [{"name": "x", "shape": [1], "datatype": "INT32", "data": [1]}]}}', "/id"),
    ],
)  # fmt: skip
async def test_torchserve_unwraps_an_envelope(
    tmp_path: Path, envelope: str, line: str, field: str
) -> None:
    source = "def handle(data, context):\n    return None if data is None else [1 for _ in data]\n"
    site = Site(Archive.read(make_archive(tmp_path, source, name="pets")), find_installation())
    path = tmp_path / "requests.jsonl"
    path.write_text(line)
    (payload,) = read_payloads(path)
    config = ServerConfig(workers=1, properties={"service_envelope": envelope})
    async with TorchServe(config, site, tmp_path / "server") as server:
        for fast in (True, False):
            _, answer = await send(server.url, payload, fast)
            assert field.split("/")[1] in answer, answer


async def test_run_trial_names_a_path_that_the_server_lacks(
    tmp_path: Path, site: Callable[..., Site]
) -> None:
    fleet = Fleet(local_processes([Payload(b"{}", path="/wfpredict/dogs?a=b")]))
    goal = Goal(window_s=1, window_limit_s=2, warmup_limit_s=5, search_limit_s=5)
    request = TrialRequest(0, TrialOrigin.SAMPLED, ServerConfig(workers=1))
    try:
        result = await run_trial(request, site(), goal, fleet, tmp_path / "trial")
    finally:
        fleet.close()
    assert result.state is TrialState.FAILED
    assert "status 404 for POST /wfpredict/dogs" in str(result.cause)


async def test_run_trial_reports_a_defect_of_the_load_generator(
    tmp_path: Path, site: Callable[..., Site]
) -> None:
    fleet = Fleet(local_processes([broken_payload()]))
    request = TrialRequest(0, TrialOrigin.SAMPLED, ServerConfig(workers=1))
    try:
        result = await run_trial(request, site(), Goal(), fleet, tmp_path / "trial")
    finally:
        fleet.close()
    assert (result.state, result.failure) == (TrialState.FAILED, FailureKind.INTERNAL_ERROR)
    assert str(result.cause).startswith("a defect of the load generator ended the measurement")
    assert "Traceback" in (tmp_path / "trial" / "error.txt").read_text()
