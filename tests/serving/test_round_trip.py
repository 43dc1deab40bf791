"""Read generated deployments, export another configuration into them, and read them again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from serving.configuration.config import ServerConfig
from serving.configuration.deployment import Deployment
from serving.configuration.production import DeploymentTarget
from tests.serving.deployments import Generated, generate

THREADS = {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def expected(made: Generated, before: ServerConfig) -> dict[str, object]:
    """Return the settings after the export: the tuned ones, else those in use."""
    settings = {
        name: getattr(made.tuned, name) or getattr(before, name)
        for name in (
            *("workers", "batch_size", "max_batch_delay_ms", "response_timeout_s"),
            *("netty_threads", "netty_client_threads", "job_queue_size"),
        )
    }
    return {**settings, "jvm": {**before.jvm, **made.tuned.jvm}}


def check(made: Generated) -> None:
    before = Deployment.read(made.text, {}, made.archive)
    text = DeploymentTarget(made.text).properties_text(made.tuned, made.archive)
    after = Deployment.read(text, THREADS, made.archive)
    wanted = expected(made, before.config)
    assert {name: getattr(after.config, name) for name in wanted} == wanted, text
    assert after.archive == before.archive and after.other_models == before.other_models
    properties = {**before.config.properties, **made.tuned.properties}
    assert after.config.properties == properties
    remaining = text
    for line in made.untuned:
        if not (line.startswith("prefer_direct_buffer") and made.tuned.properties):
            # A line without an end may get one, if another line is added after it.
            assert line in remaining, f"{line!r} is not in its place in {text!r}"
            remaining = (
                remaining[remaining.index(line) + len(line) :] if line.strip() else remaining
            )
    assert DeploymentTarget(text).properties_text(made.tuned, made.archive) == text
    same = DeploymentTarget(made.text).properties_text(before.config, made.archive)
    assert same == made.text, "nothing is tuned, so no byte changes"


def test_properties_text_changes_only_tuned_lines_of_1000_files() -> None:
    forms = Counter()
    for seed in range(1000):
        made = generate(seed, Path("/models/echo.mar"))
        check(made)
        forms[made.form] += 1
    assert min(forms.values()) > 100 and len(forms) == 6
