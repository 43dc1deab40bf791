"""The toolkit of SageMaker's container, in a separate environment, reads what is exported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.export.sagemaker import sagemaker_environment
from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.configuration.deployment import Deployment
from serving.configuration.sagemaker import container_properties, sagemaker_notes
from tests.archives import make_archive
from tests.search.export.configurations import random_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOOLKIT = ("sagemaker-pytorch-inference==2.0.25", "sagemaker-inference==1.10.1")
#: What the toolkit imports, and torch does not matter for.
DEPENDENCIES = ("retrying<1.4", "setuptools<80", "psutil", "numpy", "boto3", "six", "scipy")
GENERATE = """
import sys, types
torch = types.ModuleType("torch")
sys.modules["torch"] = torch
from sagemaker_pytorch_serving_container import torchserve
sys.stdout.write(torchserve._generate_ts_config_properties("handler_service.py"))
"""
FIVE = {
    "SAGEMAKER_TS_BATCH_SIZE": "8",
    "SAGEMAKER_TS_MAX_BATCH_DELAY": "20",
    "SAGEMAKER_TS_MIN_WORKERS": "2",
    "SAGEMAKER_TS_MAX_WORKERS": "2",
    "SAGEMAKER_TS_RESPONSE_TIMEOUT": "90",
}


@pytest.fixture(scope="module")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the toolkit."""
    folder = tmp_path_factory.mktemp("toolkit")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *DEPENDENCIES], check=True)
    subprocess.run([*pip, "--no-deps", *TOOLKIT], check=True)
    return folder / "bin" / "python"


def generate(toolkit: Path, variables: dict[str, str]) -> str:
    """Return the config.properties that the toolkit makes of these variables."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **variables}
    made = subprocess.run(
        [toolkit, "-c", GENERATE], env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive under the name that the container gives it."""
    return Archive.read(make_archive(tmp_path, name="model"))


@pytest.mark.parametrize(
    "variables",
    [
        {},
        FIVE,
        *({name: value} for name, value in FIVE.items()),
        {"SAGEMAKER_MODEL_SERVER_WORKERS": "3", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "33"},
        {**FIVE, "SAGEMAKER_MULTI_MODEL": "true"},
        {"SAGEMAKER_TS_STARTUP_TIMEOUT": "5", "TS_JOB_QUEUE_SIZE": "500"},
    ],
    ids=lambda variables: ",".join(variables) if len(variables) < 3 else str(len(variables)),
)
def test_sagemaker_properties_are_those_of_the_toolkit(
    toolkit: Path, archive: Archive, variables: dict[str, str]
) -> None:
    by_toolkit = Deployment.read(generate(toolkit, variables), variables, archive).config
    by_servetune = Deployment.read(container_properties(variables, archive), variables, archive)
    if variables.get("SAGEMAKER_MULTI_MODEL"):
        assert by_toolkit.batch_size is by_servetune.config.batch_size is None
        assert any("ignored" in note for note in sagemaker_notes(variables, archive))
        return
    ours = by_servetune.config.to_dict()
    theirs = by_toolkit.to_dict()
    theirs["properties"].pop("default_service_handler")
    assert ours == theirs


def test_sagemaker_environment_reaches_torchserve_through_the_toolkit(
    toolkit: Path, archive: Archive
) -> None:
    checked = 0
    for seed in range(40):
        config = random_config(seed)
        if None in (config.workers, config.batch_size, config.max_batch_delay_ms):
            continue
        if config.response_timeout_s is None:
            continue
        variables = sagemaker_environment(config)
        json.dumps(variables)
        read = Deployment.read(generate(toolkit, variables), variables, archive).config
        assert read.model_entry() == ServerConfig(**_model_settings(config)).model_entry(), seed
        assert config.server_lines().items() <= read.server_lines().items(), seed
        checked += 1
    assert checked >= 5


def _model_settings(config: ServerConfig) -> dict[str, int | None]:
    names = ("workers", "batch_size", "max_batch_delay_ms", "response_timeout_s")
    return {name: getattr(config, name) for name in names}
