"""The lock of a host against a second measurement."""

import os

import pytest

from search.errors import RunError
from search.trial.host_lock import exclusive_host


def test_exclusive_host_refuses_second_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    # A measurement may hold the real address.
    monkeypatch.setattr("search.trial.host_lock.ADDRESS", f"\0servetune-test-{os.getpid()}")
    with exclusive_host(), pytest.raises(RunError, match="another servetune"), exclusive_host():
        pass
    with exclusive_host():
        pass
