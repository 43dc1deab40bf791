"""The lock of a host against a second measurement."""

import pytest

from search.errors import RunError
from search.trial.host_lock import exclusive_host


def test_exclusive_host_refuses_second_measurement() -> None:
    with exclusive_host(), pytest.raises(RunError, match="another servetune"), exclusive_host():
        pass
    with exclusive_host():
        pass
