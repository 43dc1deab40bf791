"""The command measure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from loadgen.formatting import format_percent, format_rps
from loadgen.rate.goal import MAX_TIMEOUT_S, Goal
from loadgen.rate.saturate import MAX_USERS
from loadgen.tls import Tls
from search.cli.console import create_console
from search.cli.options import JsonOption
from search.cli.running import format_phase, run_coroutine
from search.errors import CommandError
from search.spec.config_file import find_key_pair, read_config
from search.spec.loading import load_spec
from search.spec.preflight import preflight
from servetune.errors import FailureKind
from serving.errors import ServerError

if TYPE_CHECKING:
    from search.confirmation.rounds import Rounds

#: Parameters that apply to one of the two things to measure.
_URL_ONLY = (
    *("requests", "users", "batch_size", "arrivals", "timeout_s", "window_s", "width", "p99_s"),
    *("ca_file", "insecure"),
)
_SPEC_ONLY = ("config", "rounds", "side_by_side", "keep")


def measure(
    context: typer.Context,
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC]", help="path of the specification, a YAML file")
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            help="path of a config.properties to measure; repeat the option to compare several "
            "in interleaved rounds"
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="number of times each configuration is measured")
    ] = 1,
    side_by_side: Annotated[
        bool,
        typer.Option(
            "--side-by-side",
            help="run all servers of a round at the same time, and measure one window at a time",
        ),
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(help="path of a new folder that receives the files of every measurement"),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="URL of a running endpoint to measure instead of SPEC")
    ] = None,
    requests: Annotated[
        Path | None, typer.Option(help="path of the requests file; with --url only")
    ] = None,
    users: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_USERS,
            help="number of users of the closed loop; without it, servetune finds the number "
            "that saturates the server; with --url only",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_USERS // 2,
            help="a guess of how many requests the server takes in one batch, which shortens the "
            "search for the number of users; with --url only",
        ),
    ] = None,
    arrivals: Annotated[
        str, typer.Option(help="arrivals of requests: constant or poisson; with --url only")
    ] = Goal.arrivals,
    timeout_s: Annotated[
        float,
        typer.Option(
            min=0.01, max=MAX_TIMEOUT_S, help="timeout of a request, seconds; with --url only"
        ),
    ] = Goal.timeout_s,
    window_s: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=600,
            help="least duration of a window, seconds, as goal.window_s; with --url only",
        ),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            min=0.005,
            max=0.3,
            help="precision of the sustained rate as a fraction, as goal.width; with --url only",
        ),
    ] = None,
    p99_s: Annotated[
        float | None,
        typer.Option(
            "--p99-s",
            min=0.001,
            max=MAX_TIMEOUT_S,
            help="limit of the p99 latency, seconds, as goal.limits.p99_s; with --url only",
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            help="path of a PEM file with the authority of an https URL's certificate; with --url "
            "only"
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="accept any certificate of an https URL; with --url only"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the sustained rate of configurations, or of any URL.

    With SPEC, measure its model with each --config, or with TorchServe's default. With --url and
    --requests, measure an endpoint that already runs.
    """
    console = create_console(stderr=as_json)
    if (spec is None) == (url is None):
        raise CommandError("pass either SPEC or --url")
    _refuse(context, _SPEC_ONLY if spec is None else _URL_ONLY)
    if url is not None:
        given: dict[str, Any] = {"width": width, "p99_s": p99_s}
        goal = {name: value for name, value in given.items() if value is not None}
        if window_s is not None:
            longest_s = max(Goal.window_limit_s, 2 * window_s)
            goal |= {"window_s": window_s, "window_limit_s": longest_s}
        if arrivals not in ("constant", "poisson"):
            raise CommandError(f"--arrivals must be constant or poisson (got {arrivals!r})")
        if p99_s is not None and p99_s >= timeout_s:
            raise CommandError(
                f"--p99-s must be below --timeout-s, which is {timeout_s:g} (got {p99_s:g}): a "
                "request that takes longer fails in any case"
            )
        _measure_url(
            url,
            requests,
            replace(Goal(arrivals=arrivals, timeout_s=timeout_s), **goal),
            users,
            batch_size or 1,
            _tls(url, ca_file, insecure),
            as_json,
            console,
        )
    elif spec is not None:
        _measure_spec(spec, config or [], rounds, side_by_side, keep, as_json, console)


def _refuse(context: typer.Context, names: Sequence[str]) -> None:
    """Raise CommandError if one of these options is on the command line."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            reason = (
                "is for --url; the specification has its own"
                if name in _URL_ONLY
                else "is for SPEC; remove it to measure a URL"
            )
            raise CommandError(f"--{name.replace('_', '-')} {reason}")


def _tls(url: str, ca_file: Path | None, insecure: bool) -> Tls | None:
    """Return how the certificate of the URL is checked; None as the system does."""
    if not url.startswith("https://") and (ca_file or insecure):
        raise CommandError(f"--ca-file and --insecure are for https:// (got {url!r})")
    if ca_file is not None and insecure:
        raise CommandError("pass either --ca-file or --insecure")
    if ca_file is not None:
        return Tls.read(ca_file)
    return Tls(is_verified=False) if insecure else None


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

    if keep is not None and keep.exists():
        raise CommandError(f"--keep {keep} already exists; choose a new folder")

    spec = load_spec(path)
    preflight(spec, allow_fixed_space=True)
    if side_by_side and any(spec.serving.ports.model_dump().values()):
        raise CommandError("--side-by-side cannot use fixed ports; remove serving.ports")
    in_use = spec.in_use()
    deployments = {
        str(file): read_config(file, in_use.archive).with_models(in_use.beside) for file in files
    }
    for name, deployment in deployments.items():
        for sentence in deployment.summary(spec.installation()):
            console.print(f"{name}: {sentence}", soft_wrap=True)
    key_pairs = [find_key_pair(deployments[str(file)], file) for file in files]
    names, configs = ["TorchServe's default"], [spec.study_space().default_config]
    if deployments:
        names, configs = list(deployments), [d.config for d in deployments.values()]
    measured = run_coroutine(
        measure_configs(
            spec,
            configs,
            rounds,
            lambda round_number, index, phase: console.print(
                f"round {round_number + 1} of {rounds}, {names[index]}: "
                f"{format_phase(phase.name, phase.rate_rps)}",
            ),
            side_by_side,
            keep,
            key_pairs,
        )
    )
    if as_json:
        is_single = len(configs) == 1 and rounds == 1
        data = measured.results[0][0].to_dict() if is_single else measured.summary(names)
        print(json.dumps(data))
    else:
        _print_table(names, measured, console)
    failed = [r for results in measured.results for r in results if not r.sustained_rps]
    if failed:
        raise ServerError(FailureKind.NO_RATE, failed[0].cause)


def _print_table(names: Sequence[str], measured: Rounds, console: Console) -> None:
    """Print rates and ratios in 80 columns, then what the numbers of the rows mean."""
    from search.intervals import mean_interval
    from search.report.formatting import format_number, format_ratio, format_ratio_interval

    table = Table(
        *("#", "rps by round", "ratio to #1 by round", "median", "mean (95 %)", "variation (CV)"),
        box=box.SIMPLE,
    )
    for index, results in enumerate(measured.results):
        ratios = measured.ratios(index) if index else []
        interval = mean_interval(ratios)
        table.add_row(
            str(index + 1),
            ", ".join(format_number(r.sustained_rps or None) or "–" for r in results),
            ", ".join(map(format_ratio, ratios)),
            format_ratio(median(ratios)) if ratios else "",
            format_ratio_interval(interval) if interval else "",
            _variation(ratios),
        )
    console.print(table)
    for number, name in enumerate(names, 1):
        console.print(f"#{number}: {name}", soft_wrap=True)
    hosts = [result.host for results in measured.results for result in results]
    steal, other = max(h.steal or 0 for h in hosts), max(h.other_cpu or 0 for h in hosts)
    console.print(
        f"The hypervisor took at most {format_percent(steal)} of the CPU time, other processes at "
        f"most {format_percent(other)}."
    )


def _variation(ratios: list[float]) -> str:
    """Return the coefficient of variation; an empty text for fewer than two ratios."""
    return format_percent(stdev(ratios) / mean(ratios), 1) if len(ratios) > 1 else ""


def _measure_url(
    url: str,
    requests: Path | None,
    goal: Goal,
    users: int | None,
    batch_size: int,
    tls: Tls | None,
    as_json: bool,
    console: Console,
) -> None:
    from loadgen.payloads import read_payloads
    from search.measure.endpoint import measure_url, rate_summary

    if requests is None:
        raise CommandError("--url requires --requests FILE")
    if url.startswith(("grpc://", "grpcs://")):
        raise CommandError(
            f"--url must start with http:// or https:// (got {url!r}): gRPC is not supported; "
            "TorchServe serves the same model over HTTP on its inference_address"
        )
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"--url must start with http:// or https:// (got {url!r})")
    rate = run_coroutine(
        measure_url(
            url,
            read_payloads(requests),
            goal,
            users,
            lambda name, rate_rps: console.print(format_phase(name, rate_rps)),
            batch_size=batch_size,
            tls=tls,
            announce=lambda sentence: console.print(sentence, soft_wrap=True),
        ),
    )
    if as_json:
        print(json.dumps(rate_summary(rate)))
    elif rate.lower_rps:
        p99_s = rate.best.measurement.latency.quantile(0.99) if rate.best else None
        upper = (
            f"{format_rps(rate.upper_rps)} not sustained" if rate.upper_rps else "no rate failed"
        )
        console.print(
            f"sustained {format_rps(rate.lower_rps)} ({upper}), p99 {p99_s:.3f} s, "
            f"0 of {rate.requests_without_failure} failed; {rate.reason}",
        )
        if (found := rate.estimate) is not None:
            console.print(
                f"estimated capacity {format_rps(found.rps)} "
                f"(95 %: {format_rps(found.low_rps)} to {format_rps(found.high_rps)} within the "
                "measurement)"
            )
    for warning in rate.warnings:
        console.print(f"warning: {warning}")
    if not rate.lower_rps:
        raise ServerError(FailureKind.NO_RATE, f"{url} sustained no rate: {rate.reason}")
