"""Storages of a study: bad URLs, missing drivers, servers that are away, a real PostgreSQL."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.cli.main import run_command
from search.errors import SpecError
from search.spec.loading import load_spec
from search.study.driver import create_run
from search.study.reading import open_store, read_outcome
from search.study.run_folder import Run
from search.study.storage import check_storage, storage_problem
from tests.specifications import make_model_files, write_spec
from tests.stores import measure


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


BAD_STORAGES = [
    pytest.param("nothing", "is not an SQLAlchemy URL", id="no URL"),
    pytest.param("", "is not an SQLAlchemy URL", id="empty"),
    pytest.param("postgresql://u:hidden@h:port/d", "is not an SQLAlchemy URL", id="bad port"),
    pytest.param("nosql://u:hidden@127.0.0.1/d", "use sqlite, postgresql or mysql", id="dialect"),
    pytest.param("oracle+oracledb://u:hidden@127.0.0.1/d", "install the driver", id="driver"),
    pytest.param("nosql://u@127.0.0.1/d?password=hidden", "use sqlite", id="secret in the query"),
    pytest.param("sqlite:////none/at/all/study.db", "unable to open database", id="no folder"),
    pytest.param("sqlite:////dev/null", "cannot be used", id="no database"),
]


@pytest.mark.parametrize(("url", "message"), BAD_STORAGES)
def test_tune_refuses_a_storage_that_cannot_be_used(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    message: str,
) -> None:
    # Another run may be in progress on this host.
    monkeypatch.setattr("search.trial.host_lock.exclusive_host", contextlib.nullcontext)
    make_model_files(tmp_path)
    output = {"folder": str(tmp_path / "runs"), "storage": url}
    spec = write_spec(tmp_path, output=output)
    status = run_command(["tune", str(spec), "--plain"])
    text = capsys.readouterr().err.strip()
    assert status == 2 and text.startswith("output.storage: ") and message in text
    assert len(text.splitlines()) == 1 and "hidden" not in text and "Traceback" not in text
    assert not (tmp_path / "runs").exists(), "nothing was started"


def test_check_storage_names_a_server_that_is_away() -> None:
    pytest.importorskip("psycopg")
    url = f"postgresql+psycopg://user:hidden@127.0.0.1:{unused_port()}/study"
    with pytest.raises(SpecError) as caught:
        check_storage(url)
    (problem,) = caught.value.problems
    assert "cannot be used" in problem and "refused" in problem.lower()
    assert (
        "postgresql+psycopg://127.0.0.1:" in problem
        and "hidden" not in problem
        and "\n" not in problem
    )


@pytest.mark.parametrize(
    ("url", "reason", "message"),
    [
        pytest.param(
            "postgresql+psycopg://u@127.0.0.1:1/d?password=hidden&connect_timeout=1",
            "connection to 127.0.0.1, port 1100, as hidden failed",
            "postgresql+psycopg://127.0.0.1:1/d cannot be used: connection to 127.0.0.***, port 1100, as *** failed;",
            id="a password in the query",
        ),
        pytest.param(
            "mssql+pyodbc:///?odbc_connect=UID%3Du%3BPWD%3D%7Bhid%20den%7D",
            "UID=u;PWD={hid den} and hid den and PWD%3D%7Bhid%20den%7D",
            "mssql+pyodbc:/// cannot be used: *** and *** and PWD%3D%7B***%7D;",
            id="an ODBC connection",
        ),
        pytest.param(
            "mssql+pyodbc:///?odbc_connect=PWD%3Dhidden",
            "login failed: mssql+pyodbc:///?odbc_connect=PWD%3Dhidden",
            "mssql+pyodbc:/// cannot be used: login failed: mssql+pyodbc:///?odbc_connect=***;",
            id="the URL in the reason",
        ),
        pytest.param(
            "postgresql://hidden-user:hid%2Fden@h:5432/d?sslpassword=hidden1&sslpassword=hidden2",
            "no hid/den, hid%2Fden, hidden1, hidden2",
            "postgresql://h:5432/d cannot be used: no ***, ***, ***, ***;",
            id="repeated keys",
        ),
        pytest.param(
            "sqlite:////a/b.db", "no such file", "sqlite:////a/b.db cannot be used:", id="a file"
        ),
    ],
)
def test_storage_problem_shows_no_secret(url: str, reason: str, message: str) -> None:
    problem = storage_problem(url, OSError(reason))
    assert problem.startswith(message)
    assert "hidden" not in problem and "hid/den" not in problem and "hid den" not in problem


def test_run_with_a_password_in_its_storage_is_private(tmp_path: Path) -> None:
    make_model_files(tmp_path)
    for number, storage in enumerate((None, f"sqlite:///{tmp_path / 'study.db'}")):
        output = {"folder": str(tmp_path / f"runs{number}"), "storage": storage}
        run = create_run(load_spec(write_spec(tmp_path, output=output)))
        mode = (run.folder / "spec.yaml").stat().st_mode & 0o777
        assert mode == (0o600 if storage else 0o666 & ~umask())


def umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


# --- a real PostgreSQL --------------------------------------------------------------------


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs; Debian does not put them on the path."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").is_file():
            return folder
    found = shutil.which("initdb")
    return Path(found).parent if found else None


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a database in a new PostgreSQL on the loopback."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'psycopg[binary]'")
    # Other users may not enter the folders of pytest.
    folder = Path(tempfile.mkdtemp(prefix="servetune.postgres-"))
    user: dict[str, str] = {}
    if os.getuid() == 0:
        # PostgreSQL refuses to run as root.
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("as root, the test needs the user postgres")
        user = {"user": "postgres"}
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data, port = folder / "data", unused_port()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"

    def run(*command: str) -> None:
        subprocess.run(
            [str(programs / command[0]), *command[1:]],
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
            **user,  # type: ignore[call-overload]
        )

    run("initdb", "-D", str(data), "-U", "tuner", "-A", "trust", "--no-sync")
    run("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg://tuner:hidden@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "fast", "-w", "stop")
        shutil.rmtree(folder)


@pytest.mark.processes
def test_study_in_postgresql_is_resumed_and_reported(postgres: str, tmp_path: Path) -> None:
    make_model_files(tmp_path)
    output = {"folder": str(tmp_path / "runs"), "storage": postgres}
    spec = load_spec(write_spec(tmp_path, output=output, confirm={"rounds": 2}))
    check_storage(postgres)
    run = create_run(spec)
    store = open_store(run, run.spec())
    store.begin()
    for rate in (5.0, 20.0, None, 60.0):
        measure(store, rate)
    store.record_spent(12.5)
    run.rebuild(store.results)
    resumed = open_store(run, run.spec())
    resumed.begin()
    assert resumed.results == store.results and resumed.spent_s == 12.5
    measure(resumed, 70.0)
    run.rebuild(resumed.results)
    outcome = read_outcome(Run.open(run.folder))
    assert [r.sustained_rps for r in outcome.results] == [5.0, 20.0, None, 60.0, 70.0]
    assert outcome.best == outcome.results[-1] and not outcome.restored


@pytest.mark.processes
def test_report_of_a_run_whose_postgresql_is_away_reads_its_folder(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model_files(tmp_path)
    output = {"folder": str(tmp_path / "runs"), "storage": postgres}
    run = create_run(load_spec(write_spec(tmp_path, output=output)))
    store = open_store(run, run.spec())
    store.begin()
    measure(store, 5.0)
    run.rebuild(store.results)
    path = run.folder / "spec.yaml"
    port = postgres.rpartition(":")[2].partition("/")[0]
    path.write_text(path.read_text().replace(f":{port}/", f":{unused_port()}/"))
    outcome = read_outcome(run)
    assert outcome.results == store.results and outcome.restored
    with pytest.raises(SpecError, match="cannot be used") as caught:
        open_store(run, run.spec())
    assert "hidden" not in str(caught.value)
