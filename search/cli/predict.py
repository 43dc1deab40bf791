"""The command predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from loadgen.formatting import format_percent
from search.cli.console import create_console
from search.cli.options import JsonOption, RunArgument
from search.errors import CommandError, RunError

if TYPE_CHECKING:
    from search.spec.space import Space

#: Number of configurations to show if none is given.
_FASTEST = 10

Setting = Annotated[int | None, typer.Option(min=1, help="value of this setting")]


def predict(
    run: RunArgument,
    workers: Setting = None,
    batch_size: Setting = None,
    max_batch_delay_ms: Setting = None,
    netty_threads: Setting = None,
    netty_client_threads: Setting = None,
    mkl_threads: Setting = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="value of any other setting of the space, for example properties.io_ratio=50; may "
            "be repeated",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the rate of a configuration from a run's trials, with a 90 % interval.

    Settings that are not given have their values in the run's best configuration. Without any, the
    configurations with the highest predicted rates are shown.
    """
    from search.report.formatting import format_number, format_settings
    from search.report.prediction_text import format_prediction
    from search.sampler.what_if import fastest_configs, predict_configs
    from search.study.reading import read_outcome
    from search.study.run_folder import Run
    from search.trial.ranking import rate_of

    outcome = read_outcome(Run.open(run))
    if outcome.spec.sweep is not None or outcome.space is None:
        raise RunError(f"{run} is a sweep; rates are predicted from the trials of servetune tune")
    given = {
        "workers": workers,
        "batch_size": batch_size,
        "max_batch_delay_ms": max_batch_delay_ms,
        "netty_threads": netty_threads,
        "netty_client_threads": netty_client_threads,
        "mkl_threads": mkl_threads,
    }
    texts = [f"{name}={value}" for name, value in given.items() if value is not None]
    if changes := _parsed([*texts, *(others or ())], outcome.space):
        chosen = outcome.chosen
        base = chosen.config if chosen else outcome.space.default_config
        values = outcome.space.values(base) or outcome.space.nearest_point()
        configs = [outcome.space.config({**values, **changes})]
        entries = list(
            zip(configs, predict_configs(outcome.space, outcome.results, configs), strict=True)
        )
    else:
        entries = fastest_configs(outcome.space, outcome.results, _FASTEST)
    measured = [rate_of(outcome.results, config) for config, _ in entries]
    if as_json:
        data = [
            {
                "settings": config.to_dict(),
                "predicted_rps": predicted.median_rps if predicted.is_known else None,
                "low_rps": predicted.low_rps,
                "high_rps": predicted.high_rps,
                "serving_probability": predicted.serves,
                "measured_rps": rate,
            }
            for (config, predicted), rate in zip(entries, measured, strict=True)
        ]
        print(json.dumps(data))
        return
    console = create_console()
    if not entries:
        console.print("The rate of no configuration is known: no trial has sustained any rate.")
        return
    header = ("settings", "predicted rps (90 % interval)", "chance to serve", "measured rps")
    table = Table(*header, box=None)
    for (config, predicted), rate in zip(entries, measured, strict=True):
        serves = "" if predicted.serves is None else format_percent(predicted.serves)
        table.add_row(
            format_settings(replace(config, model_properties={})),
            format_prediction(predicted),
            serves,
            format_number(rate),
        )
    console.print(table)


def _parsed(texts: Sequence[str], space: Space) -> dict[str, Any]:
    """Return values by name from texts `NAME=VALUE`; choices are kept.

    Raises:
        CommandError: a setting does not vary, or cannot have the value.
    """
    dimensions = {d.name: d for d in space.dimensions}
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise CommandError(f"--set must be NAME=VALUE (got {text!r})")
        if (d := dimensions.get(name)) is None:
            raise CommandError(
                f"{name} does not vary in this run, so its effect is not known; "
                f"settings that vary: {', '.join(sorted(dimensions))}"
            )
        if d.choices:
            equal = [choice for choice in d.choices if str(choice).lower() == value.lower()]
            if not equal:
                listed = ", ".join(str(choice) for choice in d.choices)
                raise CommandError(f"{name} must be one of {listed} (got {value!r})")
            values[name] = equal[0]
            continue
        if not value.isdecimal() or int(value) < 1:
            raise CommandError(f"{name} must be a positive integer (got {value!r})")
        values[name] = int(value)
    return values
