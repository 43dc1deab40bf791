"""Plans in fake trees, and small processes in cgroups of this host if it permits them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from serving import supervisor
from serving.archive import Archive
from serving.cgroup import Enforcement, enforce, noted_cgroups, plan_cgroups, remove_cgroups
from serving.configuration.config import ServerConfig
from serving.errors import ServerError
from serving.installation import find_installation
from serving.leftovers import HOME_PREFIX
from serving.limits import Limits, find_cgroup
from serving.oom import cgroup_oom_kills
from serving.server import TorchServe
from serving.site import Site
from tests.archives import make_archive
from tests.serving.test_limits import V1, V2, MakeTree, make_tree

__all__ = ["make_tree"]

ROOT = Path(__file__).parents[2]
LIMITS = Limits(cpus=1.5, memory_bytes=512 << 20)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / f"{HOME_PREFIX}test-{os.getpid()}"
    path.mkdir()
    return path


@pytest.fixture
def enforced(home: Path) -> Iterator[Enforcement]:
    """Half a CPU and 100 MiB, in cgroups of this host."""
    made = enforce(Limits(cpus=0.5, memory_bytes=100 << 20), home)
    if not made.cgroups:
        pytest.skip("; ".join(made.warnings))
    yield made
    remove_cgroups(made.cgroups)
    assert not any(folder.exists() for folder in made.cgroups)


class Outcome(NamedTuple):
    """The exit status and output of a server, and the kills in its cgroup."""

    status: int
    output: str
    kills: int | None


def run_in(enforced: Enforcement, home: Path, code: str) -> Outcome:
    """Run Python code as the server of a supervisor."""
    log = home.parent / "log"
    request = {
        "argv": [sys.executable, "-c", code],
        "environment": {},
        "folder": "/",
        "log": str(log),
        "home": str(home),
        "cgroups": [str(folder) for folder in enforced.cgroups],
        "cores": enforced.cores,
    }
    command = [sys.executable, "-I", "-S", supervisor.__file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert "pid" in answer, answer
        status = json.loads(process.stdout.readline())["exit"]
        memory = enforced.memory_cgroup
        kills = cgroup_oom_kills(memory) if memory else None
        process.stdin.close()
        process.stdout.read()
    return Outcome(status, log.read_text(), kills)


def test_supervisor_runs_server_in_cgroups_and_removes_them(
    enforced: Enforcement, home: Path
) -> None:
    outcome = run_in(enforced, home, "print(open('/proc/self/cgroup').read())")
    assert outcome.status == 0
    assert outcome.output.count(home.name) >= len(enforced.cgroups)
    assert not any(folder.exists() for folder in enforced.cgroups)


def test_supervisor_server_gets_cpu_quota(enforced: Enforcement, home: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    code += "from serving.limits import cpu_quota; print(cpu_quota())"
    assert run_in(enforced, home, code) == (0, "0.5\n", 0)


@pytest.mark.parametrize(
    ("mib", "status", "kills"), [(10, 0, 0), (300, -9, 1)], ids=["below", "above"]
)
def test_cgroup_oom_kills_counts_server_above_its_memory_limit(
    enforced: Enforcement, home: Path, mib: int, status: int, kills: int
) -> None:
    assert run_in(enforced, home, f"x = bytearray({mib} << 20)") == (status, "", kills)


def test_remove_cgroups_kills_their_processes(enforced: Enforcement) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        for folder in enforced.cgroups:
            (folder / "cgroup.procs").write_text(str(process.pid))
        remove_cgroups(enforced.cgroups)
        assert process.wait() == -9


def test_noted_cgroups_are_those_of_the_server(enforced: Enforcement, home: Path) -> None:
    assert noted_cgroups(home) == list(enforced.cgroups)
    (home / "cgroups").write_text("/sys/fs/cgroup/another")
    assert noted_cgroups(home) == []


def test_plan_cgroups_has_a_folder_per_controller_of_version_1(make_tree: MakeTree) -> None:
    root = make_tree(V1)
    mount = root / "sys/fs/cgroup"
    assert plan_cgroups(LIMITS, "x", root) == {
        mount / "cpu,cpuacct/a/x": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"},
        mount / "memory/a/b/x": {"memory.limit_in_bytes": str(512 << 20)},
    }


@pytest.mark.parametrize("parent", ["a/b", "a"], ids=["its own", "the one above"])
def test_plan_cgroups_has_one_folder_in_version_2(make_tree: MakeTree, parent: str) -> None:
    root = make_tree(
        {
            **V2,
            "sys/fs/cgroup/a/b/cgroup.subtree_control": "",
            f"sys/fs/cgroup/{parent}/cgroup.subtree_control": "cpu io memory",
        }
    )
    assert plan_cgroups(LIMITS, "x", root) == {
        root / "sys/fs/cgroup" / parent / "x": {
            "cpu.max": "150000 100000",
            "memory.max": str(512 << 20),
        }
    }


def test_plan_cgroups_does_not_leave_limited_cgroup(make_tree: MakeTree) -> None:
    tree = {
        **V2,
        "sys/fs/cgroup/a/cgroup.subtree_control": "cpu memory",
        "sys/fs/cgroup/a/b/memory.max": "1000000",
    }
    with pytest.raises(PermissionError, match="does not delegate cpu, memory"):
        plan_cgroups(LIMITS, "x", make_tree(tree))


def test_enforce_uses_affinity_without_cgroups(make_tree: MakeTree, home: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    made = enforce(Limits(cpus=1), home, make_tree({}))
    assert made.cores == (cores[-1],)
    assert made.cgroups == ()
    assert made.method == "CPU affinity and memory budget"
    assert (
        f"(there is no cgroup controller cpu): the server runs on 1 of {len(cores)}"
        in (made.warnings[0])
    )


def test_enforce_warns_of_limits_above_those_of_host(make_tree: MakeTree, home: Path) -> None:
    made = enforce(Limits(9999, 1 << 60), home, make_tree({}))
    assert "serving.limits.cpus is 9999, but the host has only" in made.warnings[0]
    assert "but the host has only 16384 MiB" in made.warnings[1]


def test_enforce_does_nothing_without_limits(home: Path) -> None:
    assert enforce(Limits(), home) == Enforcement()
    assert not list(home.iterdir())


def test_supervisor_pins_server_to_cores(home: Path) -> None:
    core = max(os.sched_getaffinity(0))
    enforced = Enforcement(cores=(core,))
    code = "import os; print(os.sched_getaffinity(0))"
    assert run_in(enforced, home, code) == (0, f"{{{core}}}\n", None)


async def test_torchserve_removes_cgroups_if_it_does_not_start(
    tmp_path: Path, enforced: Enforcement
) -> None:
    installation = find_installation()
    installation = replace(installation, java=replace(installation.java, path="/no/java"))
    site = Site(Archive.read(make_archive(tmp_path)), installation, limits=Limits(cpus=1))
    server = TorchServe(ServerConfig(), site, tmp_path / "trial")
    with pytest.raises(ServerError, match="no start: /no/java did not start"):
        async with server:
            pytest.fail("it started")
    assert server.enforcement.method == "cgroup"
    assert len(server.enforcement.cgroups) == len(enforced.cgroups)
    assert not any(folder.exists() for folder in server.enforcement.cgroups)


def test_enforce_keeps_cgroup_of_another_process(enforced: Enforcement, home: Path) -> None:
    made = enforce(Limits(cpus=1), home)
    assert made.cgroups == () and "File exists" in made.warnings[0]
    assert all(folder.is_dir() for folder in enforced.cgroups)


def test_find_cgroup_of_this_host_is_a_folder() -> None:
    for controller in ("cpu", "memory"):
        found = find_cgroup(controller)
        assert found is None or found.folder.is_dir()
