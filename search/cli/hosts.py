"""The commands doctor, up, init and demo."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from search.cli.console import create_console
from search.cluster.ray_token import cluster_token_file
from search.errors import CommandError, RunError
from search.spec.loading import STARTER_PATH
from servetune.errors import ExitStatus


def doctor(
    python: Annotated[
        str | None, typer.Option(help="path of the handler's Python interpreter")
    ] = None,
    java: Annotated[str | None, typer.Option(help="path of the java executable")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="address of a Ray cluster whose hosts are checked instead of this one"),
    ] = None,
    deployment: Annotated[
        Path | None,
        typer.Option(
            help="path of a deployment's files or folder; check these, not this host, for settings "
            "that are overridden elsewhere"
        ),
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="path of the deployment's model archive")
    ] = None,
) -> None:
    """Check this host, a cluster's hosts or a deployment's files, and show how to fix problems."""
    from search.cluster.doctor import check_cluster, check_host
    from search.export.deployment_check import check_deployment

    if archive is not None and deployment is None:
        raise CommandError("--archive requires --deployment FILES")
    of_host = {"--python": python, "--java": java, "--cluster": cluster}
    if deployment is not None:
        if given := [option for option, value in of_host.items() if value is not None]:
            raise CommandError(
                f"{given[0]} is for the check of a host, --deployment for that of files; pass one"
            )
        findings = check_deployment(deployment, archive)
    else:
        findings = check_cluster(cluster, python, java) if cluster else check_host(python, java)
    table = Table("", "check", "found", "fix")
    for finding in findings:
        table.add_row("ok" if finding.ok else "✗", finding.subject, finding.found, finding.remedy)
    create_console().print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(ExitStatus.FAILED)


def up(
    head: Annotated[bool, typer.Option("--head", help="start a new cluster on this host")] = False,
    join: Annotated[
        str | None, typer.Option(help="address of the cluster's head to join, HOST:PORT")
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help="role of this host: serving or loadgen; repeat the option for both"),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="address of this host inside the cluster")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="maximum number of load generator processes; the default is one for each core",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="port of the cluster's head")] = None,
    dashboard_port: Annotated[
        int, typer.Option(help="port of Ray's dashboard on the cluster's head")
    ] = 8265,
    any_ports: Annotated[
        bool,
        typer.Option(
            "--any-ports",
            help="use any free ports for Ray's other services, for several nodes on one host",
        ),
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="path of the file that holds the cluster's token")
    ] = None,
) -> None:
    """Start a Ray node on this host; Ctrl-C stops it."""
    from search.cluster.node import (
        CLIENT_PORT,
        HEAD_PORT,
        PORTS,
        NodeOptions,
        RunningNode,
        free_ports,
        parse_roles,
    )

    if head == (join is not None):
        raise CommandError("pass either --head or --join HOST:PORT")
    serves, loadgen = parse_roles(role or [], processes)
    token = cluster_token_file(token_file, create=head)
    ports = {} if any_ports else dict(PORTS)
    if head:
        client_port = free_ports(1)[0] if any_ports else CLIENT_PORT
        ports |= {"dashboard-port": dashboard_port, "ray-client-server-port": client_port}
    options = NodeOptions(join, address, serves, loadgen, port or HEAD_PORT, token, ports)
    console = create_console(soft_wrap=True)
    previous_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with RunningNode(options) as node:
            console.print(node.start_message())
            while not node.has_ended(1.0):
                pass
            raise RunError(f"Ray ended on this host:\n{node.log_tail()}")
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def init(
    path: Annotated[Path, typer.Argument(help="path of the file to write")] = Path(
        "servetune.yaml"
    ),
) -> None:
    """Write a commented starter specification for your model."""
    if path.exists():
        raise CommandError(f"{path} already exists; choose another name")
    try:
        path.write_text(STARTER_PATH.read_text())
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None
    create_console(soft_wrap=True).print(
        f"wrote {path}; set model.archive and model.requests in it"
    )


def demo(
    folder: Annotated[Path, typer.Argument(help="folder to write the files to")] = Path(
        "build/demo"
    ),
    variant: Annotated[str, typer.Option(help="variant of the handler: fast or original")] = "fast",
) -> None:
    """Build the archive and the requests of the bundled model; downloads nothing."""
    from serving.demo.build import VARIANTS, build

    if variant not in VARIANTS:
        raise CommandError(f"--variant must be {' or '.join(VARIANTS)} (got {variant!r})")
    archive = build(folder, variant)
    requests = folder / "requests.jsonl"
    create_console(soft_wrap=True).print(f"wrote {archive} and {requests}")
