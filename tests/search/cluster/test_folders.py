from __future__ import annotations

import shutil
import time

import psutil
import pytest

from search.cluster.folders import HOST_PREFIX, create_owned_folder, remove_stale_folders


def test_remove_stale_folders_keeps_folder_of_living_process_after_clock_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = create_owned_folder(HOST_PREFIX)
    try:
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: time.time() + 1)
        remove_stale_folders()
        assert folder.exists()
    finally:
        shutil.rmtree(folder)
