"""Helpers of the tests of exports."""

from dataclasses import replace

from search.export.common import ExportFormat
from search.export.files import ExportResult, export
from search.study.outcome import Outcome
from serving.configuration.config import ServerConfig
from serving.configuration.production import DeploymentTarget


def carried_by(export_format: ExportFormat, config: ServerConfig) -> ServerConfig:
    """Return the configuration as the format can have it: KServe has no batches."""
    if export_format is not ExportFormat.KSERVE:
        return config
    models = {name: {**given, "batch_size": 1} for name, given in config.models.items()}
    return replace(config, batch_size=1, models=models)


def export_best(
    outcome: Outcome, export_format: ExportFormat, target: DeploymentTarget | None = None
) -> ExportResult:
    """Export the best trial, unconfirmed; for KServe, the run records it without batches."""
    assert outcome.best is not None
    best = replace(outcome.best, config=carried_by(export_format, outcome.best.config))
    if best != outcome.best:
        outcome.run.rebuild([*[r for r in outcome.results if r.number != best.number], best])
    return export(outcome.run, best, outcome.spec.archive(), None, export_format, target)


def best_config(outcome: Outcome) -> ServerConfig:
    """Return the configuration of the best trial, as the run records it now."""
    assert outcome.best is not None
    return {r.number: r for r in outcome.run.results()}[outcome.best.number].config
