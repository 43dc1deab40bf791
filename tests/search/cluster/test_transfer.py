"""Files of trials that arrive from other hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cluster.transfer import Inbox, read_files


def test_inbox_writes_only_into_the_runs_folder(tmp_path: Path) -> None:
    source, run = tmp_path / "source", tmp_path / "run"
    (source / "deep").mkdir(parents=True)
    (source / "torchserve.log").write_text("log")
    (source / "deep" / "file").write_bytes(b"\x00")
    inbox = Inbox(str(run))
    inbox.deliver(str(run / "trials" / "3"), read_files(source))
    assert read_files(run / "trials" / "3") == read_files(source)
    assert read_files(source) == {"torchserve.log": b"log", "deep/file": b"\x00"}
    for name in ("../../../outside", "/etc/outside"):
        with pytest.raises(ValueError, match="is not in"):
            inbox.deliver(str(run / "trials" / "3"), {name: b""})
    assert not (tmp_path / "outside").exists()
