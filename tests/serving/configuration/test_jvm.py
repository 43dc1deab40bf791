from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from serving.configuration.jvm import (
    format_variable,
    hide_secrets,
    parse_jvm,
    redact_arguments,
    with_secrets,
)
from serving.installation import Installation


@pytest.mark.parametrize("name", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"])
@pytest.mark.parametrize(
    ("text", "rest", "secret"),
    [
        ("-Xmx1g -Da.password=x", "-Xmx1g ", "-Da.password=x"),
        ("-Da.password='x y' --add-opens a=b", "--add-opens a=b ", "-Da.password='x y'"),
        ('"-Da=https://me:pw@host" -Db=1', "-Db=1 ", '"-Da=https://me:pw@host"'),
        ("-Da.TOKEN=\\n$1", "", "-Da.TOKEN=\\n$1"),
        ("-Xmx1g", "", "-Xmx1g"),  # Named as a secret by the user.
    ],
)
def test_hide_secrets_moves_them_into_files_of_their_owner(
    tmp_path: Path, name: str, text: str, rest: str, secret: str
) -> None:
    hidden = hide_secrets({name: text, "HF_TOKEN": "t"}, tmp_path)
    path = tmp_path / f"{name}.txt"
    option = "@" if name == "JDK_JAVA_OPTIONS" else "-XX:VMOptionsFile="
    assert hidden == {name: f"{rest}{option}{path}", "HF_TOKEN": "t"}
    words = path.read_text()
    if name == "JDK_JAVA_OPTIONS":
        words, secret = words.replace('"', ""), re.sub("[\"']", "", secret).replace("\\", "\\\\")
    assert words == secret and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"])
def test_hide_secrets_leaves_the_jvm_its_arguments(
    tmp_path: Path, installation: Installation, name: str
) -> None:
    variables = {name: r"""-Dx=1 "-Da.password=y z" -Db.token='\$q'"""}
    command = [installation.java.path, "-XshowSettings:properties", "-version"]
    environment = {"PATH": os.environ["PATH"], **hide_secrets(variables, tmp_path)}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [line.strip() for line in shown.stderr.splitlines()]
    assert {"x = 1", "a.password = y z", r"b.token = \$q"} <= set(lines)
    assert "y z" not in lines[0] and f"Picked up {name}" in lines[0]


@pytest.mark.parametrize(
    "secret", ["a\"b'c", "'a\"", "''\"\"", "a'b'c", '"a"', "a\\b\\\\'\"", "#$1"]
)
def test_format_variable_gives_java_both_quotation_marks(
    tmp_path: Path, installation: Installation, secret: str
) -> None:
    options = tmp_path / "options"
    options.write_text("-Dx=1")
    settings = ["-XX:VMOptionsFile=" + str(options), "-XshowSettings:properties", "-version"]
    variables = {"JDK_JAVA_OPTIONS": format_variable({"-Da.password": secret})}
    for given in (variables, hide_secrets(variables, tmp_path)):
        environment = {"PATH": os.environ["PATH"], **given}
        command = [installation.java.path, *settings]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        lines = {line.strip() for line in shown.stderr.splitlines()}
        assert {"x = 1", f"a.password = {secret}"} <= lines


@pytest.mark.parametrize(
    ("variables", "rest"),
    [({}, ""), ({"JDK_JAVA_OPTIONS": "-Xmx2g"}, "-Xmx2g "), ({"X": "1"}, "")],
)
def test_with_secrets_adds_secret_arguments_to_those_in_the_variables(
    tmp_path: Path, variables: dict[str, str], rest: str
) -> None:
    secrets = {"JDK_JAVA_OPTIONS": "-Da.token=x", "X": "2"}
    file = tmp_path / "JDK_JAVA_OPTIONS.txt"
    assert with_secrets(variables, secrets, tmp_path) == {
        "JDK_JAVA_OPTIONS": f"{rest}@{file}",
        "X": "2",
    }
    assert with_secrets(variables, {}, tmp_path) == variables


@pytest.mark.parametrize(
    ("vmargs", "expected"),
    [
        ("-Xmx2g -Da.password=x -server", "-Xmx2g -Da.password=<secret> -server"),
        ("-DHF_TOKEN=x -Dkeystore=/k", "-DHF_TOKEN=<secret> -Dkeystore=/k"),
        ("-javaagent:/a.jar=license_key=x", "-javaagent:/a.jar=<secret>"),
        ("-Durl=https://me:pw@host/", "-Durl=<secret>"),
        ("-XX:+UseG1GC -Xss1m", "-XX:+UseG1GC -Xss1m"),
    ],
)
def test_redact_arguments_replaces_only_secrets(vmargs: str, expected: str) -> None:
    assert redact_arguments(vmargs) == expected
    assert re.sub(r"\S+", "", expected) == re.sub(r"\S+", "", vmargs)


def test_parse_jvm_keeps_an_option_for_each_module() -> None:
    assert parse_jvm("--patch-module a=x --patch-module=b=y --enable-native-access m") == {
        "--patch-module=a": "x",
        "--patch-module=b": "y",
        "--enable-native-access=m": "",
    }
