from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from serving.archive import Archive
from serving.configuration.ignored import find_ignored_settings, find_unapplied_settings
from serving.installation import Installation
from tests.archives import make_archive


def test_find_ignored_settings_names_setting_of_archive(
    installation: Installation, tmp_path: Path
) -> None:
    model_config = "minWorkers: 2\njobQueueSize: 50\nresponseTimeout: 9\n"
    archive = Archive.read(make_archive(tmp_path, model_config__yaml=model_config))

    properties = {"default_response_timeout": "120"}
    reason = find_ignored_settings(properties, installation, archive) or ""
    assert "has responseTimeout 9" in reason
    assert find_ignored_settings({}, installation, archive) is None


def test_find_ignored_settings_names_missing_package(
    installation: Installation, archive: Archive
) -> None:
    ipex = {"ipex_enable": "true"}
    without = replace(installation, ipex_version=None)
    reason = find_ignored_settings(ipex, without, archive) or ""
    assert "requires intel_extension_for_pytorch" in reason
    assert find_ignored_settings(ipex, replace(without, ipex_version="2.8.0"), archive) is None
    off = {"ipex_enable": "false"}
    assert find_ignored_settings(off, without, archive) is None


def test_find_unapplied_settings_names_missing_launcher() -> None:
    config = {"cpu_launcher_enable": "true"}
    worker = "python ts/model_service_worker.py --sock-type unix"
    reason = find_unapplied_settings(config, [worker]) or ""
    assert "cpu_launcher_enable is true, but the workers run without the launcher" in reason
    launched = f"python -m torch.backends.xeon.run_cpu --ninstances 1 {worker}"
    assert find_unapplied_settings(config, [launched, worker]) is None
    assert find_unapplied_settings({}, [worker]) is None
