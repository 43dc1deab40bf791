"""The API and the queue; no Ray, no TorchServe."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from aiohttp import FormData
from aiohttp.test_utils import TestClient

from search.cli import service as commands
from search.errors import ClusterError, RecordError, RunError, ServiceError
from search.export.files import export
from search.service import worker
from search.service.app import read_token
from search.service.job_queue import Queue, Status
from search.service.jobs import Job, JobState, JobStore
from search.study.run_folder import Run
from tests.search.service.conftest import TOKEN, Pretended, begin_run

Client = TestClient[Any, Any]


async def submitted(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/v1/jobs", data=yaml.safe_dump(spec))
    assert answer.status == 201, await answer.text()
    found: dict[str, Any] = await answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{found['id']}"
    return found


async def until(job: Job, state: JobState) -> None:
    """Wait until the job has this state; only a hang takes a minute."""
    for _ in range(1200):
        if job.record().state is state:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job is {job.record().state}, not {state}")


async def until_running(job: Job, runner: Pretended) -> None:
    """Wait until the job's present attempt was submitted, which follows its state."""
    await until(job, JobState.RUNNING)
    for _ in range(1200):
        if job.submission_id in runner.submitted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job was not submitted: {runner.submitted}")


def job_of(store: JobStore, view: dict[str, Any]) -> Job:
    found = store.get(view["id"])
    assert found is not None
    return found


async def test_a_job_runs_from_the_queue_to_its_end(
    client: Client, store: JobStore, runner: Pretended, spec: dict[str, Any]
) -> None:
    view = await submitted(client, spec)
    job = job_of(store, view)
    assert view["name"] == "small" and view["best"] is None
    await until_running(job, runner)
    begin_run(job)
    now = await (await client.get(f"/v1/jobs/{job.id}")).json()
    assert now["progress"] == {
        **{"trials_done": 2, "max_trials": 4, "trial": 1, "phase": "bracketing"},
        **{"rate_rps": 20.0, "round": None, "rounds": None, "time_budget_s": None},
    }
    assert now["best"]["sustained_rps"] == 20.0 and now["ratio"] == 4.0
    runner.end(job, reason="all 4 trials were run")
    await until(job, JobState.FINISHED)
    over = await (await client.get(f"/v1/jobs/{job.id}")).json()
    assert over["state"] == "finished" and over["reason"] == "all 4 trials were run"
    assert over["ended_s"] >= over["started_s"] >= over["created_s"]


async def test_others_wait_in_the_order_that_they_came(
    client: Client, store: JobStore, runner: Pretended, spec: dict[str, Any]
) -> None:
    views = [await submitted(client, {**spec, "name": name}) for name in ("a", "b", "c")]
    first, second, third = (job_of(store, view) for view in views)
    await until_running(first, runner)
    listed = (await (await client.get("/v1/jobs")).json())["jobs"]
    assert {job["name"]: job["queue_position"] for job in listed} == {"a": None, "b": 1, "c": 2}
    answer = await client.delete(f"/v1/jobs/{second.id}")
    assert answer.status == 202 and (await answer.json())["state"] == "stopped"
    runner.end(first)
    await until_running(third, runner)
    assert second.record().reason == "it was stopped before it began"


async def test_a_job_is_stopped_and_taken_up_again(
    client: Client, store: JobStore, runner: Pretended, spec: dict[str, Any]
) -> None:
    job = job_of(store, await submitted(client, spec))
    await until_running(job, runner)
    assert (await client.post(f"/v1/jobs/{job.id}/resume")).status == 409
    assert (await client.delete(f"/v1/jobs/{job.id}")).status == 202
    assert job.stop_path.exists() and job.record().state is JobState.STOPPING
    assert (await client.delete(f"/v1/jobs/{job.id}")).status == 202, "asking twice is no mistake"
    runner.end(job, JobState.STOPPED, "it was interrupted")
    await until(job, JobState.STOPPED)
    assert not job.stop_path.exists()
    answer = await client.delete(f"/v1/jobs/{job.id}")
    assert answer.status == 409 and "was stopped" in (await answer.json())["error"]
    assert (await client.post(f"/v1/jobs/{job.id}/resume")).status == 202
    await until_running(job, runner)
    assert runner.submitted == [f"servetune-{job.id}-1", f"servetune-{job.id}-2"]
    assert job.ended() is None, "what the first attempt said is not the second's"


@pytest.mark.parametrize(
    "error",
    [
        RecordError("the run cannot be written: No space left on device"),
        ClusterError("the cluster no longer has room for a trial: no host that served is left"),
    ],
)
async def test_what_a_job_cannot_go_on_without_is_a_sentence(
    client: Client,
    store: JobStore,
    spec: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    job = job_of(store, await submitted(client, spec))
    monkeypatch.setattr(worker, "carry_out", Mock(side_effect=error))
    worker.main(job.folder)
    assert job.ended() == (JobState.FAILED, str(error))


async def test_a_job_that_is_stopped_as_it_begins_was_stopped(
    client: Client, store: JobStore, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(store, await submitted(client, spec))
    job.stop_path.touch()
    monkeypatch.setattr(worker, "_stop_when_asked", Mock())
    # Ray's own handler of SIGTERM.
    monkeypatch.setattr(worker, "carry_out", Mock(side_effect=SystemExit(15)))
    with pytest.raises(SystemExit):
        worker.main(job.folder)
    assert job.ended() == (JobState.STOPPED, "it was stopped")


async def test_a_process_that_is_lost_fails_its_job(
    client: Client, store: JobStore, runner: Pretended, spec: dict[str, Any]
) -> None:
    job = job_of(store, await submitted(client, spec))
    await until_running(job, runner)
    begin_run(job)
    early = await (await client.get(f"/v1/jobs/{job.id}/report")).text()
    runner.statuses[job.id] = Status.OVER
    await until(job, JobState.FAILED)
    assert "resume goes on" in (job.record().reason or "")
    # What it could not write itself is written: its report, and the files of its best.
    assert await (await client.get(f"/v1/jobs/{job.id}/report")).text() != early
    assert (await client.get(f"/v1/jobs/{job.id}/best.tar.gz")).status == 200


async def test_what_ray_does_not_take_fails_with_its_reason(
    client: Client, store: JobStore, runner: Pretended, spec: dict[str, Any]
) -> None:
    runner.refuses = "no such cluster"
    job = job_of(store, await submitted(client, spec))
    await until(job, JobState.FAILED)
    assert job.record().reason == "Ray did not take the job: no such cluster"


async def test_a_new_service_goes_on_with_what_it_finds(
    client: Client, store: JobStore, runner: Pretended, spec: dict[str, Any]
) -> None:
    running, waiting = [job_of(store, await submitted(client, spec)) for _ in range(2)]
    await until_running(running, runner)
    await client.close()
    runner.end(running)
    again = Queue(store, runner)
    await again.look()
    assert running.record().state is JobState.FINISHED
    assert waiting.record().state is JobState.RUNNING
    # Killed between its word and the submission: Ray has never heard of it.
    del runner.statuses[waiting.id]
    await again.look()
    assert runner.submitted[-2:] == [waiting.submission_id] * 2


async def test_events_are_told_once_and_from_where_one_left_off(
    client: Client, store: JobStore, runner: Pretended, spec: dict[str, Any]
) -> None:
    job = job_of(store, await submitted(client, spec))
    await until_running(job, runner)
    begin_run(job)
    runner.end(job)
    await until(job, JobState.FINISHED)
    text = await (await client.get(f"/v1/jobs/{job.id}/events")).text()
    blocks = [dict(line.split(": ", 1) for line in b.split("\n")) for b in text.split("\n\n") if b]
    kinds = [block["event"] for block in blocks]
    assert kinds == [*["state"] * 2, *["trial", "phase", "result"] * 2, "state"]
    assert json.loads(blocks[4]["data"])["sustained_rps"] == 5.0
    rest = await client.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": blocks[4]["id"]})
    assert text.endswith(await rest.text()) and "event: trial" in await rest.text()
    wrong = await client.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "x"})
    assert wrong.status == 400


async def test_what_came_of_it_is_to_be_had(
    client: Client, store: JobStore, spec: dict[str, Any]
) -> None:
    job = job_of(store, await submitted(client, spec))
    path = f"/v1/jobs/{job.id}"
    assert (await client.get(f"{path}/report")).status == 404
    begin_run(job)
    run = job.run()
    assert run is not None
    trials = (await (await client.get(f"{path}/trials")).json())["trials"]
    assert [trial["sustained_rps"] for trial in trials] == [5.0, 20.0]
    detail = await (await client.get(f"{path}/trials/1")).json()
    assert detail["record"]["number"] == 1 and "inference" not in detail["default_properties"]
    assert (await client.get(f"{path}/trials/9")).status == 404
    assert "<html" in await (await client.get(f"{path}/report")).text()
    assert (await (await client.get(f"{path}/report?format=md")).text()).startswith("# small-")
    assert (await client.get(f"{path}/report?format=pdf")).status == 400
    assert (await client.get(f"{path}/best.tar.gz")).status == 404
    export(run, run.results()[1], run.spec().archive())
    packed = await (await client.get(f"{path}/best.tar.gz")).read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert {"best/config.properties", "best/start.sh"} <= set(archive.getnames())


async def test_every_problem_of_a_specification_is_told(
    client: Client, store: JobStore, spec: dict[str, Any]
) -> None:
    wrong = {**spec, "search": {"trials": 0}, "goal": {"widht": 1}}
    answer = await client.post("/v1/jobs", data=json.dumps(wrong))
    assert answer.status == 422
    problems = (await answer.json())["problems"]
    assert [p.partition(":")[0] for p in problems] == ["goal.widht", "search.trials"]
    for body in ("- 1", "{", "a: [", "\x00", "model: 5"):
        assert (await client.post("/v1/jobs", data=body)).status == 422
    assert store.all() == [] and list((store._folder).iterdir()) == []


async def test_a_stray_path_hides_no_other_problem(client: Client, spec: dict[str, Any]) -> None:
    wrong = {
        **spec,
        "model": {**spec["model"], "archive": "/etc/passwd"},
        "serving": {"python": "/usr/bin/python3"},
        "search": {"trials": 0},
        "serch": {},
    }
    answer = await client.post("/v1/jobs", data=json.dumps(wrong))
    problems = sorted((await answer.json())["problems"])
    assert answer.status == 422 and len(problems) == 4, problems
    starts = (
        "model.archive: '/etc",
        "search.trials: ",
        "serch: ",
        "serving.python: is the service",
    )
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(start)


async def test_a_jobs_folder_is_no_runs(store: JobStore, client: Client, spec: Any) -> None:
    job = job_of(store, await submitted(client, spec))
    with pytest.raises(RunError, match="is a job folder"):
        Run.open(job.folder)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"model": {"archive": "../secret.mar", "requests": "requests.jsonl"}}, "model.archive"),
        ({"model": {"archive": "/etc/passwd", "requests": "requests.jsonl"}}, "model.archive"),
        ({"model": {"archive": "echo.mar", "requests": "link.jsonl"}}, "model.requests"),
        ({"model": {"archive": "echo.mar", "requests": "stray.jsonl"}}, "model.requests: line 1"),
        ({"serving": {"python": "/bin/sh"}}, "serving.python: is the service's own"),
        ({"serving": {"baseline": "../a"}}, "serving.baseline"),
        ({"output": {"folder": "/tmp/x"}}, "output: is the service's own"),
        ({"search": {"warm_start": "/"}}, "search.warm_start"),
    ],
)
async def test_a_path_stays_in_its_roots(
    client: Client, spec: dict[str, Any], root: Path, section: dict[str, Any], sentence: str
) -> None:
    (root.parent / "secret.mar").write_text("")
    (root / "link.jsonl").symlink_to("/etc/hostname")
    (root / "stray.jsonl").write_text('{"file": "../secret.mar"}\n')
    answer = await client.post("/v1/jobs", data=json.dumps({**spec, **section}))
    assert answer.status == 422
    problems = (await answer.json())["problems"]
    assert problems[0].startswith(sentence), problems


async def test_files_come_along(
    client: Client, store: JobStore, spec: dict[str, Any], root: Path
) -> None:
    form = FormData(quote_fields=False)
    form.add_field("spec", yaml.safe_dump({**spec, "model": {}}))
    form.add_field("archive", (root / "echo.mar").read_bytes(), filename="../../echo.mar")
    form.add_field("requests", b'{"body": {"a": 2}}\n', filename="r.jsonl")
    answer = await client.post("/v1/jobs", data=form)
    assert answer.status == 201, await answer.text()
    job = job_of(store, await answer.json())
    model = yaml.safe_load(job.spec_path.read_text())["model"]
    assert model["archive"] == str(job.folder / "uploads" / "archive" / "echo.mar")
    assert Path(model["requests"]).read_bytes() == b'{"body": {"a": 2}}\n'


async def test_bodies_are_bounded(client: Client, store: JobStore, spec: dict[str, Any]) -> None:
    form = FormData()
    form.add_field("spec", yaml.safe_dump(spec))
    form.add_field("archive", b"x" * (2 << 20), filename="a.mar")
    assert (await client.post("/v1/jobs", data=form)).status == 413
    assert (await client.post("/v1/jobs", data=b"#" * (2 << 20))).status == 413
    form = FormData()
    form.add_field("other", b"x", filename="a")
    answer = await client.post("/v1/jobs", data=form)
    assert answer.status == 400 and "no part 'other'" in (await answer.json())["error"]
    assert list(store._folder.iterdir()) == []


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", "ä"])
async def test_nothing_without_the_token(client: Client, header: str | None) -> None:
    headers = {"Authorization": header} if header else {"Authorization": ""}
    for path in ("/v1/jobs", "/v1/jobs/x/events", "/v1/nothing"):
        answer = await client.get(path, headers=headers)
        assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in await answer.text()
    for path in ("/", "/static/main.js", "/static/plotly.js", "/v1/openapi.json"):
        assert (await client.get(path, headers=headers)).status == 200


def test_a_token_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    token = read_token(tmp_path)
    assert len(token) > 30 and read_token(tmp_path) == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_an_empty_token_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    with pytest.raises(ServiceError, match="is empty; remove it"):
        read_token(tmp_path)


async def test_a_page_of_elsewhere_may_not_ask(client: Client) -> None:
    elsewhere = await client.post("/v1/jobs", headers={"Origin": "http://elsewhere.example"})
    assert elsewhere.status == 403 and "elsewhere" in (await elsewhere.json())["error"]
    own = str(client.make_url("/")).rstrip("/")
    assert (await client.get("/v1/jobs", headers={"Origin": own})).status == 200


def test_files_that_a_specification_names_are_found_from_its_folder(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, Any] = {}

    class Told:
        async def __aenter__(self) -> Told:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def submit(self, text: str, uploads: dict[str, Path]) -> dict[str, Any]:
            sent.update(yaml.safe_load(text))
            return {"id": "1"}

    monkeypatch.setattr(commands, "_client", lambda *_: Told())
    (tmp_path / "model.mar").touch()
    (tmp_path / "requests.jsonl").touch()
    data = {
        "model": {"archive": "model.mar", "requests": "requests.jsonl"},
        "serving": {"baseline": "config.properties"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    commands.submit(tmp_path / "mine.yaml")
    assert sent["serving"]["baseline"] == str(tmp_path / "config.properties")
    assert sent["model"]["archive"] == str(tmp_path / "model.mar")


@pytest.mark.parametrize("name", ["..", "%2e%2e", "20260101-000000-abcdef", "x", "a%2fb"])
async def test_what_is_no_job_is_not_found(client: Client, name: str) -> None:
    answer = await client.get(f"/v1/jobs/{name}/trials")
    assert answer.status == 404 and "error" in await answer.json()
