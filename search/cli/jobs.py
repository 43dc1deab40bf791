"""The commands of a service's clients: submit, jobs, watch, fetch."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from loadgen.formatting import format_rps
from search.cli.console import create_console
from search.cli.serve import DEFAULT_FOLDER, DEFAULT_PORT
from search.errors import CommandError, RequirementError, ServiceError
from servetune.errors import ExitStatus

_DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
#: Seconds that `watch` waits for a service that restarts.
_RECONNECT_S = 300.0

ServerOption = Annotated[
    str, typer.Option(envvar="SERVETUNE_SERVER", help="URL of the service, http://HOST:PORT")
]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        help="path of the file that holds the service's token; without it, SERVETUNE_TOKEN is "
        "used, then the token of a service on this host"
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="id of the job")]
RequireRpsOption = Annotated[
    float | None,
    typer.Option(help="minimum of the best rate, requests/s; exit with status 3 if it is lower"),
]
RequireRatioOption = Annotated[
    float | None,
    typer.Option(
        help="minimum ratio of the best rate to that of the baseline, or of TorchServe's default "
        "if there is no baseline; exit with status 3 if the lower bound of the ratio's interval is "
        "below it"
    ),
]
console = create_console(soft_wrap=True)


def submit(
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC", help="path of the specification, a YAML file")
    ],
    server: ServerOption = _DEFAULT_URL,
    token_file: TokenOption = None,
    by_path: Annotated[
        bool,
        typer.Option("--by-path", help="let the service read the files itself, without an upload"),
    ] = False,
    wait: Annotated[bool, typer.Option("--watch", help="follow the job until it ends")] = False,
    require_rps: RequireRpsOption = None,
    require_ratio: RequireRatioOption = None,
) -> None:
    """Submit a job to the service and print its id."""
    data, files = _read_submission(spec)
    uploads = {} if by_path else files

    async def send() -> dict[str, Any]:
        async with _client(server, token_file) as client:
            return dict(await client.submit(yaml.safe_dump(data), uploads))

    job = asyncio.run(send())
    print(job["id"], flush=True)
    if wait:
        watch(job["id"], server, token_file, require_rps, require_ratio)


def _read_submission(spec: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return a specification with absolute paths, and the files to upload by their key."""
    from search.service.submission import named_files, with_value
    from serving.safe_yaml import load_yaml

    folder = spec.resolve().parent
    try:
        data = load_yaml(spec.read_text())
        model = data["model"]
        files = {name: folder / Path(model[name]).expanduser() for name in ("archive", "requests")}
    except OSError as error:
        raise CommandError(f"{spec} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise CommandError(
            f"{spec} is not a specification; it must be YAML with model.archive and model.requests"
        ) from None
    if missing := [path for path in files.values() if not path.exists()]:
        raise CommandError(f"{missing[0]} does not exist")
    if files["archive"].is_dir():
        raise CommandError(f"{files['archive']} is a folder; pack it as a .mar file to submit it")
    data.setdefault("name", spec.stem)
    data.pop("output", None)  # The service chooses the folder.
    data["model"] = {**model, **{name: str(path) for name, path in files.items()}}
    # The service reads these files itself.
    for keys, file in named_files(data):
        if keys[0] != "model":
            data = with_value(data, keys, str(folder / Path(file).expanduser()))
    return data, files


def jobs(
    server: ServerOption = _DEFAULT_URL,
    token_file: TokenOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the jobs as JSON, as the API returns them")
    ] = False,
) -> None:
    """List the service's jobs."""

    async def request() -> list[dict[str, Any]]:
        async with _client(server, token_file) as client:
            return list(await client.jobs())

    listed = asyncio.run(request())
    if as_json:
        print(json.dumps(listed))
        return
    table = Table()
    # Other commands need the whole id.
    table.add_column("job", no_wrap=True, min_width=max((len(j["id"]) for j in listed), default=0))
    for title in ("name", "state", "trials", "best (rps)", "ratio to its reference", "reason"):
        table.add_column(title)
    for job in listed:
        best, ratio = job["best"], job["ratio"]
        position = f" (#{job['queue_position']})" if job["queue_position"] else ""
        table.add_row(
            *(job["id"], job["name"], job["state"] + position, str(job["progress"]["trials_done"])),
            f"{best['sustained_rps']:.1f}" if best and best["sustained_rps"] else "–",
            f"{ratio:.2f}" if ratio else "–",
            job["reason"] or "",
        )
    console.print(table)


def watch(
    job: JobArgument,
    server: ServerOption = _DEFAULT_URL,
    token_file: TokenOption = None,
    require_rps: RequireRpsOption = None,
    require_ratio: RequireRatioOption = None,
) -> None:
    """Follow a job to its end; the exit status shows whether it met the requirements."""
    view = asyncio.run(_follow(job, server, token_file))
    console.print(f"{view['state']}: {view['reason']}")
    if view["state"] == "failed":
        raise typer.Exit(ExitStatus.FAILED)
    best_rps = (view["best"] or {}).get("sustained_rps") or 0.0
    if require_rps is not None and best_rps < require_rps:
        raise RequirementError(
            f"the best rate, {format_rps(best_rps)}, is below --require-rps {require_rps:g}"
        )
    if require_ratio is not None:
        _check_ratio(view, require_ratio)
    if not best_rps and view["kind"] == "search":
        raise typer.Exit(ExitStatus.FAILED)


def _check_ratio(view: dict[str, Any], required: float) -> None:
    """Raise RequirementError if the lower bound of a job's ratio is below the required one."""
    ratio, low = view["ratio"], view["ratio_low"]
    if ratio is None or low is None:
        raise RequirementError(
            "--require-ratio cannot be checked: the best or the reference sustained no rate"
        )
    for warning in view["ratio_warnings"]:
        console.print(f"warning: the ratio to the reference is less certain: {warning}")
    if low < required:
        raise RequirementError(
            f"the best rate ÷ the reference is {ratio:.2f}, and at least {low:.2f}, which is below "
            f"--require-ratio {required:g}"
        )


async def _follow(job_id: str, server: str, token_file: Path | None) -> dict[str, Any]:
    """Print the events of a job; return its view when it is over."""
    last_id, unreachable_since = "0", None
    async with _client(server, token_file) as client:
        await client.job(job_id)  # Without the service at the start, do not wait for it.
        while True:
            try:
                async for event in client.events(job_id, last_id):
                    last_id, unreachable_since = event.id, None
                    if line := _event_line(event.kind, event.data):
                        console.print(line)
                view, unreachable_since = await client.job(job_id), None
                if view["ended_s"] is not None:
                    return dict(view)
            except ServiceError:
                # The service may be restarting; the job continues without it.
                unreachable_since = unreachable_since or time.monotonic()
                if time.monotonic() - unreachable_since > _RECONNECT_S:
                    raise
            await asyncio.sleep(1)


def _event_line(kind: str, data: dict[str, Any]) -> str | None:
    """Return the line that `watch` prints for an event; None if it prints nothing."""
    if kind == "trial":
        settings = data["settings"] or "TorchServe's defaults"
        return f"trial {data['number']} ({data['origin']}): {settings}"
    if kind == "progress":
        from search.cli.live import progress_text
        from search.study.progress import Progress

        known: dict[str, Any] = {f.name: data.get(f.name) for f in dataclasses.fields(Progress)}
        return progress_text(Progress(""), Progress(**known)) or None
    if kind in ("result", "confirmed"):
        rate = data["sustained_rps"]
        result = format_rps(rate) if rate else f"{data['state'].lower()}: {data['cause']}"
        return f"trial {data['number']}: {result} ({data['duration_s']:.0f} s)"
    if kind == "state" and data["state"] not in ("finished", "stopped", "failed"):
        return f"{data['state']}{': ' + data['reason'] if data['reason'] else ''}"
    return None


def fetch(
    job: JobArgument,
    into: Annotated[Path, typer.Option(help="folder to write the files to")] = Path(),
    server: ServerOption = _DEFAULT_URL,
    token_file: TokenOption = None,
) -> None:
    """Download a job's files for production and its report."""

    async def download() -> None:
        async with _client(server, token_file) as client:
            await client.fetch(job, into)

    asyncio.run(download())
    console.print(f"wrote {into / 'best'} and {into / 'report.html'}")


def _client(server: str, token_file: Path | None) -> Any:
    from search.service.client import ServiceClient

    path = token_file or DEFAULT_FOLDER.expanduser() / "token"
    token = os.environ.get("SERVETUNE_TOKEN") if token_file is None else None
    if token is None and (token_file is not None or path.is_file()):
        try:
            token = path.read_text().strip()
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}") from None
    return ServiceClient(server, token)
