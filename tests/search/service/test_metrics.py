"""The service's metrics, read by Prometheus's own parser."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from search.service.jobs import JobState, JobStore
from servetune.errors import FailureKind
from tests.search.service.conftest import (
    TOKEN,
    Client,
    FakeRunner,
    submit,
    wait_for_state,
    wait_until_running,
    write_run,
)

Samples = dict[tuple[str, tuple[str, ...]], float]


async def scrape(client: Client) -> Samples:
    """Return the samples by name and labels."""
    answer = await client.get("/metrics")
    assert answer.status == 200 and answer.content_type == "text/plain"
    text = await answer.text()
    assert TOKEN not in text
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name.removeprefix("servetune_"), tuple(sample.labels.values()))
            assert key not in samples
            samples[key] = sample.value
    return samples


async def test_metrics_show_jobs_trials_failures_and_durations(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    empty = await scrape(client)
    assert {empty["jobs", (state,)] for state in JobState} == {0.0}
    assert {empty["trial_failures_total", (str(kind),)] for kind in FailureKind} == {0.0}
    first = await submit(client, store, {**spec, "name": "a.b"})
    second = await submit(client, store, spec)
    await wait_until_running(first, runner)
    write_run(first)
    running = await scrape(client)
    assert running["jobs", ("running",)] == running["jobs", ("queued",)] == 1.0
    assert running["queue_length", ()] == 1.0
    assert running["trials_total", ("complete",)] == 2.0
    assert running["trial_duration_seconds_count", ()] == 2.0
    assert running["trial_duration_seconds_sum", ()] == 6.0
    assert running["job_best_rps", (first.id, "a.b")] == 20.0
    assert running["job_duration_seconds_count", ()] == 0.0
    runner.end(first)
    await wait_until_running(second, runner)
    run = first.run()
    assert run is not None
    (second.folder / "job.json").write_text("{")
    ended = await scrape(client)
    assert ended["jobs", ("finished",)] == 1.0
    assert ended["trials_total", ("complete",)] == 2.0
    assert ended["job_duration_seconds_count", ()] == 1.0
    (run.folder / "trials.jsonl").write_text("[]\n")
    assert (await scrape(client))["trials_total", ("complete",)] == 2.0, "a job that is over"
    refused = await client.get("/metrics", headers={"Authorization": ""})
    assert refused.status == 401


async def test_metrics_count_failures_by_kind(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    from tests.results import trial_result

    job = await submit(client, store, spec)
    await wait_until_running(job, runner)
    write_run(job, (5.0,))
    run = job.run()
    assert run is not None
    for number, kind in enumerate((FailureKind.WORKER_DIED, FailureKind.NO_RATE), 1):
        run.append(trial_result(number, failure=kind, cause="x", duration_s=2.0))
    samples = await scrape(client)
    assert samples["trials_total", ("failed",)] == 2.0
    assert samples["trial_failures_total", ("worker died",)] == 1.0
    assert samples["trial_failures_total", ("no rate",)] == 1.0
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)


async def test_metrics_show_the_best_configuration_by_the_objective(
    client: Client, store: JobStore, runner: FakeRunner, spec: dict[str, Any]
) -> None:
    from search.trial.result import TargetRecord
    from serving.configuration.config import ServerConfig
    from tests.results import trial_result

    goal = {**spec.get("goal", {}), "objective": "latency", "for_rps": 4.0}
    job = await submit(client, store, {**spec, "goal": goal})
    await wait_until_running(job, runner)
    write_run(job, ())
    run = job.run()
    assert run is not None
    for number, (rate, p99_s) in enumerate(((40.0, 0.4), (20.0, 0.1))):
        target = TargetRecord(4.0, 0.05, 0.08, p99_s, 0, True, "")
        config = ServerConfig(workers=number + 1)
        run.append(trial_result(number, rate, config, target=target, peak_memory_mb=512))
    samples = await scrape(client)
    labels = (job.id, spec["name"])
    assert samples["job_best_rps", labels] == 20.0, "the highest rate has a higher latency"
    assert samples["job_best_p99_seconds", labels] == 0.1
    assert samples["job_best_memory_bytes", labels] == 512 * 2**20
    runner.end(job)
    await wait_for_state(job, JobState.FINISHED)
