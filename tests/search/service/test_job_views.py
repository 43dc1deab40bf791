"""The views of jobs: damaged files, links of dashboards, bounded caches."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest

from search.answer.gain import gain_of
from search.service import job_views
from search.service.job_views import JobViews, links_of
from search.service.jobs import JobState, JobStore
from search.service.run_results import RunResults
from search.study.outcome import Outcome
from search.study.run_folder import Run
from serving.identity import process_identity
from tests.search.service.conftest import (
    Client,
    FakeRunner,
    submit,
    wait_for_state,
    wait_until_running,
    write_run,
)


@pytest.mark.parametrize("file", ["spec.yaml", "trials.jsonl", "events.jsonl"])
async def test_list_shows_other_jobs_beside_one_with_a_damaged_file(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any], file: str
) -> None:
    job = await submit(client, store, {**spec, "confirm": {"rounds": 2}})
    await wait_until_running(job, runner)
    write_run(job)
    run = job.run()
    assert run is not None
    path = job.folder / file if file == "events.jsonl" else run.folder / file
    path.write_text('{"format_version": 99, "kind": "a"}\n')
    for end in (None, JobState.FINISHED):
        if end:
            runner.end(job)
            await wait_for_state(job, end)
        answer = await client.get("/v1/jobs")
        (view,) = (await answer.json())["jobs"]
        if not end or file != "events.jsonl":
            assert "format_version 99" in view["reason"]
        assert view["state"] == ("finished" if end else "running")
        assert (view["ended_s"] is not None) is bool(end)


def test_view_of_an_ended_job_recommends_what_its_report_recommends(
    outcome: Outcome,
) -> None:
    """The search nominates by expectation; the highest single measurement may be another one."""
    nominated = replace(outcome, best=outcome.results[1])
    best, baseline, gain, is_confirmed = job_views.ended_rates(nominated)
    assert best is not None and best.number == 1 and baseline is not None and baseline.number == 0
    assert gain == gain_of(nominated) and not is_confirmed


async def test_view_of_an_ended_job_begins_with_the_verdict(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    job = await submit(client, store, {**spec, "confirm": {"rounds": 0}})
    await wait_until_running(job, runner)
    write_run(job)
    assert (await (await client.get(f"/v1/jobs/{job.id}")).json())["answer"] == []
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)
    answer = (await (await client.get(f"/v1/jobs/{job.id}")).json())["answer"]
    assert answer[0].startswith("Deploy trial 1 instead of TorchServe's default (trial 0)")
    assert any(line.startswith("How sure this is: ") for line in answer)
    (listed,) = (await (await client.get("/v1/jobs")).json())["jobs"]
    assert listed["answer"] == []


def test_links_of_trusts_no_process_id_without_its_start(store: JobStore) -> None:
    job = store.add(store.new_folder(), "a", {})
    run = Run(job.folder)
    identity = process_identity(os.getpid())
    for process, links in (
        (identity, {"TensorBoard": "http://127.0.0.1:1"}),
        (f"{os.getpid()} 1", {}),
        (os.getpid(), {}),
        (str(os.getpid()), {}),
    ):
        entry = {"TensorBoard": {"url": "http://127.0.0.1:1", "process": process}}
        (run.folder / "dashboards.json").write_text(json.dumps(entry))
        assert links_of(run) == links


async def test_job_views_keep_a_bounded_number_of_jobs(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    jobs = [await submit(client, store, {**spec, "name": f"job{n}"}) for n in range(5)]
    for job in jobs:
        await wait_until_running(job, runner)
        write_run(job)
        runner.end(job)
        await wait_for_state(job, JobState.FINISHED)
    results = RunResults(max_runs=2)
    views = JobViews(results, {}, max_jobs=2)
    for _ in range(2):
        for job in jobs:
            assert views.view(job).progress.trials_done == 2
    assert len(results._readers) == len(views._ended_jobs) == 2 and len(views._parsed) <= 4
