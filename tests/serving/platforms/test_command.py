"""Finding the command `torchserve` in a container's command."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.platforms.command import Command, find_command
from serving.platforms.reading import read_platform

PROPERTIES = "load_models=pets.mar\njob_queue_size=7\n"


@pytest.mark.parametrize(
    ("words", "options", "variables"),
    [
        (["torchserve", "--start"], "--start", {}),
        (["entrypoint.sh", "/opt/bin/torchserve", "--ncs"], "--ncs", {}),
        (["env", "A=1", "torchserve", "--start"], "--start", {"A": "1"}),
        (["sh", "-c", 'torchserve --ts-config "/a/x"'], "--ts-config /a/x", {}),
        (["sh", "-c", "torchserve --ts-config /a/x; tail -f /dev/null"], "--ts-config /a/x", {}),
        (["bash", "-c", "torchserve --ts-config /a/x&& tail -f y"], "--ts-config /a/x", {}),
        (["bash", "-lc", ". /v; exec torchserve \\\n --ts-config \\\n /x"], "--ts-config /x", {}),
        (["bash", "-c", "-e", "torchserve --start"], "--start", {}),
        (["bash", "-e", "-c", "-o", "pipefail", "torchserve --start"], "--start", {}),
        (["sh", "-c", "torchserve --stop; torchserve --start"], "--start", {}),
        (["sh", "-c", "# don't\ntorchserve --start # now"], "--start", {}),
        (["sh", "-c", "torchserve --start > /log 2>&1 | tee x"], "--start", {}),
        (["sh", "-c", "if true; then torchserve --start; fi"], "--start", {}),
        (["sh", "-c", "torchserve --models $BASE/a ${B:-c} $D"], "--models /b/a c $D", {}),
        (["sh", "-c", "A=1 B=2 torchserve --start"], "--start", {"A": "1", "B": "2"}),
        (["sh", "-c", "export A=$BASE\ntorchserve --start"], "--start", {"A": "/b"}),
        (["sh", "-c", "mkdir -p /opt/torchserve && torchserve --start"], "--start", {}),
        (["sh", "-c", "cp -r /opt/torchserve /x; torchserve --start"], "--start", {}),
        (["sh", "-c", "O='--start --ncs'; torchserve $O"], "--start --ncs", {}),
        (["sh", "-c", "A=1; BASE=/c; torchserve --x $A"], "--x 1", {"BASE": "/c"}),
    ],
)
def test_find_command_reads_each_form(
    words: list[str], options: str, variables: dict[str, str]
) -> None:
    assert find_command(words, {"BASE": "/b"}) == Command(tuple(options.split()), variables)


@pytest.mark.parametrize(
    "words", [[], ["serve"], ["sh", "/start.sh"], ["sh", "-c", "echo torchserve-x"], ["sh", "-c"]]
)
def test_find_command_finds_none(words: list[str]) -> None:
    assert find_command(words, {}) is None


SCRIPT = 'export OMP_NUM_THREADS=2; torchserve --start --ts-config "$CFG"/c.properties; sleep 9'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "compose.yaml",
            "services:\n  ts:\n    environment: {CFG: /cfg}\n    volumes: ['.:/cfg']\n"
            f"    command: ['sh', '-c', '{SCRIPT}']\n",
        ),
        ("Dockerfile", f"FROM a\nENV CFG=/cfg\nCOPY c.properties /cfg/\nCMD {SCRIPT}\n"),
        ("ts.service", f"[Service]\nEnvironment=CFG=/cfg\nExecStart=/bin/sh -c '{SCRIPT}'\n"),
        (
            "pod.yaml",
            "kind: Pod\nspec:\n  containers:\n    - command: [sh, -c]\n"
            f"      args: ['{SCRIPT}']\n      env: [{{name: CFG, value: /cfg}}]\n"
            "      volumeMounts: [{name: c, mountPath: /cfg}]\n"
            "  volumes: [{name: c, configMap: {name: c}}]\n"
            "---\nkind: ConfigMap\nmetadata: {name: c}\n"
            f"data: {{c.properties: {PROPERTIES!r}}}\n".replace("'load", '"load').replace(
                "n'}", 'n"}'
            ),
        ),
    ],
)
def test_read_platform_reads_the_script_of_a_shell(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "c.properties").write_text(PROPERTIES)
    (tmp_path / name).write_text(text)
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.environment == {"CFG": "/cfg", "OMP_NUM_THREADS": "2"}
    assert platform.arguments == ("--start", "--ts-config", "/cfg/c.properties")


def test_read_platform_refuses_a_script_with_an_open_quote(tmp_path: Path) -> None:
    (tmp_path / "ts.yaml").write_text("kind: Pod\nspec: {containers: [{args: [sh, -c, 'a \"']}]}\n")
    with pytest.raises(ConfigError, match="has an entry of an unexpected form"):
        read_platform(tmp_path)


def test_effective_properties_have_the_models_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "c.properties").write_text(PROPERTIES)
    (tmp_path / "Dockerfile").write_text(
        "FROM a\nCOPY c.properties /c\nCMD torchserve --models a=b.mar c.mar --ts-config /c\n"
    )
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.effective_properties == "load_models=a=b.mar,c.mar\njob_queue_size=7\n"
