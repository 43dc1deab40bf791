"""The document against the code: every operation, with input that a machine makes up."""

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
from schemathesis.specs.openapi.checks import positive_data_acceptance

from search.service.app import Service, Settings
from search.service.job_queue import Queue
from search.service.jobs import JobStore
from search.service.openapi import document
from tests.archives import make_archive
from tests.search.service.conftest import TOKEN, Pretended

#: Of each of ten operations.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500")) // 10


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service in a thread of its own, with a job that waits."""
    root = tmp_path_factory.mktemp("root")
    make_archive(root)
    (root / "requests.jsonl").write_text('{"body": {"a": 1}}\n')
    store = JobStore(tmp_path_factory.mktemp("service"))
    service = Service(
        store, Queue(store, Pretended(), at_once=0), Settings((root,), TOKEN, 1 << 20)
    )
    loop, started = asyncio.new_event_loop(), threading.Event()
    found: list[str] = []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(service.app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.append(site.name)
        started.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(60)
    yield found[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)


schema = schemathesis.openapi.from_dict(document())


@schemathesis.hook
def before_generate_case(
    context: schemathesis.HookContext, strategy: SearchStrategy[schemathesis.Case]
) -> SearchStrategy[schemathesis.Case]:
    """Go on with another where schemathesis makes up a schema that nothing fulfils, as it may."""

    @composite
    def found(draw: DrawFn) -> schemathesis.Case:
        try:
            return draw(strategy)
        except InvalidSchema:
            reject()

    return found()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_service_does_as_its_document_says(case: schemathesis.Case, address: str) -> None:
    # A well-formed specification may still name what is not there.
    excluded = [positive_data_acceptance]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    case.call_and_validate(base_url=address, headers=headers, excluded_checks=excluded)
