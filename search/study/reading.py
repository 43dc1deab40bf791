"""Open the store of a run, and read its outcome."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from search.errors import RecordError, first_line
from search.spec.schema import StudySpec
from search.study.budget import confirmation_plan
from search.study.confirm import Confirmation
from search.study.outcome import Outcome
from search.study.ranking import reference_of
from search.study.run_folder import Run
from search.study.store import STORAGE_ERRORS, StudyStore

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def open_store(run: Run, spec: StudySpec) -> StudyStore:
    """Return the store of a run; create it if there is none."""
    return StudyStore(
        spec.study_space(run.recorded()["host"]["cores"]),
        run.storage(spec.output.storage),
        run.name,
        spec.search.seed,
        spec.baseline(),
        spec.search.incumbent_every,
        spec.points() if spec.sweep else None,
    )


def read_outcome(run: Run) -> Outcome:
    """Return the outcome of a run so far.

    Raises:
        RunError: the folder cannot be read.
    """
    spec = run.spec()
    return outcome_of(run, spec, open_store(run, spec))


def outcome_of(
    run: Run,
    spec: StudySpec,
    store: StudyStore,
    failed: bool = False,
    interrupted: bool = False,
) -> Outcome:
    """Return the outcome of a run whose store is open."""
    results = store.results
    plan = confirmation_plan(spec, results)
    return Outcome(
        run=run,
        spec=spec,
        recorded=run.recorded(),
        results=results,
        best=store.best,
        reference=reference_of(results),
        reason=store.end_reason,
        importance=store.importance(),
        confirmation=Confirmation.read(store, plan) if plan else None,
        notes=store.notes,
        failed=failed,
        interrupted=interrupted,
    )


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
