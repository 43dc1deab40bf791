"""The config.properties that SageMaker's container makes of its environment variables.

Source: torchserve.py, ts_environment.py and etc/default-ts.properties of
sagemaker-pytorch-inference 2.0.25.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from serving.archive import Archive
from serving.configuration.jvm import JVM_VARIABLE
from serving.configuration.properties import read_int
from serving.configuration.reading import VARIABLES
from serving.errors import ConfigError

_PREFIX = "SAGEMAKER_"
#: The container loads the folder of the model under this name, and expects this version.
MODEL_NAME, MODEL_VERSION = "model", "1.0"
MODEL_FOLDER = "/opt/ml/model"
ARGUMENTS = ("--start", "--models", f"{MODEL_NAME}={MODEL_FOLDER}")
#: The five variables of the model, their keys in `models`, and the container's defaults.
MODEL_VARIABLES = {
    "SAGEMAKER_TS_BATCH_SIZE": ("batchSize", 1),
    "SAGEMAKER_TS_MAX_BATCH_DELAY": ("maxBatchDelay", 100),
    "SAGEMAKER_TS_MIN_WORKERS": ("minWorkers", 1),
    "SAGEMAKER_TS_MAX_WORKERS": ("maxWorkers", 1),
    "SAGEMAKER_TS_RESPONSE_TIMEOUT": ("responseTimeout", 60),
}
_TIMEOUT, _WORKERS = "SAGEMAKER_MODEL_SERVER_TIMEOUT", "SAGEMAKER_MODEL_SERVER_WORKERS"
_DEFAULT_TIMEOUT_S = 60
#: A batch delay above this is more likely meant in microseconds, milliseconds.
LONG_DELAY_MS = 10_000


def is_sagemaker(environment: Mapping[str, str]) -> bool:
    """Return whether the variables configure SageMaker's container."""
    return any(name.startswith(_PREFIX) for name in environment)


def sagemaker_properties(environment: Mapping[str, str], archive: Archive) -> str:
    """Return the config.properties that the container writes, with the archive as its model.

    Raises:
        ConfigError: a variable is not an integer; the container would not start.
    """
    lines = {
        "vmargs": " ".join(["-XX:-UseContainerSupport", environment.get(JVM_VARIABLE, "")]).strip(),
        "enable_envvars_config": "true",
        "decode_input_request": "false",
        "load_models": "ALL",
        "disable_token_authorization": "true",
        # The container's file ends without a line break, so that the first line appended to it,
        # default_response_timeout, becomes part of the value `true` of enable_model_api.
        "enable_model_api": "false",
    }
    _integer(environment, _TIMEOUT, _DEFAULT_TIMEOUT_S)
    if _WORKERS in environment:
        lines["default_workers_per_model"] = _integer(environment, _WORKERS, 0)
    if environment.keys() & MODEL_VARIABLES.keys() and not _has_many_models(environment):
        entry = {
            key: int(_integer(environment, name, default))
            for name, (key, default) in MODEL_VARIABLES.items()
        }
        lines["models"] = json.dumps({archive.name: {MODEL_VERSION: entry}})
    return "".join(f"{key}={text}\n" for key, text in lines.items())


def container_properties(environment: Mapping[str, str], archive: Archive) -> str:
    """Return the config.properties on which TorchServe runs in the container."""
    return sagemaker_properties(
        {k: v for k, v in environment.items() if k != JVM_VARIABLE}, archive
    )


def _integer(environment: Mapping[str, str], name: str, default: int) -> str:
    text = environment.get(name, str(default)).strip()
    if read_int(text) is None:
        raise ConfigError(f"variable {name} must be an integer (got {text!r})")
    return text


def _has_many_models(environment: Mapping[str, str]) -> bool:
    return environment.get("SAGEMAKER_MULTI_MODEL") == "true"


def sagemaker_notes(environment: Mapping[str, str], archive: Archive) -> list[str]:
    """Return what a reader of these variables may not expect."""
    notes = []
    given = environment.keys() & MODEL_VARIABLES.keys()
    if given and _has_many_models(environment):
        notes.append(f"{', '.join(sorted(given))}: ignored, because SAGEMAKER_MULTI_MODEL is true")
    elif given and (missing := sorted(MODEL_VARIABLES.keys() - given)):
        defaults = ", ".join(f"{name} {MODEL_VARIABLES[name][1]}" for name in missing)
        notes.append(
            f"{', '.join(sorted(given))}: with any of the five variables, the container sets the "
            f"others to its defaults: {defaults}"
        )
    if "TS_CONFIG_FILE" in environment:
        notes.append(
            "TS_CONFIG_FILE: TorchServe reads that file and not the one that the container writes; "
            "the other variables have no effect unless it has enable_envvars_config=true"
        )
    if _TIMEOUT in environment:
        notes.append(
            f"{_TIMEOUT} has no effect: the container's config.properties has no line break before "
            "the line that it writes; set SAGEMAKER_TS_RESPONSE_TIMEOUT"
        )
    if given and archive.version != MODEL_VERSION:
        notes.append(
            f"{', '.join(sorted(given))}: ignored, because the archive has version "
            f"{archive.version}, and the container sets them for version {MODEL_VERSION}"
        )
    if given and archive.overridden_keys:
        notes.append(
            "the archive's model-config.yaml takes precedence over the variables SAGEMAKER_TS_*"
        )
    notes += [
        f"variable {name} is not known to the container and has no effect"
        for name in sorted(environment)
        if name.startswith("SAGEMAKER_TS_") and name not in MODEL_VARIABLES
    ]
    return notes


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables TS_* that set no property."""
    known = {*VARIABLES.values(), "TS_CONFIG_FILE"}
    return sorted(name for name in environment if name.startswith("TS_") and name not in known)
