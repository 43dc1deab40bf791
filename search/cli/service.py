"""The service's commands: serve, submit, jobs, watch, fetch, dashboard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from search.errors import CommandError, ServiceError
from servetune.errors import ExitStatus

PORT = 8400
FOLDER = Path("~/.servetune")
#: A service that was restarted answers again within this.
_AWAY_S = 300.0

ServerOption = Annotated[str, typer.Option(envvar="SERVETUNE_SERVER", help="the service's address")]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        help="a file with the token; else SERVETUNE_TOKEN, else that of this host's service"
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="a job's id")]
RequireRps = Annotated[
    float | None, typer.Option(help="exit status 3 where the best sustains less, requests/s")
]
RequireRatio = Annotated[
    float | None, typer.Option(help="exit status 3 where best ÷ baseline is less")
]
_HERE = f"http://127.0.0.1:{PORT}"
console = Console(highlight=False, soft_wrap=True)


def serve(
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = PORT,
    folder: Annotated[Path, typer.Option(help="the service's own: token, jobs, runs")] = FOLDER,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="a folder that specifications may name files in; the current one"),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="a Ray cluster's dashboard, http://HOST:PORT")
    ] = None,
    upload_mb: Annotated[int, typer.Option(min=1, help="the most of one request, MiB")] = 1024,
    no_token: Annotated[bool, typer.Option("--no-token", help="let anybody in")] = False,
) -> None:
    """Start the service: jobs over HTTP, and a page that shows them live."""
    from aiohttp import web

    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it as it is imported.
    from search.service.app import Service, Settings, read_token
    from search.service.job_queue import Queue
    from search.service.jobs import JobState, JobStore
    from search.service.ray_jobs import Cluster, LocalCluster

    folder = folder.expanduser().resolve()
    roots = tuple(path.expanduser().resolve() for path in root or [Path.cwd()])
    if missing := [path for path in roots if not path.is_dir()]:
        raise CommandError(f"--root {missing[0]} is not a folder")
    if no_token and host not in ("127.0.0.1", "::1", "localhost"):
        raise CommandError(f"--no-token on {host} would let anybody run programs here")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ServiceError(f"--folder {folder} cannot be made: {error.strerror}") from None
    _check_free(host, port)
    with _only_service(folder):
        token = None if no_token else read_token(folder)
        local = None
        if address is None:
            console.print("starting Ray …", style="dim")
            local = LocalCluster.find(folder) or LocalCluster.start(folder)
            address = local.address
        store = JobStore(folder)
        settings = Settings(roots, token, upload_mb << 20, {"Ray's dashboard": address})
        app = Service(store, Queue(store, Cluster(address)), settings).app()
        said = f"; the token is in {folder / 'token'}" if token else ""

        async def greet(app: web.Application) -> None:
            console.print(f"servetune serves http://{host}:{port}{said}")

        app.on_startup.append(greet)
        try:
            web.run_app(app, host=host, port=port, print=None, access_log=None, shutdown_timeout=2)
        except OSError as error:
            raise ServiceError(f"{host}:{port} cannot be listened on: {error.strerror}") from None
        finally:
            at_work = (JobState.RUNNING, JobState.STOPPING)
            if going := sum(job.record().state in at_work for job in store.all()):
                console.print(f"jobs that go on: {going}; servetune serve finds them again")
            elif local is not None:
                local.stop()


def _check_free(host: str, port: int) -> None:
    """Before Ray is started for nothing."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        raise ServiceError(f"{host}:{port} cannot be listened on: {error.strerror}") from None


@contextlib.contextmanager
def _only_service(folder: Path) -> Iterator[None]:
    import fcntl

    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ServiceError(f"another service runs on {folder}") from None
        yield


def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="the study's YAML file")],
    server: ServerOption = _HERE,
    token_file: TokenOption = None,
    by_path: Annotated[
        bool, typer.Option("--by-path", help="the service reads the files itself; nothing is sent")
    ] = False,
    wait: Annotated[bool, typer.Option("--watch", help="until the job is over")] = False,
    require_rps: RequireRps = None,
    require_ratio: RequireRatio = None,
) -> None:
    """Put a job into the service's queue; prints its id."""
    try:
        data = yaml.safe_load(spec.read_text())
        model = data["model"]
        files = {
            name: spec.resolve().parent / Path(model[name]).expanduser()
            for name in ("archive", "requests")
        }
    except OSError as error:
        raise CommandError(f"{spec} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise CommandError(
            f"{spec} is no specification: YAML with model.archive and model.requests is needed"
        ) from None
    if missing := [path for path in files.values() if not path.is_file()]:
        raise CommandError(f"{missing[0]} does not exist")
    data.setdefault("name", spec.stem)
    data.pop("output", None)  # The service has a place of its own.
    data["model"] = {**model, **{name: str(path) for name, path in files.items()}}
    for section, name in (("serving", "baseline"), ("search", "warm_start")):
        # Paths count from the specification's folder; these two the service reads itself.
        if isinstance(held := data.get(section), dict) and isinstance(held.get(name), str):
            path = spec.resolve().parent / Path(held[name]).expanduser()
            data[section] = {**held, name: str(path)}
    uploads = {} if by_path else files

    async def send() -> dict[str, Any]:
        async with _client(server, token_file) as client:
            return dict(await client.submit(yaml.safe_dump(data), uploads))

    job = asyncio.run(send())
    print(job["id"], flush=True)
    if wait:
        _watch(job["id"], server, token_file, require_rps, require_ratio)


def jobs(
    server: ServerOption = _HERE,
    token_file: TokenOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="as the API tells them")] = False,
) -> None:
    """List the service's jobs."""

    async def ask() -> list[dict[str, Any]]:
        async with _client(server, token_file) as client:
            return list(await client.jobs())

    found = asyncio.run(ask())
    if as_json:
        print(json.dumps(found))
        return
    table = Table()
    # An id is for the next command: it is never shortened.
    table.add_column("job", no_wrap=True, min_width=max((len(j["id"]) for j in found), default=0))
    for title in ("name", "state", "trials", "best, rps", "÷ baseline", "reason"):
        table.add_column(title)
    for job in found:
        best, ratio = job["best"], job["ratio"]
        place = f" ({job['queue_position']}.)" if job["queue_position"] else ""
        table.add_row(
            *(job["id"], job["name"], job["state"] + place, str(job["progress"]["trials_done"])),
            f"{best['sustained_rps']:.1f}" if best and best["sustained_rps"] else "–",
            f"{ratio:.2f}" if ratio else "–",
            job["reason"] or "",
        )
    console.print(table)


def watch(
    job: JobArgument,
    server: ServerOption = _HERE,
    token_file: TokenOption = None,
    require_rps: RequireRps = None,
    require_ratio: RequireRatio = None,
) -> None:
    """Follow a job to its end; the exit status says whether it reached what is required."""
    _watch(job, server, token_file, require_rps, require_ratio)


def fetch(
    job: JobArgument,
    into: Annotated[Path, typer.Option(help="a folder")] = Path(),
    server: ServerOption = _HERE,
    token_file: TokenOption = None,
) -> None:
    """Download a job's files for production, and its report."""

    async def get() -> None:
        async with _client(server, token_file) as client:
            await client.fetch(job, into)

    asyncio.run(get())
    console.print(f"{into / 'best'} and {into / 'report.html'}")


def dashboard(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")],
) -> None:
    """Show a run in TensorBoard and in optuna-dashboard, until Ctrl-C."""
    from search.cluster.node import free_ports
    from search.service.jobs import write_json
    from search.study.run_folder import Run

    opened = Run.open(run)
    storage = opened.storage(opened.spec().output.storage)
    first, second = free_ports(2)
    wanted = {
        "TensorBoard": (
            first,
            ["tensorboard", "--logdir", str(opened.folder), "--port", str(first)],
        ),
        "optuna-dashboard": (second, ["optuna-dashboard", storage, "--port", str(second)]),
    }
    started: dict[str, subprocess.Popen[bytes]] = {}
    noted = opened.folder / "dashboards.json"
    try:
        for name, (_, command) in wanted.items():
            program = Path(sys.executable).with_name(command[0])
            if not program.is_file():
                raise ServiceError(f"{command[0]} is missing: pip install 'servetune[dashboard]'")
            started[name] = subprocess.Popen(
                [str(program), *command[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        told = {
            name: {"url": f"http://127.0.0.1:{wanted[name][0]}", "pid": process.pid}
            for name, process in started.items()
        }
        write_json(noted, told)
        for name, each in told.items():
            console.print(f"{name}: {each['url']}")
        while all(process.poll() is None for process in started.values()):
            time.sleep(0.5)
        ended = next(name for name, process in started.items() if process.poll() is not None)
        raise ServiceError(f"{ended} ended by itself, exit status {started[ended].returncode}")
    finally:
        noted.unlink(missing_ok=True)
        for process in started.values():
            process.terminate()
            process.wait()


def _watch(
    job_id: str,
    server: str,
    token_file: Path | None,
    require_rps: float | None,
    require_ratio: float | None,
) -> None:
    async def follow() -> dict[str, Any]:
        after, away_since = "0", None
        async with _client(server, token_file) as client:
            job = await client.job(job_id)
            while True:
                try:
                    async for heard in client.events(job_id, after):
                        after, away_since = heard.id, None
                        if line := _line(heard.kind, heard.data):
                            console.print(line, markup=False)
                    job, away_since = await client.job(job_id), None
                    if job["ended_s"] is not None:
                        return dict(job)
                except ServiceError:
                    # It may have been restarted: the job goes on meanwhile.
                    away_since = away_since or time.monotonic()
                    if time.monotonic() - away_since > _AWAY_S:
                        raise
                await asyncio.sleep(1)

    job = asyncio.run(follow())
    console.print(f"{job['state']}: {job['reason']}", markup=False)
    best = (job["best"] or {}).get("sustained_rps") or 0.0
    if job["state"] == "failed":
        raise typer.Exit(ExitStatus.FAILED)
    if require_rps is not None and best < require_rps:
        console.print(f"below what is required: {best:.1f} of {require_rps:g} rps")
        raise typer.Exit(ExitStatus.BELOW_REQUIREMENT)
    if require_ratio is not None and job["ratio"] is None:
        console.print("what is required cannot be told: the best or the baseline sustained no rate")
        raise typer.Exit(ExitStatus.BELOW_REQUIREMENT)
    if require_ratio is not None and job["ratio"] < require_ratio:
        console.print(
            f"below what is required: {job['ratio']:.2f} of {require_ratio:g} × the baseline"
        )
        raise typer.Exit(ExitStatus.BELOW_REQUIREMENT)
    if not best and job["kind"] == "search":
        raise typer.Exit(ExitStatus.FAILED)


def _line(kind: str, data: dict[str, Any]) -> str | None:
    if kind == "trial":
        return f"trial {data['number']} ({data['origin']}): {data['settings'] or 'nothing set'}"
    if kind in ("result", "confirmed"):
        rate = data["sustained_rps"]
        came = f"{rate:.1f} rps" if rate else f"{data['state'].lower()}: {data['cause']}"
        return f"trial {data['number']}: {came} ({data['duration_s']:.0f} s)"
    if kind == "state" and data["state"] not in ("finished", "stopped", "failed"):
        return f"{data['state']}{': ' + data['reason'] if data['reason'] else ''}"
    return None


def _client(server: str, token_file: Path | None) -> Any:
    from search.service.client import Client

    path = token_file or FOLDER.expanduser() / "token"
    token = os.environ.get("SERVETUNE_TOKEN") if token_file is None else None
    if token is None and (token_file is not None or path.is_file()):
        try:
            token = path.read_text().strip()
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}") from None
    return Client(server, token)
