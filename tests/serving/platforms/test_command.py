"""Finding the command `torchserve` in a container's command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.errors import ConfigError, PathRefused
from serving.platforms.command import Command, find_command
from serving.platforms.files import checking_paths, command_notes
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
        (["sh", "-c", "torchserve --start # don't wait\n"], "--start", {}),
        (["sh", "-c", 'X="a # b" torchserve --x a#b'], "--x a#b", {"X": "a # b"}),
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
    "words",
    [
        *([], ["serve"], ["sh", "/start.sh"], ["sh", "-c", "echo torchserve-x"], ["sh", "-c"]),
        ["sh", "-c", "cat <<EOF\nit's\nEOF"],
    ],
)
def test_find_command_finds_none(words: list[str]) -> None:
    assert find_command(words, {}) is None


@pytest.mark.parametrize(
    ("script", "options", "variables", "left_out"),
    [
        ("export OMP=$(nproc); torchserve --start", "--start", {}, "variable OMP"),
        ("export OMP=$((2*(1+1)))\ntorchserve --start", "--start", {}, "variable OMP"),
        ("OMP=`nproc`; export OMP; torchserve --start", "--start", {}, "variable OMP"),
        ('OMP="a $(b ")" c)" torchserve --start', "--start", {}, "variable OMP"),
        ("BASE=$(pwd); torchserve --start", "--start", {}, "variable BASE"),
        ('torchserve --models "$(ls /m | tr a b)" --ncs', "--ncs", {}, "option --models"),
        ("torchserve --models=a=$(ls) b --ncs", "--ncs", {}, "option --models=a=$(…)"),
        ("A=$(x); torchserve --ncs $A --start", "--ncs --start", {}, "option $(…)"),
        ("[ -z $A ] && export OMP=1; torchserve --start", "--start", {}, "variable OMP"),
        ("test -f /x || export OMP=1; torchserve --start", "--start", {}, "variable OMP"),
        ("if a; then export OMP=1; fi; torchserve --start", "--start", {}, "variable OMP"),
        ("case $1 in a) BASE=1;; esac; torchserve --start", "--start", {}, "variable BASE"),
        ("mkdir x && export OMP=1 && torchserve --start", "--start", {"OMP": "1"}, None),
        ("export OMP='$(nproc)'; torchserve --start", "--start", {"OMP": "$(nproc)"}, None),
        ("export OMP=\\$A; torchserve --start", "--start", {"OMP": "$A"}, None),
        ("A=$(nproc); torchserve --start", "--start", {}, None),
        ("A=1; export A OMP=2; torchserve --start", "--start", {"A": "1", "OMP": "2"}, None),
    ],
)
def test_find_command_notes_what_only_a_shell_knows(
    script: str, options: str, variables: dict[str, str], left_out: str | None
) -> None:
    command = find_command(["sh", "-c", script], {"BASE": "/b"})
    assert command is not None and command.options == tuple(options.split())
    assert command.variables == variables
    assert [note.partition(" of the command")[0] for note in command.notes] == (
        [left_out] if left_out else []
    )


@pytest.mark.parametrize(
    "script",
    [
        "torchserve --ts-config $(dirname /a)/x",
        "C=$(dirname /a); torchserve --ts-config $C/x",
        "torchserve --ts-config `dirname /a`/x",
    ],
)
def test_find_command_shows_a_config_that_is_not_known(script: str) -> None:
    command = find_command(["sh", "-c", script], {})
    assert command == Command(("--ts-config", "$(…)/x"))


@pytest.mark.parametrize(
    "script",
    [
        "if a; then torchserve --ts-config /a; else torchserve --ts-config /b; fi",
        "[ -f /a ] && torchserve --ts-config /a || torchserve --ts-config /b",
        "case $1 in a) torchserve --ts-config /a;; *) torchserve --ts-config /b;; esac",
        "if a; then exec torchserve --ts-config /a; fi; torchserve --ts-config /b",
    ],
)
def test_find_command_refuses_options_that_depend_on_a_condition(script: str) -> None:
    with pytest.raises(ConfigError, match="different options under conditions"):
        find_command(["sh", "-c", script], {})


@pytest.mark.parametrize(
    "script",
    [
        "if a; then torchserve --ts-config /a; else torchserve --ts-config /a; fi",
        "torchserve --ts-config /a || torchserve --ts-config /b",
        "while true; do torchserve --ts-config /a; done",
    ],
)
def test_find_command_reads_the_only_options(script: str) -> None:
    assert find_command(["sh", "-c", script], {}) == Command(("--ts-config", "/a"))


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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services: {ts: {command: [sh, -c, 'export A=$$(nproc); torchserve']}}"),
        ("Dockerfile", "FROM a\nCMD export A=$(nproc); torchserve\n"),
        ("ts.service", "[Service]\nExecStart=/bin/sh -c 'export A=$(nproc); torchserve'\n"),
    ],
)
def test_read_platform_notes_what_only_a_shell_knows(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    platform = read_platform(tmp_path)
    assert platform is not None and "A" not in platform.environment
    assert any(note.startswith("variable A of the command is not read") for note in platform.notes)


def test_read_platform_refuses_a_script_with_an_open_quote(tmp_path: Path) -> None:
    container = "{args: [sh, -c, 'torchserve \"']}"
    (tmp_path / "ts.yaml").write_text(f"kind: Pod\nspec: {{containers: [{container}]}}\n")
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


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("sed -i s/7/70/ /c.properties && torchserve --ts-config /c.properties", "sed"),
        ("echo a=b >> /c.properties; torchserve --ts-config /c.properties", "echo"),
        ("cd /; cat <<E >c.properties\na=b\nE\ntorchserve --ts-config c.properties", "cat"),
        (
            "if a; then envsubst </x >/c.properties; fi; torchserve --ts-config /c.properties",
            "envsubst",
        ),
        ("C=/c.properties; [ -f $C ] && torchserve --ts-config $C; rm $C", None),
        ("export C=/c.properties; mkdir x; torchserve --ts-config $C", None),
    ],
)
def test_command_notes_name_what_may_change_the_file(script: str, named: str | None) -> None:
    words = ["sh", "-c", script]
    notes = command_notes(find_command(words, {}), words, "/c.properties")
    assert [note.split()[3][:4] for note in notes] == ([named[:4]] if named else [])


@pytest.mark.parametrize(
    ("words", "is_noted"),
    [
        ([], False),
        (["serve"], False),
        (["torchserve"], False),
        (["/start.sh"], True),
        (["/start.sh", "serve"], True),
        (["sh", "/start.sh"], True),
        (["python", "app.py"], True),
    ],
)
def test_command_notes_name_a_command_without_torchserve(words: list[str], is_noted: bool) -> None:
    notes = command_notes(find_command(words, {}), words, "/c.properties")
    assert [note.startswith(f"the command {words[0]} does not name") for note in notes] == (
        [True] if is_noted else []
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services: {ts: {image: torchserve, entrypoint: /start.sh}}"),
        ("Dockerfile", 'FROM torchserve\nENTRYPOINT ["/start.sh"]\n'),
        ("pod.yaml", "kind: Pod\nspec: {containers: [{command: [/start.sh]}]}"),
    ],
)
def test_read_platform_notes_a_command_without_torchserve(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    platform = read_platform(tmp_path)
    assert platform is not None
    assert any(note.startswith("the command /start.sh does not name") for note in platform.notes)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["/start.sh"], {"/start.sh": "#!/bin/bash\nexec torchserve --start\n"}),
        (["sh", "/start.sh"], {"/start.sh": "torchserve --start\n"}),
        (["bash", "-e", "start.sh"], {"start.sh": "torchserve --start\n"}),
        (["sh", "-c", "bash start.sh"], {"start.sh": "torchserve --start\n"}),
        (["tini", "--", "/start.sh"], {"/start.sh": "#!/usr/bin/env bash\ntorchserve --start\n"}),
        (
            ["/start.sh", "serve"],
            {
                "/start.sh": "#!/bin/sh\nif [ $1 = serve ]; then shift; torchserve --start\n"
                'else eval "$@"; fi\ntail -f /dev/null\n'
            },
        ),
        (["/entry.sh", "torchserve", "--start"], {"/entry.sh": '#!/bin/sh\nexec "$@"\n'}),
        (["/entry.sh", "--start"], {"/entry.sh": '#!/bin/sh\nexec torchserve "$@"\n'}),
        (["/a.sh"], {"/a.sh": "#!/bin/sh\n/b.sh --start", "/b.sh": "#!/bin/sh\ntorchserve $1"}),
    ],
)
def test_find_command_reads_a_script_that_is_started_by_path(
    words: list[str], files: dict[str, str]
) -> None:
    assert find_command(words, {}, files.get) == Command(("--start",))


def test_find_command_keeps_what_surrounds_the_start_of_a_script() -> None:
    files = {
        "/./start.sh": "export B=2\nsed -i s/a/b/ /c.properties\nC=3 /serve.sh\n",
        "/serve.sh": "#!/bin/sh\ncd /app\nexport D=4\ntorchserve --ts-config c.properties\n",
    }
    found = find_command(["sh", "-c", "export A=1; cd / && . ./start.sh"], {}, files.get)
    variables = {"A": "1", "B": "2", "C": "3", "D": "4"}
    assert found == Command(("--ts-config", "c.properties"), variables, "/app")
    assert found is not None
    assert found.before == (("cd", "/"), ("sed", "-i", "s/a/b/", "/c.properties"), ("cd", "/app"))


def test_find_command_has_the_variables_of_a_sourced_script() -> None:
    files = {"/a.env": "export A=1\nB=2\nOLD=3\n"}
    script = "if b; then source /a.env; fi; torchserve --start --b $B"
    unsure = find_command(["sh", "-c", script], {"OLD": "0"}, files.get)
    assert unsure is not None and unsure.variables == {} and len(unsure.notes) == 3
    found = find_command(
        ["sh", "-c", script.replace("if b; then", "").replace("fi;", "")], {"OLD": "0"}, files.get
    )
    assert found == Command(("--start", "--b", "2"), {"A": "1", "OLD": "3"})
    assert find_command(["sh", "-c", script.replace("source", "sh")], {}, files.get) == Command(
        ("--start", "--b", "$B")
    )


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\necho hello\n",
        "#!/usr/bin/env python3\nimport os\nos.system('torchserve --start')\n",
        "\x7fELF torchserve --start",
        '#!/bin/sh\ntorchserve --start "',
        "#!/bin/sh\nif a; then torchserve --ts-config /a; else torchserve --ts-config /b; fi\n",
        "#!/bin/sh\nif a; then C=/a; fi\ntorchserve --ts-config $C\n",
        "#!/bin/sh\n/start.sh\n",
    ],
)
@pytest.mark.parametrize("words", [["/start.sh"], ["sh", "-c", "/start.sh; sleep 9"]])
def test_find_command_knows_nothing_of_a_script_that_it_cannot_follow(
    words: list[str], text: str
) -> None:
    assert find_command(words, {}, {"/start.sh": text}.get) is None


@pytest.mark.parametrize(
    ("script", "arguments", "options"),
    [
        ("torchserve --ts-config ${1:-/c}", [], ["--ts-config", "/c"]),
        ("torchserve --ts-config ${1:-/c}", ["/d"], ["--ts-config", "/d"]),
        ("C=${2:=/c}; torchserve --ts-config ${C}", ["/d"], ["--ts-config", "/c"]),
        ("torchserve --start $1 ${2}", [], ["--start"]),
        ("A=$1; shift 2; torchserve --ts-config $1", ["/d", "/e", "/f"], ["--ts-config", "/f"]),
        (
            "torchserve --start ${@}",
            ["--ncs", "--foreground"],
            ["--start", "--ncs", "--foreground"],
        ),
        (
            'if [[ $1 = serve ]]; then\n shift 1\n torchserve "$@"\nelse\n exec "$@"\nfi',
            ["serve", "--ncs"],
            ["--ncs"],
        ),
        ("A=--start; A+=' --ncs'; torchserve $A", [], ["--start", "--ncs"]),
        ("readonly C=/c; torchserve --ts-config $C", [], ["--ts-config", "/c"]),
        (
            "cat <<EOF >/x\nit's\ntorchserve --ts-config /a\nEOF\ntorchserve --ts-config /b",
            [],
            ["--ts-config", "/b"],
        ),
        ("cat <<'A' <<-B\nit's\nA\n\"\n\tB\ntorchserve --ncs", [], ["--ncs"]),
        ("echo $((1<<2)); cat <<<A; torchserve --start", [], ["--start"]),
        ("find /opt/torchserve -name '*.mar'; torchserve --start", [], ["--start"]),
        ("pip install torchserve --upgrade\npkill -f torchserve -9\ntorchserve", [], []),
        ("numactl -N 0 /opt/torchserve/bin/torchserve --start", [], ["--start"]),
    ],
)
def test_find_command_runs_the_script_of_a_file_in_mind(
    script: str, arguments: list[str], options: list[str]
) -> None:
    files = {"/s.sh": f"#!/bin/bash\n{script}\n"}
    found = find_command(["/s.sh", *arguments], {}, files.get)
    assert found is not None and list(found.options) == options


@pytest.mark.parametrize(
    "script",
    [
        "if [ $1 = x ]; then shift; fi; torchserve --ts-config $1",
        "if [ $1 = x ]; then shift; fi; if b; then torchserve --ts-config $1; fi",
        "if [ $1 = x ]; then shift; else torchserve --ts-config $1; fi",
        "f() { torchserve --ts-config $C; }; C=/c; f",
        "function f {\n torchserve --ts-config /a\n}\ntorchserve --ts-config /b",
        "f() { torchserve --ts-config /a; }; torchserve --ts-config /b",
        "A=--start; [ -n $X ] && A='--start --ncs'; torchserve $A",
        "cp -r /opt/torchserve /x; python app.py",
        "C=a; " + "C=$C$C; " * 40 + "torchserve --start",
    ],
)
def test_find_command_is_not_sure_of_a_script(script: str) -> None:
    files = {"/opt/torchserve/s.sh": f"#!/bin/bash\n{script}\n"}
    environment = {"LOG_LOCATION": "/var/log/torchserve"}
    assert find_command(["/opt/torchserve/s.sh", "/d"], environment, files.get) is None


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["sh", "-c", "set -a; . /e; set +a; B=2; torchserve"], {"A": "1"}),
        (["sh", "-c", "set -o allexport; . /e; torchserve"], {"A": "1"}),
        (["sh", "-c", "set -o pipefail; . /e; torchserve"], {}),
        (["sh", "-c", "declare -x A=3; typeset B=4; torchserve"], {"A": "3"}),
        (["env", "A=2", "/s"], {"A": "2"}),
        (["sh", "-c", "env A=2 /s"], {"A": "2"}),
        (["sh", "-c", "exec env A=2 bash -o pipefail /s"], {"A": "2"}),
        (["/with", "x"], {"V": "x"}),
    ],
)
def test_find_command_has_the_variables_of_a_start(
    words: list[str], variables: dict[str, str]
) -> None:
    files = {
        "/e": "A=1\n",
        "/s": "#!/bin/sh\ntorchserve\n",
        "/with": "#!/bin/sh\n. /v\ntorchserve\n",
        "/v": "export V=$1\n",
    }
    assert find_command(words, {}, files.get) == Command((), variables)


def test_find_command_lists_the_commands_of_other_scripts() -> None:
    files = {"/prep.sh": "#!/bin/sh\nsed -i s/a/b/ /c.properties\n"}
    found = find_command(["sh", "-c", "/prep.sh; torchserve"], {}, files.get)
    assert found is not None and ("sed", "-i", "s/a/b/", "/c.properties") in found.before


def test_find_command_reads_a_limited_number_of_files() -> None:
    asked: list[str] = []
    script = "/a/b\n" * 3000 + "torchserve --start\n"
    read = {"/s": f"#!/bin/sh\n{script}"}.get
    found = find_command(["/s"], {}, lambda path: asked.append(path) or read(path))  # type: ignore[func-returns-value]
    assert found == Command(("--start",)) and len(asked) == 200


START = "#!/bin/bash\nexport OMP_NUM_THREADS=2\ntorchserve --start --ts-config /cfg/c.properties\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "compose.yaml",
            "services:\n  ts:\n    image: torchserve\n    volumes: ['.:/cfg']\n"
            "    entrypoint: /cfg/start.sh\n",
        ),
        ("Dockerfile", 'FROM a\nCOPY . /cfg/\nCOPY start.sh /usr/bin/\nCMD ["start.sh"]\n'),
        ("ts.service", "[Service]\nExecStart=/cfg/start.sh\n"),
        (
            "pod.yaml",
            "kind: Pod\nspec:\n  containers:\n    - command: [/cfg/start.sh]\n"
            "      image: torchserve\n      volumeMounts: [{name: c, mountPath: /cfg}]\n"
            "  volumes: [{name: c, configMap: {name: c}}]\n---\nkind: ConfigMap\n"
            "metadata: {name: c}\ndata:\n"
            f"  c.properties: {json.dumps(PROPERTIES)}\n  start.sh: {json.dumps(START)}\n",
        ),
    ],
)
def test_read_platform_reads_a_script_of_the_deployment(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "c.properties").write_text(PROPERTIES)
    (tmp_path / "start.sh").write_text(START)
    (tmp_path / name).write_text(text)
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.environment == {"OMP_NUM_THREADS": "2"}
    assert platform.arguments == ("--start", "--ts-config", "/cfg/c.properties")
    assert platform.notes == ()


@pytest.mark.parametrize("error", [PathRefused("outside"), PermissionError(13, "denied")])
def test_read_platform_notes_a_script_that_it_may_not_read(
    tmp_path: Path, error: Exception
) -> None:
    def check(path: Path) -> None:
        if path.name == "wait-for":
            raise error

    volumes = f"volumes: ['{tmp_path}/tools:/tools']"
    command = "command: sh -c '/tools/wait-for db && torchserve --start'"
    (tmp_path / "compose.yaml").write_text(f"services: {{ts: {{{volumes}, {command}}}}}\n")
    with checking_paths(check):
        platform = read_platform(tmp_path)
    assert platform is not None and platform.arguments == ("--start",)


def test_read_platform_reads_scripts_as_utf8(tmp_path: Path) -> None:
    (tmp_path / "start.sh").write_text("export N=café\ntorchserve --start\n")
    (tmp_path / "Dockerfile").write_text("FROM a\nCOPY start.sh /\nCMD bash /start.sh\n")
    platform = read_platform(tmp_path)
    assert platform is not None and platform.environment == {"N": "café"}
