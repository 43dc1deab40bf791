"""A job's own process, which Ray starts: `python -m search.service.worker FOLDER`.

It outlives the service, and leaves in the job's folder all that the service needs to know.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import yaml

from loadgen.errors import PayloadError
from search.errors import ClusterError, CommandError, RecordError, RunError, SpecError
from search.export.files import export
from search.report.summary import write_report
from search.service.jobs import Job, JobState
from search.spec.loading import parse_spec
from search.spec.preflight import preflight
from search.study.budget import INTERRUPTED
from search.study.driver import create_run, run_study
from search.study.observer import EventObserver
from search.study.outcome import Outcome
from search.study.reading import recording
from search.study.run_folder import Run
from serving.errors import ArchiveError, ConfigError, ServerError

_LOOK_S = 0.5
_MISTAKES = (
    SpecError,
    ClusterError,
    RecordError,
    RunError,
    CommandError,
    ConfigError,
    ArchiveError,
    PayloadError,
    ServerError,
)


def carry_out(job: Job) -> Outcome:
    """Begin the job's run, or go on with it."""
    run = job.run()
    if run is None:
        data = yaml.safe_load(job.spec_path.read_text())
        data["output"] = {"folder": str(job.folder / "runs")}
        # The cluster that this process was started on.
        data["cluster"] = {**(data.get("cluster") or {}), "address": "auto"}
        spec = parse_spec(data, job.folder)
        preflight(spec, allow_fixed_space=True)
        run = create_run(spec)
    found = run_study(Run.open(run.folder), EventObserver(job.events.record))
    with recording(found.run):
        write_report(found)
        if found.chosen is not None:
            export(found.run, found.chosen, found.spec.archive(), found.confirmation)
    return found


def main(folder: Path) -> None:
    """Carry out a job, and leave word of its end."""
    job = Job(folder)
    threading.Thread(target=_stop_when_asked, args=(job,), daemon=True).start()
    try:
        found = carry_out(job)
    except _MISTAKES as error:
        job.end(JobState.FAILED, str(error))
    except BaseException as error:
        if job.stop_path.exists():
            job.end(JobState.STOPPED, "it was stopped")
            raise
        job.end(JobState.FAILED, f"internal error: {type(error).__name__}: {error}")
        raise
    else:
        reason = found.reason or INTERRUPTED
        state = JobState.FAILED if found.failed else JobState.FINISHED
        job.end(JobState.STOPPED if found.interrupted else state, reason)


def _stop_when_asked(job: Job) -> None:
    """End the run in order, as Ctrl-C does, once the file says so."""
    asked = threading.Event()
    while not job.stop_path.exists():
        asked.wait(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
