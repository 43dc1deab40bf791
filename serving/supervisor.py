"""A small process that owns one server and ends it if the process that started it dies.

The file runs as a script and imports the standard library only.

Protocol: standard input receives one line of JSON, {"argv", "environment", "folder", "log",
"home"} and optionally {"cgroups", "cores"}. The supervisor starts `argv` in `folder`, in these
cgroups and on these cores, appends its output to the file `log`, and writes lines of JSON to
standard output: {"pid"} or {"error"}, later {"exit"}. The line `stop` stops the server gracefully.
When standard input closes, the supervisor kills the server and all its descendants, removes the
cgroups and the folder `home` and exits, which closes standard output.
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

#: Time from SIGTERM to SIGKILL.
STOP_GRACE_S = 1.0
_KILL_LIMIT_S = 10.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    request = json.loads(sys.stdin.readline())
    # No longer a child of the caller: Ray kills the children of a worker that exits.
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        # Not SIG_IGN, which the server would inherit and then ignore SIGTERM.
        signal.signal(number, lambda *_: None)
    libc = ctypes.CDLL(None)
    # Orphans of the server become children of this process, which then finds and kills them.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _write_pid_file(request["home"], "supervisor", os.getpid())
    server = None
    cgroups = request.get("cgroups", [])
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
                preexec_fn=lambda: _prepare_server(libc, cgroups, request.get("cores")),
            )
        _write_pid_file(request["home"], "server", server.pid)
        _report(pid=server.pid)
        _supervise(server)
    except (OSError, subprocess.SubprocessError) as error:
        _report(error=str(error))
        sys.stdin.read()
    finally:
        _kill_all(server)
        _remove_folders(cgroups)
        shutil.rmtree(request["home"], ignore_errors=True)


def _prepare_server(libc: ctypes.CDLL, cgroups: list[str], cores: list[int] | None) -> None:
    """Limit the new process before it runs the server: a JVM reads its limits once."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for folder in cgroups:
        with open(os.path.join(folder, "cgroup.procs"), "w") as processes:  # noqa: PTH118, PTH123
            processes.write("0")
    if cores:
        os.sched_setaffinity(0, cores)


def _supervise(server: subprocess.Popen[bytes]) -> None:
    """Obey commands and report the server's exit; return when standard input closes."""
    is_exit_reported = False
    kill_at = float("inf")
    while True:
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable:
            # Not sys.stdin: select does not see what it has buffered.
            data = os.read(0, 4096)
            if not data:
                return
            if b"stop" in data and server.poll() is None:
                server.send_signal(signal.SIGTERM)
                kill_at = time.monotonic() + STOP_GRACE_S
        if server.poll() is None and time.monotonic() > kill_at:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
        if server.poll() is not None and not is_exit_reported:
            _kill_all(server)
            _report(exit=server.returncode)
            is_exit_reported = True


def _kill_all(server: subprocess.Popen[bytes] | None) -> None:
    """Kill the server's process group and all descendants of this process, and reap them."""
    if server is not None and server.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    deadline = time.monotonic() + _KILL_LIMIT_S
    while (remaining := _descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def _remove_folders(cgroups: list[str]) -> None:
    for folder in cgroups:
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106


def _descendants(root: int) -> list[int]:
    """Return the process ids of all descendants of `root`."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{name}/stat") as stat:  # noqa: PTH123
                    parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
    tree = [root]
    for pid in tree:
        tree += [child for child, parent in parents.items() if parent == pid]
    return tree[1:]


def _write_pid_file(home: str, role: str, pid: int) -> None:
    """Write the identity of a process for serving.leftovers, which removes stale folders."""
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        start_ticks = stat.read().rpartition(")")[2].split()[19]
    with open(os.path.join(home, f"{role}.pid"), "w") as file:  # noqa: PTH118, PTH123
        file.write(f"{pid} {start_ticks}")


def _report(**message: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
