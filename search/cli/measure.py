"""The command measure."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, median, stdev
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from search.cli.options import JsonOption
from search.cli.running import _phase, _run
from search.errors import CommandError
from search.spec.config_file import read_config
from search.spec.loading import load_spec
from search.spec.preflight import preflight
from servetune.errors import FailureKind
from serving.config import ServerConfig
from serving.errors import ServerError


def measure(
    spec: Annotated[Path | None, typer.Argument(metavar="[SPEC]")] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(help="a config.properties; several are measured interleaved"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="how often each is measured")] = 1,
    side_by_side: Annotated[
        bool,
        typer.Option("--side-by-side", help="all servers of a round at once, a window by turns"),
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(help="a new folder for every measurement's files")
    ] = None,
    url: Annotated[str | None, typer.Option(help="an endpoint that already runs")] = None,
    requests: Annotated[Path | None, typer.Option(help="the requests for --url")] = None,
    users: Annotated[int, typer.Option(min=1, help="of the closed loop for --url")] = 64,
    arrivals: Annotated[str, typer.Option(help="constant or poisson, for --url")] = "constant",
    timeout_s: Annotated[float, typer.Option(min=0.01, help="of a request, for --url")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Measure the sustained rate of configurations, or of any URL.

    With SPEC: of its model under --config, or under TorchServe's own default where none is
    given. With --url and --requests: of an endpoint that already runs.
    """
    console = Console(stderr=as_json)
    if (spec is None) == (url is None):
        raise CommandError("measure needs SPEC or --url, and not both")
    if url is not None:
        _measure_url(url, requests, users, arrivals, timeout_s, as_json, console)
    elif spec is not None:
        _measure_spec(spec, config or [], rounds, side_by_side, keep, as_json, console)


def _measure_spec(
    path: Path,
    files: list[Path],
    rounds: int,
    side_by_side: bool,
    keep: Path | None,
    as_json: bool,
    console: Console,
) -> None:
    from search.measure.configs import measure_configs
    from search.report.formatting import span
    from search.study.intervals import mean_interval

    if keep is not None and keep.exists():
        raise CommandError(f"--keep {keep} exists already; name a new folder")

    spec = load_spec(path)
    preflight(spec, allow_fixed_space=True)
    if side_by_side and any(spec.serving.ports.model_dump().values()):
        raise CommandError("--side-by-side needs free ports; leave serving.ports out")
    configs, names = [ServerConfig()], ["TorchServe's default"]
    if files:
        names = [str(file) for file in files]
        read = [read_config(file, spec.archive()) for file in files]
        configs = [config for config, _ in read]
        for name, (_, overridden) in zip(names, read, strict=True):
            for key, value in overridden.items():
                console.print(f"{name}: overridden: {key}={value}", highlight=False)
    found = _run(
        measure_configs(
            spec,
            configs,
            rounds,
            lambda number, index, phase: console.print(
                f"round {number + 1} of {rounds}, {names[index]}: "
                f"{_phase(phase.name, phase.rate_rps)}",
                highlight=False,
            ),
            side_by_side,
            keep,
        )
    )
    if as_json:
        alone = len(configs) == 1 and rounds == 1
        only = found.results[0][0]
        print(json.dumps(only.to_dict() if alone else found.summary(names)))
    else:
        table = Table(
            "configuration",
            "sustained rps by round",
            "ratios to the first",
            "median",
            "mean, 95 %",
            "their variation",
            "steal, foreign CPU",
        )
        for index, (name, results) in enumerate(zip(names, found.results, strict=True)):
            ratios = found.ratios(index)
            table.add_row(
                name,
                ", ".join(f"{r.sustained_rps:.1f}" if r.sustained_rps else "–" for r in results),
                ", ".join(f"{ratio:.3f}" for ratio in ratios),
                f"{median(ratios):.3f}" if ratios else "",
                span(mean_interval(ratios), ".3f") if index else "",
                _variation(ratios),
                ", ".join(f"{r.host.steal or 0:.0%} {r.host.other_cpu or 0:.0%}" for r in results),
            )
        console.print(table)
    failed = [r for row in found.results for r in row if not r.sustained_rps]
    if failed:
        raise ServerError(FailureKind.NO_RATE, failed[0].cause)


def _variation(ratios: list[float]) -> str:
    """The coefficient of variation of more than one."""
    return f"{stdev(ratios) / mean(ratios):.1%}" if len(ratios) > 1 else ""


def _measure_url(
    url: str,
    requests: Path | None,
    users: int,
    arrivals: str,
    timeout_s: float,
    as_json: bool,
    console: Console,
) -> None:
    from loadgen.payloads import read_payloads
    from loadgen.rate.goal import Goal
    from search.measure.endpoint import measure_url, rate_summary

    if requests is None:
        raise CommandError("measure --url needs --requests FILE")
    if arrivals not in ("constant", "poisson"):
        raise CommandError(f"--arrivals must be constant or poisson, got {arrivals!r}")
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"--url must start with http:// or https://, got {url!r}")
    payloads = read_payloads(requests)
    goal = Goal(arrivals=arrivals, timeout_s=timeout_s)
    found = _run(
        measure_url(
            url,
            payloads,
            goal,
            users,
            lambda name, rate: console.print(_phase(name, rate), highlight=False),
        ),
    )
    if as_json:
        print(json.dumps(rate_summary(found)))
    elif found.lower_rps:
        best = found.best
        p99 = best.measurement.latency.quantile(0.99) if best else None
        above = f"not {found.upper_rps:.1f}" if found.upper_rps else "no rate failed"
        console.print(
            f"sustained {found.lower_rps:.1f} rps ({above}), p99 {p99:.3f} s, "
            f"0 of {found.requests_without_failure} failed; {found.reason}",
            highlight=False,
        )
    for warning in found.warnings:
        console.print(f"warning: {warning}", highlight=False)
    if not found.lower_rps:
        raise ServerError(FailureKind.NO_RATE, f"{url} sustained no rate: {found.reason}")
