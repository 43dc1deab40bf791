"""Open the store of a run, and read its outcome."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from search.confirmation.confirmation import Confirmation
from search.confirmation.noise import Variance
from search.confirmation.noise_history import NoiseHistory, host_key, read_history
from search.confirmation.plan import Plan, plan_confirmation
from search.confirmation.race import RaceRules
from search.confirmation.visits import StoredVisits
from search.errors import RecordError, RunError, first_line
from search.spec.schema import StudySpec
from search.study.outcome import Outcome
from search.study.run_folder import STUDY_FILE, Run
from search.study.storage import STORAGE_ERRORS, check_storage, copy_to_memory, stored_name
from search.study.store import StudyStore
from search.trial.objective import Objective
from search.trial.ranking import reference_of
from search.trial.result import TrialResult

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def open_store(run: Run, spec: StudySpec) -> StudyStore:
    """Return the store of a run; create it if there is none.

    Raises:
        SpecError: the storage that the specification names cannot be used.
    """
    if spec.output.storage is not None:
        check_storage(spec.output.storage)
    return StudyStore(
        spec.study_space(*_cores(run)),
        *_study_of(run, spec),
        spec.search.seed,
        spec.baseline(),
        spec.search.incumbent_every,
        spec.points() if spec.sweep else None,
        Objective.of(spec.goal),
        screen_references=spec.confirmation_rounds > 0,
    )


def _cores(run: Run) -> tuple[int, int | None]:
    """Return the cores of the run's host, and the default thread count of torch on it."""
    host = run.recorded()["host"]
    return host["cores"], host.get("affinity_cores")


def _study_of(run: Run, spec: StudySpec) -> tuple[str | Path, str]:
    """Return the storage and the name of a run's study."""
    if spec.output.storage is not None:
        return spec.output.storage, run.name
    path = run.folder / STUDY_FILE
    # An older run did not record its name, and its folder may be renamed.
    return path, stored_name(path) or run.name


def read_outcome(run: Run) -> Outcome:
    """Return the outcome of a run so far; write nothing to its folder or its storage.

    If the study cannot be read, the results are those in the run's folder.

    Raises:
        RunError: the folder cannot be read.
    """
    spec, results = run.spec(), run.results()
    space = spec.build_space(*_cores(run))
    storage, name = _study_of(run, spec)
    objective = Objective.of(spec.goal)
    store = StudyStore(space, copy_to_memory(storage, name), name, objective=objective)
    is_restored = bool(results) and not store.results
    store.restore(results)
    if is_restored:
        for plan, stage, result in run.confirmation_visits():
            store.record_visit(plan, stage, result)
    return replace(outcome_of(run, spec, store), restored=is_restored)


def outcome_of(
    run: Run,
    spec: StudySpec,
    store: StudyStore,
    failed: bool = False,
    interrupted: bool = False,
) -> Outcome:
    """Return the outcome of a run whose store is open."""
    results = store.results
    plan = plan_confirmation(spec, results, store.nominated)
    confirmation = confirmation_reader(run, spec)(store.visits(plan.name), plan) if plan else None
    return Outcome(
        run=run,
        spec=spec,
        recorded=run.recorded(),
        results=results,
        best=store.best,
        reference=reference_of(results),
        reason=store.end_reason,
        importance=store.importance(),
        confirmation=confirmation if confirmation and confirmation.rounds else None,
        notes=store.notes,
        failed=failed,
        space=store.space,
        interrupted=interrupted,
    )


def confirmation_reader(run: Run, spec: StudySpec) -> Callable[[StoredVisits, Plan], Confirmation]:
    """Return a function that reads a confirmation, with the run's copy of the host's history.

    Without that copy, or if it is damaged, only the run's own visits show the noise.
    """
    rules = RaceRules(spec.confirmation_rounds)

    def prior_for(visit: TrialResult) -> Variance | None:
        history = NoiseHistory()
        with contextlib.suppress(RunError):
            history = read_history(run.noise_path)
        return history.prior(host_key(visit))

    return lambda stored, plan: Confirmation.read(stored, plan, rules, prior_for)


@contextlib.contextmanager
def recording(run: Run) -> Iterator[None]:
    """Turn errors in writing to a run's folder or storage into a `RecordError`.

    Raises:
        RecordError: the disk is full, or the storage is missing or cannot be written.
    """
    try:
        yield
    except (OSError, *STORAGE_ERRORS) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_WRITABLE:
            raise
        cause = error.__cause__ or error
        raise RecordError(
            f"{run.folder} or its study cannot be written: {first_line(cause)}; earlier results "
            f"are kept; make it writable, then run servetune resume {run.folder}"
        ) from error
