"""The process of a job, started by Ray: `python -m search.service.worker FOLDER`.

It outlives the service, and writes everything that the service needs into the job's folder.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import yaml

from search.export.files import export
from search.report.summary import write_report
from search.service.jobs import Job, JobState
from search.sinks.end import log_to_mlflow
from search.spec.loading import parse_spec
from search.spec.preflight import preflight
from search.study.budget import INTERRUPTED
from search.study.driver import create_run, run_study
from search.study.observer import EventObserver
from search.study.outcome import Outcome
from search.study.reading import recording
from search.study.run_folder import Run
from servetune.errors import ServetuneError

_POLL_S = 0.5


def run_job(job: Job) -> Outcome:
    """Start the job's run, or continue it."""
    run = job.run()
    if run is None:
        data = yaml.safe_load(job.spec_path.read_text())
        data["output"] = {**(data.get("output") or {}), "folder": str(job.folder / "runs")}
        # Ray started this process on the cluster that is to be used.
        data["cluster"] = {**(data.get("cluster") or {}), "address": "auto"}
        spec = parse_spec(data, job.folder)
        preflight(spec, allow_fixed_space=True)
        run = create_run(spec)
    outcome = run_study(Run.open(run.folder), EventObserver(job.events.record))
    with recording(outcome.run):
        write_report(outcome)
        if outcome.chosen is not None:
            export(outcome.run, outcome.chosen, outcome.spec.archive(), outcome.confirmation)
    # The service sends the webhooks: it also knows the end of a job whose process was lost.
    log_to_mlflow(outcome, lambda warning: print(f"warning: {warning}", file=sys.stderr))
    return outcome


def main(folder: Path) -> None:
    """Run a job, and record how it ended."""
    job = Job(folder)
    job.begin()
    threading.Thread(target=_interrupt_when_asked, args=(job,), daemon=True).start()
    try:
        outcome = run_job(job)
    except ServetuneError as error:
        job.end(JobState.FAILED, str(error))
    except BaseException as error:
        if job.stop_path.exists():
            job.end(JobState.STOPPED, "a user stopped it")
            raise
        job.end(JobState.FAILED, f"internal error: {type(error).__name__}: {error}")
        raise
    else:
        if outcome.interrupted:
            state = JobState.STOPPED
        else:
            state = JobState.FAILED if outcome.failed else JobState.FINISHED
        job.end(state, outcome.reason or INTERRUPTED)


def _interrupt_when_asked(job: Job) -> None:
    """End the run gracefully, as Ctrl-C does, when the stop file appears."""
    while not job.stop_path.exists():
        time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
