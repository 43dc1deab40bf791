"""Helpers of the tests of exports."""

from search.export.common import ExportFormat
from search.export.files import ExportResult, export
from search.study.outcome import Outcome
from serving.production import DeploymentTarget


def export_best(
    outcome: Outcome, export_format: ExportFormat, target: DeploymentTarget | None = None
) -> ExportResult:
    """Export the best trial, unconfirmed."""
    assert outcome.best is not None
    return export(outcome.run, outcome.best, outcome.spec.archive(), None, export_format, target)
