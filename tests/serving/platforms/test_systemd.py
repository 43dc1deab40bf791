"""Reading units of systemd."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.limits import Limits
from serving.platforms.files import PlatformFiles, checking_paths
from serving.platforms.reading import read_platform
from tests.serving.platforms.path_checks import refuse_outside

START = "ExecStart=/opt/bin/torchserve --start --ts-config /none/ts/config.properties\n"


def read(folder: Path, text: str, name: str = "ts.service") -> PlatformFiles:
    (folder / "config.properties").write_text("job_queue_size=7\n")
    (folder / name).write_text(f"[Service]\n{text}")
    platform = read_platform(folder / name)
    assert platform is not None and platform.properties == "job_queue_size=7\n"
    return platform


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("/none/ts/*.env", {"A": "2", "B": "1"}),
        ("-/none/ts/*.env", {"A": "2", "B": "1"}),
        ("/none/ts/[b]?env", {"A": "2"}),
        ("%E/none/a.env", {"A": "1", "B": "1"}),
        ("/none/%p/%N.env", {"C": "3"}),
    ],
)
def test_read_systemd_reads_patterns_of_environment_files(
    tmp_path: Path, name: str, environment: dict[str, str]
) -> None:
    (tmp_path / "a.env").write_text("A=1\nB=1\n")
    (tmp_path / "b.env").write_text("A=2\n")
    (tmp_path / "ts.env").write_text("C=3\n") if "%N" in name else None
    platform = read(tmp_path, f"EnvironmentFile={name}\n{START}")
    assert platform.environment == environment and platform.notes == ()


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("EnvironmentFile=-/none/ts", "the optional EnvironmentFile /none/ts exists neither"),
        ("EnvironmentFile=-/none/*.env", "the optional EnvironmentFile /none/*.env exists"),
        ("EnvironmentFile=ts.env", "EnvironmentFile ts.env is no absolute path"),
        ("EnvironmentFile=/none/bare.txt", "has lines that are not NAME=value"),
        ("Environment=TS_X=%i A=1", "variables with a specifier whose value is not known"),
        ('Environment="TS_X=a %H b" A=1', "variables with a specifier whose value is not known"),
        ("WorkingDirectory=%Y", "WorkingDirectory has a specifier whose value is not known"),
        ("CPUAffinity=numa", "CPUAffinity=numa is not read"),
        ("PassEnvironment=HF_TOKEN B\nPassEnvironment=A", "are not in these files: A, B"),
        ("ExecStartPre=sed -i s/7/8/ /none/config.properties", "ExecStartPre names config.prop"),
        ("MemoryMax=50%", "MemoryMax=50% is not read"),
    ],
)
def test_read_systemd_notes_what_is_not_known(tmp_path: Path, line: str, note: str) -> None:
    (tmp_path / "bare.txt").write_text("A=1\nHF_TOKEN\n")
    platform = read(tmp_path, f"{line}\n{START}", "ts@.service")
    (found,) = platform.notes
    assert note in found and "TS_X" not in platform.environment
    assert platform.limits == Limits()


@pytest.mark.parametrize("name", ["/none/*.env", "/none/ts.env"])
def test_read_systemd_refuses_a_missing_environment_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="does not exist, neither there nor beside the unit"):
        read(tmp_path, f"EnvironmentFile={name}\n{START}")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("ts@4.service", "%i", "4"),
        ("ts@a-b.service", "%I", "a/b"),
        ("ts@4.service", "%p", "ts"),
        ("ts.service", "%N %n", "ts ts.service"),
        ("ts.service", "100%%", "100%"),
        ("ts.service", "%S/ts", "/var/lib/ts"),
    ],
)
def test_read_systemd_fills_in_specifiers(tmp_path: Path, name: str, text: str, value: str) -> None:
    platform = read(tmp_path, f'Environment="A={text}"\n{START}', name)
    assert platform.environment == {"A": value} and platform.notes == ()


@pytest.mark.parametrize(
    ("lines", "limits"),
    [
        ("CPUAffinity=0-1", Limits(2)),
        ("CPUAffinity=0\nCPUAffinity=2 3", Limits(3)),
        ("AllowedCPUs=0-3\nCPUQuota=150%", Limits(1.5)),
        ("AllowedCPUs=0\nCPUQuota=150%", Limits(1)),
        ("MemoryLimit=4G", Limits(None, 4 << 30)),
        ("MemoryLimit=4G\nMemoryMax=2G", Limits(None, 2 << 30)),
        ("MemoryMax=infinity", Limits()),
    ],
)
def test_read_systemd_reads_each_limit(tmp_path: Path, lines: str, limits: Limits) -> None:
    platform = read(tmp_path, f"{lines}\n{START}")
    assert platform.limits == limits and platform.notes == ()


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("$A", ("1", "2")),
        ("${A}", ("1 2",)),
        ('"x${A}"', ("x1 2",)),
        ("x$A", ("x$A",)),
        ("$$A", ("$A",)),
        ("$E", ()),
    ],
)
def test_read_systemd_fills_in_variables(tmp_path: Path, word: str, words: tuple[str, ...]) -> None:
    line = START.replace("--start", f"--models {word}")
    platform = read(tmp_path, f"Environment='A=1 2' E=\n{line}")
    assert platform.arguments[1:-2] == words


def test_read_systemd_prefers_the_files_beside_the_unit(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("etc")
    for name, text in (("config.properties", "job_queue_size=9\n"), ("ts.env", "A=9\n")):
        (elsewhere / name).write_text(text)
    (tmp_path / "ts.env").write_text("A=1\n")
    start = START.replace("/none/ts", str(elsewhere))
    assert read(tmp_path, f"EnvironmentFile={elsewhere}/ts.env\n{start}").environment["A"] == "1"
    (tmp_path / "ts.env").unlink()
    (tmp_path / "config.properties").unlink()
    platform = read_platform(tmp_path / "ts.service")
    assert platform is not None and platform.environment["A"] == "9"
    assert platform.properties == "job_queue_size=9\n"


def test_read_systemd_names_secrets_of_the_service_manager(tmp_path: Path) -> None:
    platform = read(tmp_path, f"PassEnvironment=HF_TOKEN A\nEnvironment=A=1\n{START}")
    assert platform.secrets == ("HF_TOKEN",) and platform.notes == ()


def test_read_systemd_reads_only_the_folder_of_a_complete_unit(tmp_path: Path) -> None:
    (tmp_path / "ts.env").write_text("A=1\n")
    with checking_paths(refuse_outside(tmp_path)):
        platform = read(tmp_path, f"EnvironmentFile=/etc/ts/ts.env\n{START}")
        assert platform.environment == {"A": "1"}
        for name in ("none.env", "*.none"):
            with pytest.raises(PermissionError, match="outside"):
                read(tmp_path, f"EnvironmentFile=/etc/ts/{name}\n{START}")


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("link", ["ts.service.d", "conf"])
def test_read_systemd_checks_links_before_it_looks_behind_them(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, link: str, exists: bool
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "folder"
    if exists:
        outside.mkdir()
        (outside / "a.conf").write_text("[Service]\nCPUQuota=100%\n")
    (tmp_path / link).symlink_to(outside)
    (tmp_path / "ts.service").write_text(
        f"[Service]\nEnvironmentFile=-{tmp_path}/conf/*.conf\nExecStart=torchserve\n"
    )
    with checking_paths(refuse_outside(tmp_path)), pytest.raises(PermissionError, match="outside"):
        read_platform(tmp_path / "ts.service")
