"""The command `servetune`. Each command raises; `main` alone turns errors into an exit status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from importlib import metadata
from pathlib import Path
from statistics import mean, median, stdev
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from loadgen.measurement import GeneratorLost
from loadgen.payloads import PayloadError
from search.errors import ClusterError, CommandError, RecordError, RunError, ServiceError
from search.service import commands
from search.spec import SpecError, load_spec, read_config
from search.token import TOKEN_PATH, cluster_token, is_told
from serving.archive import ArchiveError
from serving.config import ConfigError, ServerConfig
from serving.demo.build import DemoError
from serving.errors import ServerError

T = TypeVar("T")

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Finds the TorchServe configuration that sustains the highest request rate "
    "at 100 % success.",
)

SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="the study's YAML file")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")]
PlainOption = Annotated[bool, typer.Option("--plain", help="lines instead of a live panel")]
RayOption = Annotated[bool, typer.Option("--ray-output", help="let Ray print what it prints")]
TrialsOption = Annotated[int | None, typer.Option(min=1, help="instead of search.trials")]
BudgetOption = Annotated[
    float | None,
    typer.Option(min=1, help="instead of search.time_budget_s: for all, from the run's beginning"),
]
ConfirmOption = Annotated[
    int | None,
    typer.Option(min=2, max=50, help="rounds of the best against what is in use, at the end"),
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", help="instead of cluster.address: a Ray cluster of this host's"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON alone on standard output")]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(metadata.version("servetune"))
        raise typer.Exit


@app.callback()
def servetune(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """What holds for every command."""


@app.command()
def tune(
    spec: SpecArgument,
    trials: TrialsOption = None,
    time_budget_s: BudgetOption = None,
    confirm: ConfirmOption = None,
    cluster: ClusterOption = None,
    plain: PlainOption = False,
    ray_output: RayOption = False,
) -> None:
    """Search for the best configuration."""
    found = load_spec(spec).on_cluster(cluster)
    if found.sweep is not None:
        raise CommandError(f"{spec} describes a sweep; run it with servetune sweep")
    run = _new_run(found)
    run.extend(trials=trials, time_budget_s=time_budget_s, rounds=confirm)
    _execute(run, plain, ray_output)


@app.command()
def sweep(
    spec: SpecArgument,
    cluster: ClusterOption = None,
    plain: PlainOption = False,
    ray_output: RayOption = False,
) -> None:
    """Measure every point of a space under chosen loads, in random order."""
    found = load_spec(spec, may_be_fixed=True).on_cluster(cluster)
    if found.sweep is None:
        raise CommandError(f"{spec} has no section `sweep`; tune searches it")
    _execute(_new_run(found), plain, ray_output)


@app.command()
def resume(
    run: RunArgument,
    trials: TrialsOption = None,
    time_budget_s: BudgetOption = None,
    confirm: ConfirmOption = None,
    plain: PlainOption = False,
    ray_output: RayOption = False,
) -> None:
    """Go on with a run that was interrupted, or with one whose budget was made larger."""
    from search.run import Run

    opened = Run.open(run)
    if opened.spec().sweep and (trials or confirm):
        raise CommandError("a sweep has its points: --trials and --confirm are a search's")
    with opened.locked():
        opened.extend(trials=trials, time_budget_s=time_budget_s, rounds=confirm)
    _execute(opened, plain, ray_output)


def _new_run(spec: Any) -> Any:
    from search.host import only_one
    from search.study import new_run

    if spec.cluster.address is None:
        with only_one():
            pass  # Refused before there is a folder.
    return new_run(spec)


def _execute(run: Any, plain: bool, ray_output: bool) -> None:
    from search.live import LiveView
    from search.report import render, write_report
    from search.study import execute, recording, warm_start_doubts

    spec = run.spec()
    console = Console()
    plain = plain or ray_output or not console.is_terminal
    console.print(f"run {run.folder}", highlight=False, soft_wrap=True)
    for difference in warm_start_doubts(run, spec):
        console.print(f"the warm start's run differs: {difference}", highlight=False)
    rounds = spec.confirm.rounds if spec.confirm else 0
    search = spec.search
    trials = len(spec.points()) if spec.sweep else search.trials
    with LiveView(console, trials, search.time_budget_s, plain, rounds) as view:
        found = execute(run, view, ray_output)
    with recording(run):
        write_report(found)
    if found.failed:
        raise ServerError("stopped", found.reason or "")
    console.print(render(found))
    if spec.sweep and not found.interrupted and not any(r.loads for r in found.results):
        raise ServerError("no rate", "no point of the sweep could be measured")
    if spec.sweep is None and found.best is None and not found.interrupted:
        raise ServerError("no rate", "no configuration sustained any rate")
    if found.chosen is not None:
        from search.export import export as write_files

        with recording(run):
            write_files(run, found.chosen, spec.archive(), found.confirmation)
        where = run.folder / "best"
        console.print(f"The files for production: {where}", highlight=False, soft_wrap=True)
    if found.interrupted:
        console.print(f"servetune resume {run.folder} goes on.", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED)


@app.command()
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
    from search.measure import measure_configs
    from search.rounds import mean_interval
    from search.text import span

    if keep is not None and keep.exists():
        raise CommandError(f"--keep {keep} exists already; name a new folder")

    spec = load_spec(path, may_be_fixed=True)
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
                ", ".join(f"{r.steal or 0:.0%} {r.foreign_cpu or 0:.0%}" for r in results),
            )
        console.print(table)
    failed = [r for row in found.results for r in row if not r.sustained_rps]
    if failed:
        raise ServerError("no rate", failed[0].cause)


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
    from search.endpoint import measure_url, rate_summary

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
            f"0 of {found.zero_failures_of} failed; {found.reason}",
            highlight=False,
        )
    for doubt in found.doubts:
        console.print(f"doubt: {doubt}", highlight=False)
    if not found.lower_rps:
        raise ServerError("no rate", f"{url} sustained no rate: {found.reason}")


def _phase(name: str, rate_rps: float) -> str:
    return f"{name} at {rate_rps:.1f} rps" if rate_rps else name


@app.command()
def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Print a run's trials, best against baseline, and the importance of each setting."""
    found = _outcome(run)
    if as_json:
        best, reference = found.best, found.reference
        data = {
            "run": found.run.name,
            "ended": found.reason,
            "best": best.to_dict() if best else None,
            "reference": reference.to_dict() if reference else None,
            "chosen": found.chosen.to_dict() if found.chosen else None,
            "confirmation": found.confirmation.summary() if found.confirmation else None,
            "importance": dict(found.importance),
            "trials": [result.to_dict() for result in found.results],
        }
        print(json.dumps(data))
    else:
        from search.report import render, write_report

        write_report(found)
        Console().print(render(found))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="two runs or more")],
) -> None:
    """Put runs side by side: what differs between them, their figures, the ratios."""
    if len(runs) < 2:
        raise CommandError("compare needs two runs or more")
    from search.compare import compare as compared

    text = compared([_outcome(run) for run in runs])
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


@app.command()
def export(
    run: RunArgument,
    trial: Annotated[int | None, typer.Option(help="another trial than the best")] = None,
    form: Annotated[
        str, typer.Option("--format", help="properties, model-config or compose")
    ] = "properties",
    base: Annotated[
        Path | None,
        typer.Option(help="the config.properties in use: its lines stay but for what was tuned"),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a property of the place, as TLS files"),
    ] = None,
    image: Annotated[str | None, typer.Option(help="of the compose file")] = None,
) -> None:
    """Write the files that production takes into RUN/best, or RUN/best-FORMAT."""
    from search.export import IMAGE, Format
    from search.export import export as write_files
    from serving.production import Target

    if form not in set(Format):
        raise CommandError(f"--format must be one of {', '.join(Format)}, got {form!r}")
    pairs = [text.partition("=") for text in given or ()]
    if odd := [name for name, equals, _ in pairs if not equals]:
        raise CommandError(f"--set takes KEY=VALUE, got {odd[0]!r}")
    target = Target(_text_of(base), {name: text for name, _, text in pairs})
    found = _outcome(run)
    results = {result.number: result for result in found.results}
    if trial is not None and trial not in results:
        raise RunError(f"{run} has no trial {trial}")
    chosen = found.chosen if trial is None else results[trial]
    if found.run.spec().sweep:
        raise RunError(f"{run} is a sweep, which chooses nothing; tune searches for the best")
    if chosen is None:
        raise RunError(f"no trial of {run} sustained any rate")
    archive = found.run.spec().archive()
    written = write_files(
        *(found.run, chosen, archive, found.confirmation, Format(form), target, image or IMAGE)
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print(written.diff, end="", markup=False)
    for note in written.notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"trial {chosen.number} → {written.folder}", markup=False)


@app.command()
def verify(
    files: Annotated[Path, typer.Argument(metavar="FILES", help="a folder that export wrote")],
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="the run that they come from")
    ] = None,
    requests: Annotated[Path | None, typer.Option(help="what to ask, where not the run's")] = None,
    model_store: Annotated[
        Path | None, typer.Option(help="the folder of the archive, where not the run's")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="at the claimed rate; most must hold")] = 3,
) -> None:
    """Start exported files, and compare settings and rate with what was measured."""
    from search.run import Run
    from search.verify import verify as verified

    console = Console(highlight=False)

    def progress(name: str, rate: float) -> None:
        console.print(_phase(name, rate), style="dim")

    run = Run.open(against) if against else None
    checks = _run(verified(files, run, requests, model_store, windows, progress))
    table = Table("", "what", "found")
    for check in checks:
        table.add_row("ok" if check.passed else "✗", check.what, check.told)
    console.print(table)
    wrong = [check for check in checks if not check.passed]
    console.print(f"FAIL: {', '.join(check.what for check in wrong)}" if wrong else "PASS")
    if wrong:
        raise typer.Exit(FAILED)


def _text_of(path: Path | None) -> str | None:
    try:
        return path.read_text("latin-1") if path else None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None


def _outcome(folder: Path) -> Any:
    from search.run import Run
    from search.study import open_study, outcome

    run = Run.open(folder)
    return outcome(run, open_study(run, run.spec()))


@app.command()
def doctor(
    python: Annotated[str | None, typer.Option(help="the handler's interpreter")] = None,
    java: Annotated[str | None, typer.Option(help="the Java to run")] = None,
    cluster: Annotated[str | None, typer.Option(help="a Ray cluster: its hosts instead")] = None,
) -> None:
    """Say what this host has, or the hosts of a cluster, and what is missing."""
    from search.doctor import examine, examine_cluster

    findings = examine_cluster(cluster, python, java) if cluster else examine(python, java)
    table = Table("", "what", "found", "mend with")
    for finding in findings:
        table.add_row("ok" if finding.well else "✗", finding.what, finding.found, finding.mend)
    Console().print(table)
    if not all(finding.well for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
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
    from search.up import (
        CLIENT_PORT,
        HEAD_PORT,
        PORTS,
        NodeOptions,
        RunningNode,
        free_ports,
        role_of,
    )

    if head == (join is not None):
        raise CommandError("name one of --head and --join HOST:PORT")
    serves, loadgen = role_of(role or [], processes)
    token = cluster_token(token_file, make=head)
    ports = {} if any_ports else dict(PORTS)
    if head:
        client = free_ports(1)[0] if any_ports else CLIENT_PORT
        ports |= {"dashboard-port": dashboard_port, "ray-client-server-port": client}
    options = NodeOptions(join, address, serves, loadgen, port or HEAD_PORT, token, ports)
    console = Console(highlight=False, soft_wrap=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with RunningNode(options) as node:
            console.print(node.said())
            while not node.has_ended(1.0):
                pass
            raise RunError(f"Ray ended on this host:\n{node.log_tail()}")
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="the file to write")] = Path("servetune.yaml"),
) -> None:
    """Write a commented starter specification for a model of one's own."""
    if path.exists():
        raise CommandError(f"{path} exists already; name another file")
    try:
        path.write_text(Path(__file__).with_name("starter.yaml").read_text())
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None
    Console().print(f"wrote {path}: name your archive and your requests in it", highlight=False)


@app.command()
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


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C and SIGTERM cancel it, and what it started is stopped first."""

    async def main() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    return asyncio.run(main())


commands.add(app)


def main() -> None:
    """The entry point."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Carry out a command line; the exit status."""
    # Ray reads these as it is imported.
    if is_told() or TOKEN_PATH.expanduser().is_file():
        # A cluster that asks for its token is shown it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if "--ray-output" not in arguments:
        # The trial's own cause says it, or the run's end.
        said = "^(A worker died or was killed|Raylet is terminated|The node with node id)"
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", said)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        app(arguments)
        return OK
    except SystemExit as end:
        return int(end.code or OK)
    except SpecError as error:
        for problem in error.problems:
            errors.print(problem, markup=False)
        return BAD_INPUT
    except (ArchiveError, CommandError, ConfigError, PayloadError, RunError) as error:
        errors.print(f"servetune: {error}", markup=False)
        return BAD_INPUT
    except (ClusterError, DemoError, RecordError, ServiceError) as error:
        errors.print(f"servetune: {error}", markup=False)
        return FAILED
    except GeneratorLost as error:
        errors.print(f"servetune: load process lost: {error}", markup=False)
        return FAILED
    except ServerError as error:
        errors.print(f"servetune: {error}", markup=False)
        if error.log:
            errors.print(error.log, markup=False)
        return FAILED
    except KeyboardInterrupt:
        errors.print("servetune: interrupted", markup=False)
        return INTERRUPTED


if __name__ == "__main__":
    main()
