from __future__ import annotations

import pytest

from search.export.loaded_server import missing_secrets


@pytest.mark.parametrize(
    ("in_run", "properties", "missing"),
    [
        ("-Da.password=b '-Dc.token=d e'", "vmargs=-Xmx1g -Dc.token=x\n", "-Da.password=b"),
        ("-Da.password=b", "vmargs=-Dc.token=x\n", "-Da.password=b"),
        ('-Xmx1g -Da.password=b "-Dc.token=d"', "vmargs=-Xmx1g\n", None),
        ('"-Dc.token=d"', "vmargs=-Dc.token=d\n", ""),
    ],
)
def test_missing_secrets_keeps_jvm_arguments_that_the_lines_lack(
    in_run: str, properties: str, missing: str | None
) -> None:
    secrets = {"JDK_JAVA_OPTIONS": in_run, "HF_TOKEN": "t", "SERVETUNE_ALLOWED_URLS": "u"}
    found = missing_secrets(secrets, f"allowed_urls=https://me:pw@host/.*\n{properties}")
    assert found.pop("HF_TOKEN") == "t"
    expected = in_run if missing is None else missing
    assert found == ({"JDK_JAVA_OPTIONS": expected} if expected else {})
