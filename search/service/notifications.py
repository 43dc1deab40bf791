"""Report the end of a job to its webhooks."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from search.service.job_views import JobViews
from search.service.jobs import Job
from search.service.run_results import RunResults
from search.sinks.webhook import notify, read_secret
from search.spec.sections import NotifySection

_LOG = logging.getLogger(__name__)


class Notifier:
    """Sends the webhooks of jobs, signed with the service's own key.

    Args:
        folder: of the service.
        hosts: hosts, beside the loopback, that may receive them.
    """

    def __init__(self, folder: Path, hosts: Collection[str]):
        self._folder, self._hosts = folder, hosts

    def report(self, job: Job) -> None:
        """Send the end of a job; what cannot be sent is logged."""
        hooks = _hooks_of(job)
        if not hooks:
            return
        view = JobViews(RunResults(), {}).view(job)
        data: dict[str, Any] = {
            "job": job.id,
            "name": view.name,
            "reason": view.reason,
            "started_s": view.started_s,
            "ended_s": view.ended_s,
            "trials": view.progress.trials_done,
            "best_rps": view.best.sustained_rps if view.best else None,
            "reference_rps": view.baseline.sustained_rps if view.baseline else None,
            "ratio": view.ratio,
            "ratio_low": view.ratio_low,
            "ratio_high": view.ratio_high,
            "ratio_warnings": view.ratio_warnings,
            "confirmed": view.confirmed,
            "settings": view.best.settings if view.best else None,
        }
        secret = read_secret(self._folder)
        for warning in notify(hooks, str(view.state), data, secret, self._hosts):
            _LOG.warning("job %s: %s", job.id, warning)


def _hooks_of(job: Job) -> list[NotifySection]:
    try:
        entries = yaml.safe_load(job.spec_path.read_text()).get("notify") or []
        return [NotifySection.model_validate(entry) for entry in entries]
    except (OSError, ValueError, ValidationError, yaml.YAMLError, AttributeError, TypeError):
        return []
