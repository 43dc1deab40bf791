"""The HTTP API, without Ray and TorchServe."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import FormData

from search.export.files import export
from search.service.job_queue import ProcessStatus
from search.service.jobs import JobState, JobStore
from tests.search.service.conftest import (
    TOKEN,
    Client,
    FakeRunner,
    submit,
    wait_for_state,
    wait_until_running,
    write_run,
)


async def test_api_shows_a_job_from_submission_to_end(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    write_run(job)
    running = await (await client.get(f"/v1/jobs/{job.id}")).json()
    progress = running["progress"]
    assert 0 < progress.pop("left_s") <= 90
    assert progress.pop("settings")["batch_size"] == 32
    assert progress.pop("trial_left_s") is None
    assert progress == {
        **{"trials_done": 2, "max_trials": 4, "trial": 1, "phase": "bracketing"},
        **{"rate_rps": 20.0, "round": None, "rounds": 40, "time_budget_s": None},
        **{"trying": "trying larger batches", "so_far": "5 rps"},
        "improvement_probability": 0.4,
    }
    assert running["best"]["sustained_rps"] == 20.0 and running["ratio"] == 4.0
    runner.end(job, reason="all 4 trials were run")
    await wait_for_state(job, JobState.FINISHED)
    ended = await (await client.get(f"/v1/jobs/{job.id}")).json()
    assert ended["state"] == "finished" and ended["reason"] == "all 4 trials were run"
    assert ended["ended_s"] >= ended["started_s"] >= ended["created_s"]


async def test_api_lists_queue_positions_and_stops_a_queued_job(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    first, second, third = [
        await submit(client, store, {**spec, "name": name}) for name in ("a", "b", "c")
    ]
    await wait_until_running(first, runner)
    listed = (await (await client.get("/v1/jobs")).json())["jobs"]
    assert {job["name"]: job["queue_position"] for job in listed} == {"a": None, "b": 1, "c": 2}
    answer = await client.delete(f"/v1/jobs/{second.id}")
    assert answer.status == 202 and (await answer.json())["state"] == "stopped"
    runner.end(first)
    await wait_until_running(third, runner)
    assert second.record().reason == "it was stopped before it started"


async def test_api_stops_and_resumes_a_running_job(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    answer = await client.post(f"/v1/jobs/{job.id}/resume")
    assert answer.status == 409 and "stop it first" in (await answer.json())["error"]
    assert (await client.delete(f"/v1/jobs/{job.id}")).status == 202
    assert job.stop_path.exists() and job.record().state is JobState.STOPPING
    assert (await client.delete(f"/v1/jobs/{job.id}")).status == 202, "a second request is accepted"
    runner.end(job, JobState.STOPPED, "it was interrupted")
    await wait_for_state(job, JobState.STOPPED)
    assert not job.stop_path.exists()
    answer = await client.delete(f"/v1/jobs/{job.id}")
    assert answer.status == 409 and "was stopped" in (await answer.json())["error"]
    assert (await client.post(f"/v1/jobs/{job.id}/resume")).status == 202
    await wait_until_running(job, runner)
    assert runner.submitted == [f"servetune-{job.id}-1", f"servetune-{job.id}-2"]
    assert job.ended() is None, "the end of the first attempt is not that of the second"


async def test_api_returns_report_and_files_of_a_job_whose_process_was_lost(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    write_run(job)
    early = await (await client.get(f"/v1/jobs/{job.id}/report")).text()
    runner.statuses[job.id] = ProcessStatus.OVER
    await wait_for_state(job, JobState.FAILED)
    # Nothing was measured since: the report is built again, and is the same.
    assert "trial 1" in early
    assert await (await client.get(f"/v1/jobs/{job.id}/report")).text() == early
    assert (await client.get(f"/v1/jobs/{job.id}/best.tar.gz")).status == 200


async def test_api_writes_no_file_to_show_a_job(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    job = await submit(client, store, {**spec, "confirm": {"rounds": 2}})
    await wait_until_running(job, runner)
    write_run(job)
    run = job.run()
    assert run is not None
    (run.folder / "study.db").unlink()
    before = sorted(run.folder.rglob("*"))
    for end in (None, JobState.FAILED):
        if end:
            runner.end(job, end)
            await wait_for_state(job, end)
        assert (await client.get(f"/v1/jobs/{job.id}")).status == 200
        report = await client.get(f"/v1/jobs/{job.id}/report?format=md")
        assert "sustains 20 requests/s" in await report.text()
        assert sorted(run.folder.rglob("*")) == before


async def test_api_streams_events_after_the_last_received_one(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    write_run(job)
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)
    url = f"/v1/jobs/{job.id}/events"
    text = await (await client.get(url)).text()
    blocks = [
        dict(line.split(": ", 1) for line in block.split("\n"))
        for block in text.split("\n\n")
        if block
    ]
    kinds = [block["event"] for block in blocks]
    assert kinds == [*["state"] * 2, *["trial", "progress", "phase", "result"] * 2, "state"]
    assert json.loads(blocks[5]["data"])["sustained_rps"] == 5.0
    answer = await client.get(url, headers={"Last-Event-ID": blocks[5]["id"]})
    rest = await answer.text()
    assert text.endswith(rest) and "event: trial" in rest
    invalid = await client.get(url, headers={"Last-Event-ID": "x"})
    assert invalid.status == 400


async def test_api_returns_trials_report_and_files_of_a_job(
    client: Client, store: JobStore, spec: dict[str, Any]
) -> None:
    job = await submit(client, store, spec)
    url = f"/v1/jobs/{job.id}"
    assert (await client.get(f"{url}/report")).status == 404
    write_run(job)
    run = job.run()
    assert run is not None
    trials = (await (await client.get(f"{url}/trials")).json())["trials"]
    assert [trial["sustained_rps"] for trial in trials] == [5.0, 20.0]
    assert trials[0]["origin"] == "default"
    detail = await (await client.get(f"{url}/trials/1")).json()
    assert detail["record"]["number"] == 1 and "inference" not in detail["default_properties"]
    assert (await client.get(f"{url}/trials/9")).status == 404
    assert "<html" in await (await client.get(f"{url}/report")).text()
    assert (await (await client.get(f"{url}/report?format=md")).text()).startswith(
        "# echo.mar: small-"
    )
    assert (await client.get(f"{url}/report?format=pdf")).status == 400
    assert (await client.get(f"{url}/best.tar.gz")).status == 404
    export(run, run.results()[1], run.spec().archive())
    packed = await (await client.get(f"{url}/best.tar.gz")).read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert {"best/config.properties", "best/start.sh"} <= set(archive.getnames())


async def test_api_lists_every_problem_of_a_specification(
    client: Client, store: JobStore, spec: dict[str, Any]
) -> None:
    invalid = {**spec, "search": {"trials": 0}, "goal": {"widht": 1}}
    answer = await client.post("/v1/jobs", data=json.dumps(invalid))
    assert answer.status == 422
    problems = (await answer.json())["problems"]
    assert [problem.partition(":")[0] for problem in problems] == ["goal.widht", "search.trials"]
    for body in ("- 1", "{", "a: [", "\x00", "model: 5"):
        assert (await client.post("/v1/jobs", data=body)).status == 422
    assert store.all() == [] and list((store._folder).iterdir()) == []


async def test_api_accepts_uploaded_files(
    client: Client, store: JobStore, spec: dict[str, Any], root: Path
) -> None:
    form = FormData(quote_fields=False)
    form.add_field("spec", yaml.safe_dump({**spec, "model": {}}))
    form.add_field("archive", (root / "echo.mar").read_bytes(), filename="../../echo.mar")
    form.add_field("requests", b'{"body": {"a": 2}}\n', filename="r.jsonl")
    answer = await client.post("/v1/jobs", data=form)
    assert answer.status == 201, await answer.text()
    job = store.get((await answer.json())["id"])
    assert job is not None
    model = yaml.safe_load(job.spec_path.read_text())["model"]
    assert model["archive"] == str(job.folder / "uploads" / "archive" / "echo.mar")
    assert Path(model["requests"]).read_bytes() == b'{"body": {"a": 2}}\n'


async def test_api_limits_the_size_of_requests(
    client: Client, store: JobStore, spec: dict[str, Any]
) -> None:
    form = FormData()
    form.add_field("spec", yaml.safe_dump(spec))
    form.add_field("archive", b"x" * (2 << 20), filename="a.mar")
    assert (await client.post("/v1/jobs", data=form)).status == 413
    assert (await client.post("/v1/jobs", data=b"#" * (2 << 20))).status == 413
    form = FormData()
    form.add_field("other", b"x", filename="a")
    answer = await client.post("/v1/jobs", data=form)
    assert answer.status == 400 and "unknown part 'other'" in (await answer.json())["error"]
    assert list(store._folder.iterdir()) == []


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", "ä"])
async def test_api_requires_the_token(client: Client, header: str | None) -> None:
    headers = {"Authorization": header} if header else {"Authorization": ""}
    for path in ("/v1/jobs", "/v1/jobs/x/events", "/v1/nothing"):
        answer = await client.get(path, headers=headers)
        assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in await answer.text()
    for path in ("/", "/static/main.js", "/static/plotly.js", "/v1/openapi.json"):
        assert (await client.get(path, headers=headers)).status == 200


async def test_api_rejects_requests_from_pages_of_other_origins(client: Client) -> None:
    other = await client.post("/v1/jobs", headers={"Origin": "http://elsewhere.example"})
    assert other.status == 403 and "elsewhere" in (await other.json())["error"]
    own = str(client.make_url("/")).rstrip("/")
    assert (await client.get("/v1/jobs", headers={"Origin": own})).status == 200


@pytest.mark.parametrize("name", ["..", "%2e%2e", "20260101-000000-abcdef", "x", "a%2fb"])
async def test_api_answers_404_for_unknown_job(client: Client, name: str) -> None:
    answer = await client.get(f"/v1/jobs/{name}/trials")
    assert answer.status == 404 and "error" in await answer.json()
