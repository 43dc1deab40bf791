"""Tests of the load generator process as a child process."""

import pytest

from loadgen.local_process import LocalProcess


@pytest.mark.timeout(60)
async def test_local_process_passes_long_messages_whole() -> None:
    """A message of a megabyte does not fit into a pipe at once, in either direction."""
    process, name = LocalProcess([], ()), "x" * (1 << 20)
    try:
        with pytest.raises(AttributeError, match=name):
            await process.call(name)
        assert await process.call("clock") > 0
    finally:
        process.end()
