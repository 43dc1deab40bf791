"""The probes of a run's servers in a report. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from search.report.formatting import format_number, markdown_table
from search.trial.result import TrialResult


def probe_section(results: Sequence[TrialResult]) -> list[str]:
    """Return the section with what each probe showed; empty without a probe."""
    rows = [
        (
            *(str(result.number), str(record.kind), str(record.workers), str(record.batch_size)),
            format_number(record.capacity.rps) if record.capacity else record.problem,
            format_number(record.duration_s),
        )
        for result in results
        for record in result.server_probes
    ]
    if not rows:
        return []
    explanation = (
        "After its own windows, a trial scaled its server down and measured these configurations "
        "in short closed loops. They informed the search only; none of them is a result."
    )
    header = ("trial", "probe", "workers", "batch size", "capacity, rps", "seconds")
    return ["## Probes", explanation, markdown_table(header, rows)]
