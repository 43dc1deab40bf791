from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serving.identity import is_alive, process_identity


def test_is_alive_until_process_ends() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process_identity(process.pid)
    assert is_alive(identity)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(identity), "a zombie is not alive"
    process.communicate()
    assert not is_alive(identity)
    with pytest.raises(OSError, match="No such file"):
        process_identity(process.pid)


def test_is_alive_distinguishes_later_process_of_same_pid() -> None:
    pid, start_ticks = process_identity(os.getpid()).split()
    assert is_alive(f"{pid} {start_ticks}")
    assert not is_alive(f"{pid} {int(start_ticks) - 1}")


@pytest.mark.parametrize("text", ["", "1", "a b"])
def test_is_alive_refuses_text_that_is_no_identity(text: str) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid"):
        is_alive(text)
