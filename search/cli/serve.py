"""The command that runs the service."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from search.cli.console import create_console
from search.environment import environment
from search.errors import CommandError, ServiceError

DEFAULT_PORT = 8400
DEFAULT_FOLDER = Path("~/.servetune")
_LOCK_WAIT_S = 2.0

console = create_console(soft_wrap=True)


def serve(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on")] = DEFAULT_PORT,
    folder: Annotated[
        Path, typer.Option(help="folder for the service's token, jobs and runs")
    ] = DEFAULT_FOLDER,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            help="folder whose files a specification may use; may be repeated; the default is the "
            "current folder"
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="URL of a Ray cluster's dashboard, http://HOST:PORT; without it, the service "
            "starts Ray on this host"
        ),
    ] = None,
    upload_mb: Annotated[int, typer.Option(min=1, help="maximum size of a request, MiB")] = 1024,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="accept requests without a token")
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="name under which clients reach the service, such as that of a proxy; may be "
            "repeated; other names are refused"
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="host that a job may send results to (webhooks, MLflow), beside this one; may be "
            "repeated"
        ),
    ] = None,
) -> None:
    """Start the service: jobs over HTTP, and a web page that shows them live."""
    # Ray reads it when it is imported.
    token_mode = {"RAY_AUTH_MODE": "token"} if address is None else {}
    with environment(token_mode, override=False):
        _run_service(
            host, port, folder, root, address, upload_mb, no_token, name or [], allow_host or []
        )


def _run_service(
    host: str,
    port: int,
    folder: Path,
    root: list[Path] | None,
    address: str | None,
    upload_mb: int,
    no_token: bool,
    names: list[str],
    allowed_hosts: list[str],
) -> None:
    from aiohttp import web

    from search.service.access import host_names, read_token
    from search.service.app import KEEP_ALIVE_S, Service
    from search.service.job_queue import JobQueue
    from search.service.jobs import JobStore
    from search.service.notifications import Notifier
    from search.service.options import ServiceOptions
    from search.service.ray_jobs import LocalCluster, RayJobs

    folder = folder.expanduser().resolve()
    roots = tuple(path.expanduser().resolve() for path in root or [Path.cwd()])
    if missing := [path for path in roots if not path.is_dir()]:
        raise CommandError(f"--root {missing[0]} is not a folder")
    if no_token and host not in ("127.0.0.1", "::1", "localhost"):
        raise CommandError(
            f"--no-token with --host {host} would let anyone run programs on this host; "
            "use a token, or --host 127.0.0.1"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ServiceError(f"--folder {folder} cannot be created: {error.strerror}") from None
    _check_port(host, port)
    # Each connection is a file.
    _, max_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
    with _exclusive_folder(folder):
        token = None if no_token else read_token(folder)
        local_cluster = None
        if address is None:
            console.print("starting Ray …", style="dim")
            local_cluster = LocalCluster.find(folder) or LocalCluster.start(folder)
            address = local_cluster.address
        store = JobStore(folder)
        store.remove_incomplete()
        options = ServiceOptions(
            roots,
            token,
            upload_mb << 20,
            host_names(host, names),
            frozenset(allowed.lower() for allowed in allowed_hosts),
            {"Ray's dashboard": address},
        )
        notifier = Notifier(folder, options.allowed_hosts)
        queue = JobQueue(store, RayJobs(address), on_end=notifier.report)
        app = Service(store, queue, options).app()
        token_note = f"; the token is in {folder / 'token'}" if token else ""

        async def print_address(app: web.Application) -> None:
            console.print(f"servetune is listening on http://{host}:{port}{token_note}")
            _notify_systemd("READY=1")

        app.on_startup.append(print_address)
        try:
            web.run_app(
                app,
                host=host,
                port=port,
                print=None,
                access_log=None,
                shutdown_timeout=2,
                keepalive_timeout=KEEP_ALIVE_S,
            )
        except OSError as error:
            raise _cannot_listen(host, port, error) from None
        finally:
            if count := len(store.active_ids()):
                console.print(
                    f"jobs still running: {count}; the next servetune serve reattaches to them"
                )
            elif local_cluster is not None:
                local_cluster.stop()


def _notify_systemd(state: str) -> None:
    """Report a state to systemd if it started this process with Type=notify; see sd_notify(3)."""
    if not (address := os.environ.get("NOTIFY_SOCKET")):
        return
    # An address that begins with @ is in the abstract namespace.
    path = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), path)


def _check_port(host: str, port: int) -> None:
    """Raise ServiceError before Ray is started, if the service could not listen."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None


def _cannot_listen(host: str, port: int, error: OSError) -> ServiceError:
    return ServiceError(
        f"the service cannot listen on {host}:{port}: {error.strerror}; choose another --port"
    )


@contextlib.contextmanager
def _exclusive_folder(folder: Path) -> Iterator[None]:
    import fcntl

    from search.service.local_cluster import LOCK_FILE

    deadline_s = time.monotonic() + _LOCK_WAIT_S
    with (folder / LOCK_FILE).open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                # A cluster holds the lock for a moment while it looks for a service.
                if time.monotonic() > deadline_s:
                    raise ServiceError(
                        f"another service is using {folder}; stop it, or choose another --folder"
                    ) from None
                time.sleep(0.1)
        yield
