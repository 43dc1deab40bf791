"""Tests of measuring given configurations."""

from __future__ import annotations

from search.measure.configs import origins_of
from search.trial.request import TrialOrigin
from serving.configuration.config import ServerConfig


def test_file_that_changes_nothing_is_not_labelled_default() -> None:
    configs = [ServerConfig(), ServerConfig(workers=2)]
    assert origins_of(configs, ServerConfig(), are_files=True) == [TrialOrigin.BASELINE] * 2
    assert origins_of(configs, ServerConfig(), are_files=False) == [
        TrialOrigin.DEFAULT,
        TrialOrigin.BASELINE,
    ]
