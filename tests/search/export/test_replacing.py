"""Exports and reports that are replaced while they are read, or on a full disk."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from search.export import files
from search.export.files import export
from search.report.summary import write_report
from search.study.outcome import Outcome


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def export_chosen(outcome: Outcome) -> None:
    assert outcome.chosen is not None
    export(outcome.run, outcome.chosen, outcome.spec.archive())


def test_write_report_keeps_the_previous_files_on_a_full_disk(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(outcome)
    before = files_in(outcome.run.folder)
    assert {"report.md", "report.html", "trials.csv"} <= set(before)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_report(outcome)
    assert files_in(outcome.run.folder) == before


def test_export_keeps_the_previous_files_if_it_fails(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_chosen(outcome)
    before = files_in(outcome.run.folder)

    def fail(new: Path, folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(files, "replace_folder", fail)
        export_chosen(outcome)
    assert files_in(outcome.run.folder) == before
    # As a process leaves them that is killed while it replaces the files.
    (outcome.run.folder / "best").rename(outcome.run.folder / ".best.old")
    (outcome.run.folder / ".best.new").mkdir()
    export_chosen(outcome)
    assert files_in(outcome.run.folder) == before


@pytest.mark.parametrize("write", [write_report, export_chosen])
def test_files_are_not_replaced_while_another_process_reads_them(
    outcome: Outcome, write: Any
) -> None:
    thread = threading.Thread(target=write, args=(outcome,))
    with outcome.run.files_locked():
        before = {path.name for path in outcome.run.folder.iterdir()}
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert {path.name for path in outcome.run.folder.iterdir()} == before
    thread.join()
    assert {path.name for path in outcome.run.folder.iterdir()} > before
