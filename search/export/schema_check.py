"""Check exported files against the schemas that their platforms publish."""

from __future__ import annotations

import functools
import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

from search.export.exported_files import Check
from serving.platforms.files import PlatformFiles, read_documents

#: Version of Kubernetes whose schemas are used: the oldest with every field that is exported.
KUBERNETES_VERSION = "1.31"
#: KServe's InferenceService; `$comment` in it names its source.
INFERENCE_SERVICE_SCHEMA = Path(__file__).parent / "schemas" / "inference_service.json"
#: The request that each of SageMaker's files is: service, operation.
SAGEMAKER_REQUESTS = {
    "create_model.json": ("sagemaker", "CreateModel"),
    "create_endpoint_config.json": ("sagemaker", "CreateEndpointConfig"),
    "create_endpoint.json": ("sagemaker", "CreateEndpoint"),
    "scalable-target.json": ("application-autoscaling", "RegisterScalableTarget"),
    "scaling-policy.json": ("application-autoscaling", "PutScalingPolicy"),
}
_YAML_SUFFIXES = (".yaml", ".yml")
#: The command of a setting of a unit; behind special characters such as `-`.
_COMMAND = re.compile(
    r"^([ \t]*Exec(?:Condition|Reload|(?:Start|Stop)(?:Pre|Post)?)[ \t]*=[ \t]*[-@:+!|]*)[^\s;]+",
    re.MULTILINE,
)
_CONTINUED = re.compile(r"\\\n[ \t]*")
#: Of one file, in the output.
_MAX_PROBLEMS = 3


class _Unavailable(Exception):
    """A schema cannot be checked here; the text is a phrase for the user."""


def check_schemas(platform: PlatformFiles) -> tuple[list[Check], tuple[str, ...]]:
    """Check the files of a platform.

    Returns:
        A check for each file that has a schema, and what could not be checked, a phrase each.

    Raises:
        ConfigError: a file cannot be read.
    """
    checks: list[Check] = []
    unavailable: dict[str, None] = {}
    for path, problems in _checked_files(platform):
        try:
            found = "; ".join(itertools.islice(problems, _MAX_PROBLEMS))
        except _Unavailable as error:
            unavailable[str(error)] = None
            continue
        checks.append(Check(f"schema of {path.name}", not found, found or "valid"))
    return checks, tuple(unavailable)


def _checked_files(platform: PlatformFiles) -> Iterator[tuple[Path, Iterator[str]]]:
    """Yield each file with a schema, and its problems."""
    for path in platform.sources:
        if path.suffix == ".service":
            yield path, _unit_problems(path)
        elif path.suffix in _YAML_SUFFIXES and platform.platform in ("kserve", "kubernetes"):
            for document in read_documents(path):
                yield path, _manifest_problems(path, document)
    if platform.platform == "sagemaker":
        folder = platform.sources[0].parent
        for name in SAGEMAKER_REQUESTS:
            if (folder / name).is_file():
                yield folder / name, _request_problems(folder / name)


def _manifest_problems(path: Path, document: Mapping[str, Any]) -> Iterator[str]:
    if document.get("kind") == "InferenceService":
        yield from map(_problem, _inference_service().iter_errors(document))
    else:
        yield from _kubernetes_problems(path, document)


@functools.cache
def _inference_service() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(INFERENCE_SERVICE_SCHEMA.read_text()))


def _problem(error: jsonschema.ValidationError) -> str:
    """Return a sentence; it shows no value that may be a secret."""
    place = error.json_path.removeprefix("$.")
    if error.validator == "type":
        kinds = error.validator_value
        wanted = kinds if isinstance(kinds, str) else " or ".join(k for k in kinds if k != "null")
        return f"{place} must be of the type {wanted} (got {type(error.instance).__name__})"
    return f"{place}: {error.message}"


def _kubernetes_problems(path: Path, document: Mapping[str, Any]) -> Iterator[str]:
    try:
        import kubernetes_validate
    except ImportError:
        raise _Unavailable(
            "the manifests against Kubernetes' schemas: pip install 'servetune[deploy]'"
        ) from None
    for key in ("apiVersion", "kind"):
        if not isinstance(document.get(key, ""), str):
            yield f"{key} must be of the type string"
            return
    missing = kubernetes_validate.utils.SchemaNotFoundError
    try:
        kubernetes_validate.validate(dict(document), KUBERNETES_VERSION, strict=True)
    except jsonschema.ValidationError as error:
        yield _problem(error)
    except (missing, KeyError):
        kind = document.get("kind", "a document without a kind")
        raise _Unavailable(f"{path.name}: Kubernetes has no schema for {kind}") from None


def _request_problems(path: Path) -> Iterator[str]:
    try:
        from botocore.validate import ParamValidator
    except ImportError:
        raise _Unavailable(
            "the requests to SageMaker against botocore's model: pip install 'servetune[deploy]'"
        ) from None
    try:
        request = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        yield f"not valid JSON: {error}"
        return
    problems = ParamValidator().validate(request, _input_shape(*SAGEMAKER_REQUESTS[path.name]))
    if problems.has_errors():
        for line in problems.generate_report().split("\n"):
            yield re.sub(r"value: .*, (type|valid)", r"\1", line)


@functools.cache
def _input_shape(service: str, operation: str) -> Any:
    from botocore.session import get_session

    return get_session().get_service_model(service).operation_model(operation).input_shape


def _unit_problems(path: Path) -> Iterator[str]:
    """Yield what systemd-analyze reports; the commands in it need not be installed here."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        raise _Unavailable("the unit by systemd-analyze, which is not installed")
    with tempfile.TemporaryDirectory(prefix="servetune-unit-") as folder:
        copy = Path(folder) / path.name
        command = shutil.which("true") or "/bin/true"
        lines = _CONTINUED.sub(" ", path.read_text())
        copy.write_text(_COMMAND.sub(lambda match: f"{match[1]}{command}", lines))
        done = subprocess.run(
            [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True
        )
    for line in done.stderr.splitlines():
        if path.name in line:
            yield line.replace(f"{copy}:", "line ").replace(str(copy), path.name)
    if done.returncode:
        yield f"systemd-analyze verify: exit status {done.returncode}"
