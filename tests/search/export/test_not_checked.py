"""What a verification leaves open is listed for every format."""

from __future__ import annotations

import pytest

from search.export.common import ExportFormat
from search.export.not_checked import not_checked
from search.study.outcome import Outcome
from serving.platforms.reading import read_platform
from tests.search.export.conftest import export_best


@pytest.mark.parametrize("export_format", ExportFormat)
def test_not_checked_has_an_entry_for_the_platform_of_every_format(
    outcome: Outcome, export_format: ExportFormat
) -> None:
    platform = read_platform(export_best(outcome, export_format).folder)
    assert platform is not None and not_checked(platform.platform)
