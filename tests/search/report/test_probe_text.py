"""Probes in a report."""

from dataclasses import replace

from loadgen.rate.estimate import Estimate
from search.report.probe_text import probe_section
from search.report.sections import report_parts
from search.study.outcome import Outcome
from search.trial.server_probe import ProbeKind, ServerProbeRecord
from tests.results import trial_result

SHOWN = ServerProbeRecord(
    ProbeKind.WORKERS, 2, 16, Estimate(123.4, 120.0, 126.0, 2.0), duration_s=2.31
)
FAILED = ServerProbeRecord(ProbeKind.BATCH, 1, 4, duration_s=0.4, problem="3 of 90 requests failed")


def test_probe_section_shows_results_and_problems() -> None:
    _, explanation, table = probe_section(
        [trial_result(3, 100.0, server_probes=(SHOWN, FAILED)), trial_result(4, 90.0)]
    )
    assert "none of them is a result" in explanation
    assert table.splitlines()[2:] == [
        "| 3 | fewer workers | 2 | 16 | 123 | 2.31 |",
        "| 3 | smaller batches | 1 | 4 | 3 of 90 requests failed | 0.4 |",
    ]


def test_report_has_probes_only_if_there_were_any(outcome: Outcome) -> None:
    assert "## Probes" not in report_parts(outcome)
    first, *others = outcome.results
    probed = replace(first, server_probes=(SHOWN,))
    assert "## Probes" in report_parts(replace(outcome, results=[probed, *others]))
