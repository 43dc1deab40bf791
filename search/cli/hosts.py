"""The commands doctor, up, init and demo."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from search.cluster.ray_token import cluster_token_file
from search.errors import CommandError, RunError
from search.spec.loading import STARTER_PATH
from servetune.errors import ExitStatus


def doctor(
    python: Annotated[str | None, typer.Option(help="the handler's interpreter")] = None,
    java: Annotated[str | None, typer.Option(help="the Java to run")] = None,
    cluster: Annotated[str | None, typer.Option(help="a Ray cluster: its hosts instead")] = None,
) -> None:
    """Say what this host has, or the hosts of a cluster, and what is missing."""
    from search.cluster.doctor import check_cluster, check_host

    findings = check_cluster(cluster, python, java) if cluster else check_host(python, java)
    table = Table("", "what", "found", "mend with")
    for finding in findings:
        table.add_row("ok" if finding.ok else "✗", finding.subject, finding.found, finding.remedy)
    Console().print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(ExitStatus.FAILED)


def up(
    head: Annotated[bool, typer.Option("--head", help="begin a cluster")] = False,
    join: Annotated[str | None, typer.Option(help="the head's address, HOST:PORT")] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="serving or loadgen; both where given twice")
    ] = None,
    address: Annotated[str | None, typer.Option(help="this host's, in the cluster")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="of load; as many as there are cores")
    ] = None,
    port: Annotated[int | None, typer.Option(help="of the head")] = None,
    dashboard_port: Annotated[int, typer.Option(help="of Ray's dashboard, on the head")] = 8265,
    any_ports: Annotated[
        bool, typer.Option("--any-ports", help="Ray may choose the others: several nodes on a host")
    ] = False,
    token_file: Annotated[Path | None, typer.Option(help="the cluster's token")] = None,
) -> None:
    """Start this host's node of a Ray cluster; Ctrl-C ends it."""
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
        raise CommandError("name one of --head and --join HOST:PORT")
    serves, loadgen = parse_roles(role or [], processes)
    token = cluster_token_file(token_file, create=head)
    ports = {} if any_ports else dict(PORTS)
    if head:
        client = free_ports(1)[0] if any_ports else CLIENT_PORT
        ports |= {"dashboard-port": dashboard_port, "ray-client-server-port": client}
    options = NodeOptions(join, address, serves, loadgen, port or HEAD_PORT, token, ports)
    console = Console(highlight=False, soft_wrap=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with RunningNode(options) as node:
            console.print(node.start_message())
            while not node.has_ended(1.0):
                pass
            raise RunError(f"Ray ended on this host:\n{node.log_tail()}")
    finally:
        signal.signal(signal.SIGTERM, before)


def init(
    path: Annotated[Path, typer.Argument(help="the file to write")] = Path("servetune.yaml"),
) -> None:
    """Write a commented starter specification for your own model."""
    if path.exists():
        raise CommandError(f"{path} exists already; name another file")
    try:
        path.write_text(STARTER_PATH.read_text())
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None
    Console().print(f"wrote {path}: name your archive and your requests in it", highlight=False)


def demo(
    folder: Annotated[Path, typer.Argument(help="where to build it")] = Path("build/demo"),
    variant: Annotated[str, typer.Option(help="fast or original")] = "fast",
) -> None:
    """Build the bundled model's archive and its requests; no download."""
    from serving.demo.build import VARIANTS, build

    if variant not in VARIANTS:
        raise CommandError(f"--variant must be {' or '.join(VARIANTS)}, got {variant!r}")
    archive = build(folder, variant)
    Console().print(f"{archive} and {folder / 'requests.jsonl'}", highlight=False, soft_wrap=True)
