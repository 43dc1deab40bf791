"""The small process that owns one TorchServe and outlives whoever asked for it.

Run as a script, with the standard library only. It reads one line of JSON from standard
input: {"argv", "environment", "folder", "log", "home"}; starts `argv` in `folder` with its
output in the file `log`, and prints lines of JSON: {"pid"} or {"error"}, later {"exit"}.
A line `stop` asks for an orderly end. When standard input closes, for whatever reason, the
server and everything that it started is killed, the folder `home` is removed, and the
supervisor ends. Its own end closes its standard output: whoever listens can tell.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

ORDERLY_STOP_S = 1.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    request = json.loads(sys.stdin.readline())
    # Leave the asker's children: Ray kills those of a worker that ends, this one first.
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        # Not SIG_IGN: the server would inherit that, and ignore an orderly stop.
        signal.signal(number, lambda *_: None)
    libc = ctypes.CDLL(None)
    # Orphans of the server become children of this process, so that none is missed.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _note(request["home"], "supervisor", os.getpid())
    server = None
    try:
        with open(request["log"], "ab") as log:  # noqa: PTH123
            server = subprocess.Popen(
                request["argv"],
                env=request["environment"],
                cwd=request["folder"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
            )
        _note(request["home"], "server", server.pid)
        _say(pid=server.pid)
        _watch(server)
    except OSError as error:
        _say(error=str(error))
        sys.stdin.read()
    finally:
        _end_all(server)
        shutil.rmtree(request["home"], ignore_errors=True)


def _watch(server: subprocess.Popen[bytes]) -> None:
    """Return when the asker is gone or has closed its end."""
    said_exit = False
    kill_at = float("inf")
    while True:
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable:
            # os.read, not sys.stdin: a buffered line would never wake select again.
            data = os.read(0, 4096)
            if not data:
                return
            if b"stop" in data and server.poll() is None:
                server.send_signal(signal.SIGTERM)
                kill_at = time.monotonic() + ORDERLY_STOP_S
        if server.poll() is None and time.monotonic() > kill_at:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
        if server.poll() is not None and not said_exit:
            _end_all(server)
            _say(exit=server.returncode)
            said_exit = True


def _end_all(server: subprocess.Popen[bytes] | None) -> None:
    """SIGKILL the server's group and every descendant, and reap them."""
    if server is not None and server.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    give_up = time.monotonic() + 10
    while (left := _descendants(os.getpid())) and time.monotonic() < give_up:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def _descendants(root: int) -> list[int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{name}/stat") as stat:  # noqa: PTH123
                    parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _note(home: str, role: str, pid: int) -> None:
    """Leave the pid and its start time in the folder, for the sweep of what was left behind."""
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        started = stat.read().rpartition(")")[2].split()[19]
    with open(os.path.join(home, f"{role}.pid"), "w") as note:  # noqa: PTH118, PTH123
        note.write(f"{pid} {started}")


def _say(**message: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
