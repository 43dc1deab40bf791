"""The models that shared a server, in the report."""

from __future__ import annotations

from dataclasses import replace

from search.report.model_tables import mix_text, model_section, model_sentences
from search.report.summary import markdown_report
from search.report.verdict import verdict
from search.spec.model_loads import BackgroundSection
from search.study.outcome import Outcome
from search.trial.background import BackgroundRecord
from search.trial.mix import MixRecord
from search.trial.result import TrialResult


def with_loads(outcome: Outcome, **load: object) -> Outcome:
    section = outcome.spec.load.model_copy(update=load)
    return replace(outcome, spec=outcome.spec.model_copy(update={"load": section}))


def beside_zoo(result: TrialResult, p99_s: float, failed: int = 0) -> TrialResult:
    zoo = {"workers": 2, "batch_size": 4}
    record = BackgroundRecord("zoo", 8.0, 40, failed, 0.1, p99_s)
    server = replace(result.server, other_models={"zoo": zoo, "ape": {"workers": 1}})
    return replace(result, server=server, background=(record,))


def with_background(outcome: Outcome) -> Outcome:
    assert outcome.best and outcome.reference
    section = BackgroundSection(model="zoo", requests="zoo.jsonl", rate_rps=8.0)  # type: ignore[arg-type]
    before, after = beside_zoo(outcome.reference, 0.2), beside_zoo(outcome.best, 0.5, failed=1)
    others = [r for r in outcome.results if r.number not in (before.number, after.number)]
    changed = replace(outcome, results=[before, *others, after], best=after, reference=before)
    return with_loads(changed, background=[section])


def test_model_section_compares_the_background_before_and_after(outcome: Outcome) -> None:
    measured = with_background(outcome)
    text = "\n".join(model_section(measured))
    assert "| zoo | workers=2, batch_size=4 | workers=2, batch_size=4 | 8 rps in the" in text
    assert "| ape | workers=1 | workers=1 | no load |" in text
    assert "| zoo | trial 0 (default) | 8 | 40 | 0 | 0.1 | 0.2 |" in text
    assert "| zoo | trial 3 | 8 | 40 | 1 | 0.1 | 0.5 |" in text
    assert text in markdown_report(measured).replace("\n\n", "\n")


def test_model_sentences_name_what_shared_the_host(outcome: Outcome) -> None:
    first, *others = model_sentences(with_background(outcome))
    assert first == "The server also served zoo (8 rps in the background), ape (no load)."
    assert others[0] == ("Background zoo, trial 0 (default): p50 0.1 s, p99 0.2 s, 0 of 40 failed.")
    assert model_sentences(outcome) == [] and model_section(outcome) == []


def with_mix(outcome: Outcome) -> Outcome:
    assert outcome.best and outcome.reference
    changed = {}
    for result, p99_s in ((outcome.reference, 0.2), (outcome.best, 0.5)):
        mix = (
            MixRecord("cat", 30.04, 120, 0, 0.05, 0.1, p99_s),
            MixRecord("zoo", 10.0, 40, 1, 0.3, 0.4, 2 * p99_s),
        )
        changed[result.number] = replace(beside_zoo(result, 0.2), mix=mix, background=())
    results = [changed.get(result.number, result) for result in outcome.results]
    best, reference = changed[outcome.best.number], changed[outcome.reference.number]
    mixed = replace(outcome, results=results, best=best, reference=reference)
    return with_loads(mixed, mix={"cat": 3.0, "zoo": 1.0})


def test_model_section_has_the_latency_of_each_model_of_a_mix(outcome: Outcome) -> None:
    measured = with_mix(outcome)
    text = "\n".join(model_section(measured))
    assert "| model | with | rps | requests | failed | p50 s | p95 s | p99 s |" in text
    assert "| cat | trial 0 (default) | 30 | 120 | 0 | 0.05 | 0.1 | 0.2 |" in text
    assert "| zoo | trial 0 (default) | 10 | 40 | 1 | 0.3 | 0.4 | 0.4 |" in text
    assert "| cat | trial 3 | 30 | 120 | 0 | 0.05 | 0.1 | 0.5 |" in text
    assert "| zoo | trial 3 | 10 | 40 | 1 | 0.3 | 0.4 | 1 |" in text
    assert text in markdown_report(measured).replace("\n\n", "\n")
    assert (
        "zoo in the mix, trial 3: p50 0.3 s, p95 0.4 s, p99 1 s, 1 of 40 failed."
        in model_sentences(measured)
    )


def test_verdict_names_the_mix(outcome: Outcome) -> None:
    mixed = with_loads(outcome, mix={"cat": 3.0, "dog": 1.0})
    assert mix_text(mixed) == "a mix of 3 cat : 1 dog" and mix_text(outcome) == ""
    assert "sustains 250 requests/s (a mix of 3 cat : 1 dog) at 100 % success" in verdict(mixed)
