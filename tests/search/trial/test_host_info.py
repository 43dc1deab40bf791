from __future__ import annotations

import pytest

from search.trial import host_info


def test_describe_host_reports_cores_and_memory_under_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_info, "available_cores", lambda: 4)
    monkeypatch.setattr(host_info, "affinity_cores", lambda: 96)
    monkeypatch.setattr(host_info, "total_memory_bytes", lambda: 512 << 20)
    facts = host_info.describe_host()
    assert (facts["cores"], facts["affinity_cores"], facts["memory_mb"]) == (4, 96, 512)
