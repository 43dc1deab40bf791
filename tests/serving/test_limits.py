"""Limits in fake trees of /proc and /sys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from serving.limits import (
    Limits,
    available_cores,
    available_memory_bytes,
    find_cgroup,
    total_memory_bytes,
)

GIB = 1 << 30
#: Files relative to the root, by path.
Tree = Mapping[str, str]
MakeTree = Callable[[Tree], Path]
V1_MOUNTS = (
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)
V2_MOUNT = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID_MOUNT = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
V1 = {
    "proc/self/cgroup": "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/a\n0::/\n",
    "proc/self/mountinfo": V1_MOUNTS + HYBRID_MOUNT,
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
    "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "250000",
    "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    "sys/fs/cgroup/memory/a/memory.limit_in_bytes": str(4 * GIB),
    "sys/fs/cgroup/memory/a/memory.usage_in_bytes": str(3 * GIB),
    "sys/fs/cgroup/memory/a/memory.stat": f"cache 5\ntotal_inactive_file {GIB}",
    "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712",
}
V2 = {
    "proc/self/cgroup": "0::/a/b\n",
    "proc/self/mountinfo": V2_MOUNT,
    "sys/fs/cgroup/a/cpu.max": "250000 100000",
    "sys/fs/cgroup/a/memory.max": str(4 * GIB),
    "sys/fs/cgroup/a/memory.current": str(3 * GIB),
    "sys/fs/cgroup/a/memory.stat": f"inactive_file {GIB}",
    "sys/fs/cgroup/a/b/cpu.max": "max 100000",
    "sys/fs/cgroup/a/b/memory.max": "max",
}
#: A container whose processes see the host's paths, but only their own cgroup.
CONTAINER = {
    "proc/self/cgroup": "4:memory:/docker/1f\n1:cpu,cpuacct:/docker/1f\n",
    "proc/self/mountinfo": V1_MOUNTS,
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GIB),
    "sys/fs/cgroup/memory/memory.usage_in_bytes": str(2 * GIB),
}
BIND_MOUNT = {
    **CONTAINER,
    "proc/self/mountinfo": V1_MOUNTS.replace(" / /sys", " /docker/1f /sys"),
}
NAMESPACE = {
    "proc/self/cgroup": "0::/../../b\n",
    "proc/self/mountinfo": V2_MOUNT,
    "sys/fs/cgroup/cpu.max": "250000 100000",
    "sys/fs/cgroup/memory.max": str(4 * GIB),
    "sys/fs/cgroup/memory.current": str(2 * GIB),
}
LIMITED = pytest.mark.parametrize(
    "tree",
    [V1, V2, CONTAINER, BIND_MOUNT, NAMESPACE],
    ids=["v1", "v2", "container", "bind mount", "namespace"],
)


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    def make(tree: Tree) -> Path:
        meminfo = {"proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n"}
        for name, text in {**meminfo, **tree}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return make


@LIMITED
def test_available_cores_rounds_quota_up(make_tree: MakeTree, tree: Tree) -> None:
    root = make_tree(tree)
    assert available_cores(root, affinity=96) == 3
    assert available_cores(root, affinity=2) == 2


@LIMITED
def test_total_memory_bytes_is_lowest_limit(make_tree: MakeTree, tree: Tree) -> None:
    assert total_memory_bytes(make_tree(tree)) == 4 * GIB


@LIMITED
def test_available_memory_bytes_does_not_count_page_cache(make_tree: MakeTree, tree: Tree) -> None:
    assert available_memory_bytes(make_tree(tree)) == 2 * GIB


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2_MOUNT},
        {"proc/self/cgroup": V1["proc/self/cgroup"], "proc/self/mountinfo": V1_MOUNTS},
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V1_MOUNTS},
    ],
    ids=["no cgroups", "v2 without files", "v1 without files", "not mounted"],
)
def test_limits_are_those_of_host_without_cgroups(make_tree: MakeTree, tree: Tree) -> None:
    root = make_tree(tree)
    assert available_cores(root, affinity=96) == 96
    assert total_memory_bytes(root) == 16 * GIB
    assert available_memory_bytes(root) == 8 * GIB


def test_available_cores_is_at_least_one(make_tree: MakeTree) -> None:
    root = make_tree({**V2, "sys/fs/cgroup/a/b/cpu.max": "10000 100000"})
    assert available_cores(root, affinity=2) == 1


def test_find_cgroup_decodes_mount_point(make_tree: MakeTree) -> None:
    mount = V2_MOUNT.replace("/sys/fs/cgroup", "/sys/fs/c\\040group")
    found = find_cgroup("cpu", make_tree({**V2, "proc/self/mountinfo": mount}))
    assert found and found.mount.name == "c group"


@pytest.mark.parametrize(
    ("cpus", "cores"), [(None, 4), (0.5, 1), (1, 1), (1.5, 2), (4, 4), (16, 4)]
)
def test_limits_cores_are_those_that_a_jvm_counts(cpus: float | None, cores: int) -> None:
    assert Limits(cpus).cores(4) == cores
