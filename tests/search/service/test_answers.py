"""The endpoints of plots, Pareto front, plan, field checks and the bundled model."""

from pathlib import Path
from typing import Any

import pytest

from search.service.jobs import JobStore
from tests.search.service.conftest import Client, FakeRunner, submit, wait_until_running, write_run

NEW = ("figures", "pareto", "plan?rps=10")


@pytest.fixture
async def job_path(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> str:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    write_run(job)
    return f"/v1/jobs/{job.id}"


async def test_api_returns_figures_points_and_a_plan(client: Client, job_path: str) -> None:
    figures = (await (await client.get(f"{job_path}/figures")).json())["figures"]
    assert figures["pareto"]["data"] and figures["pareto"]["layout"]["meta"]["heading"]
    points = (await (await client.get(f"{job_path}/pareto")).json())["points"]
    assert {5.0, 20.0} <= {point["sustained_rps"] for point in points}
    plan = (await (await client.get(f"{job_path}/plan?rps=40&headroom=0")).json())["plan"]
    assert plan["trial"] == 1 and plan["replicas"]["value"] == 2
    picked = await client.get(f"{job_path}/plan?rps=5&headroom=0&pick=trial%3D0")
    assert (await picked.json())["plan"]["trial"] == 0


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("", "rps"),
        ("rps=-1", "rps"),
        ("rps=nan", "rps"),
        ("rps=inf", "rps"),
        ("rps=x", "rps"),
        ("rps=1&headroom=1", "headroom"),
        ("rps=1&price_per_hour=-1", "price_per_hour"),
        ("rps=1&pick=any", "pick"),
        ("rps=1&p99_s=0.001", "p99_s"),
        ("rps=1&unknown=1", "unknown"),
    ],
)
async def test_plan_names_the_wrong_parameter(
    client: Client, job_path: str, query: str, path: str
) -> None:
    answer = await client.get(f"{job_path}/plan?{query}")
    assert answer.status == 422
    assert [field["path"] for field in (await answer.json())["fields"]] == [path]


async def test_check_names_fields_and_reads_no_file(client: Client, tmp_path: Path) -> None:
    text = f"model: {{archive: {tmp_path}/no.mar, requests: r}}\nsearch: {{trials: 0}}\nother: 1\n"
    fields = (await (await client.post("/v1/check", data=text)).json())["fields"]
    assert {field["path"] for field in fields} == {"search.trials", "other"}
    damaged = (await (await client.post("/v1/check", data="a: [")).json())["fields"]
    assert [field["path"] for field in damaged] == [""]
    assert (await client.post("/v1/check", data=b"a" * (2 << 20))).status == 413


@pytest.mark.parametrize("method, path", [("POST", "/v1/check"), ("POST", "/v1/demo")])
async def test_new_requests_need_the_token_and_the_origin(
    client: Client, method: str, path: str
) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    assert (await client.request(method, path, headers=wrong)).status == 401
    foreign = {"Origin": "http://example.org"}
    assert (await client.request(method, path, headers=foreign)).status == 403
    assert (await client.request(method, path, headers={"Host": "example.org"})).status == 403


async def test_new_views_need_the_token(client: Client, job_path: str) -> None:
    for name in NEW:
        headers = {"Authorization": "Bearer wrong"}
        assert (await client.get(f"{job_path}/{name}", headers=headers)).status == 401


async def test_queued_job_lists_the_jobs_before_it(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    jobs = [await submit(client, store, {**spec, "name": name}) for name in ("a", "b", "c")]
    await wait_until_running(jobs[0], runner)
    view = await (await client.get(f"/v1/jobs/{jobs[2].id}")).json()
    waits = [(wait["name"], wait["state"]) for wait in view["waits_for"]]
    assert waits == [("a", "running"), ("b", "queued")]
    assert (await (await client.get(f"/v1/jobs/{jobs[0].id}")).json())["waits_for"] == []
