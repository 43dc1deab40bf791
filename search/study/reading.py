"""Open the study of a run, and read what is known of it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from search.errors import RecordError, first_line
from search.spec.schema import StudySpec
from search.study.budget import plan_of
from search.study.confirm import Confirmation
from search.study.outcome import Outcome
from search.study.ranking import reference_of
from search.study.run_folder import Run
from search.study.store import STORAGE_ERRORS, StudyStore

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def open_store(run: Run, spec: StudySpec) -> StudyStore:
    """Return the study of a run, with what it has already measured."""
    return StudyStore(
        spec.build_space(run.recorded()["host"]["cores"]),
        run.storage(spec.output.storage),
        run.name,
        spec.search.seed,
        spec.baseline(),
        spec.search.incumbent_every,
        spec.points() if spec.sweep else None,
    )


def read_outcome(run: Run) -> Outcome:
    """Return what is known of a run.

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
    """Return what an open study knows of its run."""
    results = store.results
    plan = plan_of(spec, results)
    return Outcome(
        run=run,
        spec=spec,
        recorded=run.recorded(),
        results=results,
        best=store.best,
        reference=reference_of(results),
        reason=store.ended,
        importance=store.importance(),
        confirmation=Confirmation.read(store, plan) if plan else None,
        notes=store.notes,
        failed=failed,
        interrupted=interrupted,
    )


@contextlib.contextmanager
def recording(run: Run) -> Iterator[None]:
    """Turn failures to write to a run's folder or storage into one sentence.

    Raises:
        RecordError: the disk is full, or the storage is gone.
    """
    try:
        yield
    except (OSError, *STORAGE_ERRORS) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_WRITABLE:
            raise
        cause = error.__cause__ or error
        raise RecordError(
            f"{run.folder} or its study cannot be written: {first_line(cause)}; what was "
            f"recorded before is kept, and servetune resume {run.folder} continues once it can be"
        ) from error
