"""Export for SageMaker: the container's variables, requests to its API, and model.tar.gz."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from search.export.common import ExportRequest, FormatFiles, fill_template
from serving.configuration.config import MODEL_KEYS, ServerConfig
from serving.configuration.jvm import JVM_VARIABLE
from serving.configuration.model_config import archive_settings
from serving.configuration.reading import VARIABLES
from serving.configuration.sagemaker import MODEL_VARIABLES
from serving.errors import ConfigError
from serving.sagemaker_archive import MODEL_TAR, write_model_tar

DEFAULT_IMAGE = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6-cpu-py312-ubuntu22.04"
    "-sagemaker"
)
#: The API requires a role of this form; the user replaces the account and the name.
_ROLE = "arn:aws:iam::123456789012:role/SageMakerExecutionRole"
_START_LIMIT_S = 600
_INSTANCE_TYPE = "ml.c6i.xlarge"
_COOLDOWN_S = {"ScaleInCooldown": 300, "ScaleOutCooldown": 60}
#: Set in the container's own file.
_SET_BY_CONTAINER = {
    "vmargs": "-XX:-UseContainerSupport",
    "enable_envvars_config": "true",
    "decode_input_request": "false",
    "disable_token_authorization": "true",
    "enable_model_api": "false",
}


def write_sagemaker(request: ExportRequest) -> FormatFiles:
    """Write environment.json, the requests that create the endpoint, and model.tar.gz.

    Raises:
        ConfigError: the container has no variable for a setting.
        ArchiveError: the archive's model-config.yaml cannot be changed.
    """
    if request.target.base is not None:
        raise ConfigError(
            "SageMaker's container reads no config.properties: leave out --base, and compare "
            "environment.json with the variables in use"
        )
    config = request.explicit_config
    variables = sagemaker_environment(config)
    for name, text in request.environment.items():
        variables.setdefault(name, text)
    name, folder, scaling = request.resource_name, request.folder, request.scaling
    carried = write_model_tar(request.archive, archive_settings(config), folder / MODEL_TAR)
    image = request.image or DEFAULT_IMAGE
    container = {
        "Image": image,
        "ModelDataUrl": f"s3://BUCKET/{name}/model.tar.gz",
        "Environment": variables,
    }
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InstanceType": _INSTANCE_TYPE,
        "InitialInstanceCount": scaling.least_replicas,
        "ContainerStartupHealthCheckTimeoutInSeconds": _START_LIMIT_S,
    }
    resource = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    policy = {
        "PolicyName": f"{name}-invocations",
        **resource,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": float(scaling.invocations_per_minute),
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
            **_COOLDOWN_S,
        },
    }
    capacity = {"MinCapacity": scaling.least_replicas, "MaxCapacity": scaling.most_replicas}
    endpoint = {"EndpointName": name, "EndpointConfigName": name}
    files: dict[str, Any] = {
        "environment.json": variables,
        "create_model.json": {
            "ModelName": name,
            "ExecutionRoleArn": _ROLE,
            "PrimaryContainer": container,
        },
        "create_endpoint_config.json": {
            "EndpointConfigName": name,
            "ProductionVariants": [variant],
        },
        "create_endpoint.json": endpoint,
        "scalable-target.json": {**resource, **capacity},
        "scaling-policy.json": policy,
    }
    for file, data in files.items():
        _write_json(folder / file, data)
    (folder / "deploy.py").write_text(
        fill_template(
            "sagemaker_deploy",
            model=request.archive.name,
            endpoint=name,
            image=image,
            role=_ROLE,
            instances=str(scaling.least_replicas),
            instance_type=_INSTANCE_TYPE,
            start_limit_s=str(_START_LIMIT_S),
        )
    )
    notes = [
        "the container logs several lines for each request, and counts the host's cores for "
        "threads that are not set; measure whether it sustains the same rate",
        "multi-model endpoints ignore the variables SAGEMAKER_TS_*",
    ]
    if carried:
        notes.insert(
            0,
            "the archive has a model-config.yaml, which takes precedence over the variables: "
            f"model.tar.gz carries {', '.join(carried)}",
        )
    return FormatFiles(
        None,
        command="",
        has_environment=False,
        use=fill_template(
            "readme_sagemaker",
            model=request.archive.name,
            per_minute=str(scaling.invocations_per_minute),
            headroom=f"{100 * scaling.headroom:.0f}",
            instance_type=_INSTANCE_TYPE,
            needs=request.resources.text or "those of the trial's host",
            origin=request.resources.origin,
        ),
        notes=tuple(notes),
    )


def sagemaker_environment(config: ServerConfig) -> dict[str, str]:
    """Return the variables that make SageMaker's container use this configuration.

    With any of the five variables of the model, the container sets the others to its own defaults,
    so all five are written.

    Raises:
        ConfigError: the container has no variable for a setting.
    """
    variables: dict[str, str] = {}
    names = {keys[0]: name for name, keys in MODEL_KEYS.items()}
    names["maxWorkers"] = "workers"
    if missing := sorted(n for n in MODEL_KEYS if getattr(config, n) is None):
        raise ConfigError(
            f"SageMaker's container needs a value of {', '.join(missing)}: this run did not "
            "record it; run the trial again"
        )
    for variable, (key, _) in MODEL_VARIABLES.items():
        variables[variable] = str(getattr(config, names[key]))
    for key, text in config.server_lines().items():
        if _SET_BY_CONTAINER.get(key) == text:
            continue
        if key not in VARIABLES:
            raise ConfigError(
                f"SageMaker's container has no variable for {key}={text}; export --format docker "
                "for a custom container, or tune without it"
            )
        variables[VARIABLES[key]] = text
    if config.model_properties:
        keys = ", ".join(config.model_properties)
        raise ConfigError(
            f"SageMaker's container has no variable for {keys} of the model; set it in the "
            "archive's model-config.yaml"
        )
    if config.jvm:
        arguments = [a for a in config.jvm_arguments() if a != _SET_BY_CONTAINER["vmargs"]]
        variables |= {JVM_VARIABLE: " ".join(arguments)} if arguments else {}
    variables |= {"TS_METRICS_MODE": "prometheus", "TS_DISABLE_SYSTEM_METRICS": "true"}
    return {**variables, **config.environment_variables()}


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")
