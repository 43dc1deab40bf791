"""The OpenAPI document against the service: generated requests to every operation."""

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, reject, settings
from hypothesis.strategies import DrawFn, SearchStrategy, composite
from schemathesis.core.errors import InvalidSchema
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from search.service.app import Service
from search.service.job_queue import JobQueue
from search.service.jobs import JobStore
from search.service.openapi import document
from search.service.options import ServiceOptions
from tests.search.service.conftest import TOKEN, FakeRunner
from tests.specifications import make_model_files

#: Generated requests for each of the ten operations.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200")) // 10
pytestmark = pytest.mark.timeout(300 + EXAMPLES)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service in another thread, whose jobs only wait."""
    root = make_model_files(tmp_path_factory.mktemp("root"))
    store = JobStore(tmp_path_factory.mktemp("service"))
    queue = JobQueue(store, FakeRunner(), max_running=0)
    service = Service(store, queue, ServiceOptions((root,), TOKEN, max_request_bytes=1 << 20))
    # Building the bundled model takes longer than schemathesis waits.
    patch = pytest.MonkeyPatch()
    patch.setattr("search.service.job_handlers.demo_specification", lambda folder: "name: demo\n")
    loop, started = asyncio.new_event_loop(), threading.Event()
    addresses: list[str] = []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(service.app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        addresses.append(site.name)
        started.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(60)
    yield addresses[0]
    patch.undo()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)


schema = schemathesis.openapi.from_dict(document())


@schemathesis.hook
def before_generate_case(
    context: schemathesis.HookContext, strategy: SearchStrategy[schemathesis.Case]
) -> SearchStrategy[schemathesis.Case]:
    """Skip a schema that no request fulfils; schemathesis may generate one."""

    @composite
    def fulfillable(draw: DrawFn) -> schemathesis.Case:
        try:
            return draw(strategy)
        except InvalidSchema:
            reject()

    return fulfillable()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_openapi_document_describes_the_answers_of_the_service(
    case: schemathesis.Case, address: str
) -> None:
    # A valid specification may still name a file that does not exist.
    excluded = [positive_data_acceptance]
    if case.path == "/v1/check":
        # Numbers are read as texts: `name: 7` is a name.
        excluded.append(negative_data_rejection)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    case.call_and_validate(base_url=address, headers=headers, excluded_checks=excluded)
