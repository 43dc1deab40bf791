"""Environment variables of a server: the forms of a file that holds them, and secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from serving.configuration.properties import KNOWN_KEYS
from serving.configuration.reading import VARIABLES
from serving.errors import ConfigError

REDACTED = "<secret>"
#: A variable is a secret if a word of its name is, or ends in, one of these.
_SECRET_ENDS = ("SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "TOKEN", "APIKEY")
_SECRET_WORDS = frozenset(
    [
        *("AUTH", "AUTHORIZATION", "BEARER", "COOKIE", "COOKIES", "CREDENTIAL", "CREDENTIALS"),
        *("DSN", "KEY", "KEYS", "PASS", "PAT", "PW", "PWD", "SALT", "SAS", "WEBHOOK"),
    ]
)
#: Keys of access tokens, a URL with a password or a signature, private keys, and settings such as
#: `AccountKey=…` or `-Djavax.net.ssl.keyStorePassword=…` in a longer text.
_SECRET_VALUE = re.compile(
    r"(?:.*[^\w/.-])?(hf_|gh[pousr]_|github_pat_|glpat-|sk-|AKIA|ASIA|xox[abp]-|eyJ)[\w-]{8,}.*"
    r"|.*://[^/\s:@]*:[^/\s@]+@.*"
    r"|.*-----BEGIN [A-Z ]*PRIVATE KEY-----.*"
    r"|.*[?&]sig=[^\s&;]+.*"
    r"|.*\bBearer \S{8,}.*"
    r"|.*https://hooks\.[\w.-]+/.*"
    r"|.*(?i:(?:account|shared|access|api|secret|licen[cs]e)_?key|password|passwd|pwd|secret|token"
    r"|signature)=[^\s&;]+.*",
    re.DOTALL,
)
#: The name of a property among JVM arguments.
_JVM_PROPERTY = re.compile(r"""(?:^|[\s"'])-D([^\s"'=]+)=""")
#: Names of variables that servers have; a shell's have no dot and no hyphen.
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
#: Names that a shell can set, and so a file of lines NAME=value that it reads.
SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Set by the image of SageMaker's PyTorch container, and so not by a request to SageMaker.
SERVING_MODULE = {"SAGEMAKER_SERVING_MODULE": "sagemaker_pytorch_serving_container.serving:main"}
#: Set by SageMaker for an endpoint of several models.
MULTI_MODEL = {"SAGEMAKER_MULTI_MODEL": "true"}
_NO_SECRETS = (KNOWN_KEYS | set(VARIABLES.values())) - {"keystore_pass", "TS_KEYSTORE_PASS"}
#: Variables that change how fast a worker computes, not what it needs to serve the model.
_SPEED_PREFIXES = (
    *("DNNL_", "GOMP_", "KMP_", "MALLOC_", "MKL_", "NUMEXPR_", "OMP_", "ONEDNN_", "OPENBLAS_"),
    *("TCMALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"),
)


def parse_environment(text: str) -> dict[str, str]:
    """Read an environment file: lines `NAME=value`, or a JSON object of variables.

    Values of lines may be quoted. JSON may have the variables under the key "Environment", also
    in the "PrimaryContainer" of a request to SageMaker, or be a list of objects with "name" and
    "value", as in a task of ECS or a container of Kubernetes; a value from elsewhere is a secret.

    Raises:
        ConfigError: a line is not NAME=value, or the JSON is no object of texts and numbers.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith(("{", "[")):
        return _parse_json(text)
    variables = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name):
            # The line may be part of a secret.
            raise ConfigError(f"line {number} of the environment file is not NAME=value")
        if len(value) > 1 and value[0] == value[-1] == "'":
            value = value[1:-1].replace("'\\''", "'")
        elif len(value) > 1 and value[0] == value[-1] == '"':
            value = re.sub(r'\\(["$`\\])', r"\1", value[1:-1])
        variables[name] = value
    return variables


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _parse_json(text: str) -> dict[str, str]:
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the environment file is not valid JSON: {error}") from None
    if isinstance(data, list):
        if not all(isinstance(entry, dict) for entry in data):
            raise ConfigError(
                "the environment file must be a list of objects with name and value, or an object"
            )
        pairs = [(entry.get("name"), _value_of(entry)) for entry in data]
    else:
        pairs = list(_variables_of(data).items())
    variables = {}
    for name, value in pairs:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError("the environment file has a variable without a valid name")
        if isinstance(value, bool):
            value = str(value).lower()
        if not isinstance(value, str | int | float):
            raise ConfigError(
                f"the environment file: variable {name} must be a text or a number (got "
                f"{type(value).__name__})"
            )
        variables[name] = str(value)
    return variables


def _value_of(entry: Mapping[str, Any]) -> Any:
    """Return the value in an entry of a container: that of a Secret is not known."""
    value = entry.get("value")
    if value is None:
        return REDACTED if entry.get("valueFrom") else ""
    return value


def _configures_torchserve(container: Any) -> bool:
    variables = container.get("Environment") if isinstance(container, dict) else None
    return isinstance(variables, dict) and any(
        name.startswith(("SAGEMAKER_TS_", "SAGEMAKER_MODEL_SERVER_", "TS_")) for name in variables
    )


def _variables_of(data: dict[str, Any]) -> dict[str, Any]:
    """Return the variables in a JSON object, which may be a request to SageMaker.

    Those of a request have the variables that SageMaker and the container's image add.

    Raises:
        ConfigError: they are no object.
    """
    found: Any = data
    containers = [c for c in (data.get("PrimaryContainer"), *_as_list(data.get("Containers"))) if c]
    if len(containers) > 1:
        # Of several containers in a pipeline, one runs TorchServe.
        containers = [c for c in containers if _configures_torchserve(c)] or containers
        if len(containers) > 1:
            raise ConfigError(
                f"the environment file has {len(containers)} containers, of which any may run "
                "TorchServe; pass the variables of one"
            )
    is_request = bool(containers)
    found = containers[0] if is_request else found
    if isinstance(found, dict):
        found = found.get("Environment", {} if is_request else found)
    if not isinstance(found, dict):
        raise ConfigError("the environment file must be a JSON object of variables")
    if not is_request:
        return found
    is_multi_model = containers[0].get("Mode") == "MultiModel"
    return {**SERVING_MODULE, **found, **(MULTI_MODEL if is_multi_model else {})}


def is_secret(name: str, value: str) -> bool:
    """Return whether the value of a variable or property must neither be printed nor stored.

    >>> is_secret("HF_TOKEN", "x"), is_secret("TOKENIZERS_PARALLELISM", "true")
    (True, False)
    """
    if name == "vmargs":  # A server cannot start without them.
        return value == REDACTED
    is_named = name not in _NO_SECRETS and _is_secret_name(name)
    # As in JAVA_TOOL_OPTIONS.
    is_named = is_named or any(map(_is_secret_name, _JVM_PROPERTY.findall(value)))
    # Texts of several lines are files: keys, certificates, credentials.
    is_file = "\n" in value.strip()
    return value == REDACTED or is_named or is_file or _SECRET_VALUE.fullmatch(value) is not None


def _is_secret_name(name: str) -> bool:
    words = re.split(r"[^A-Z0-9]+", name.upper())
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words)


def redacted(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables or properties for printing: a secret's value is replaced."""
    return {k: REDACTED if is_secret(k, v) else v for k, v in variables.items()}


def secret_variable(key: str) -> str:
    """Return the name of the variable that stands for a property whose value is a secret."""
    return f"SERVETUNE_{key.upper()}"


def escaped(text: str) -> str:
    """Return the value of a variable `$$NAME$$` that TorchServe reads as this text.

    TorchServe reads the value as a replacement of Java's Matcher.
    """
    return re.sub(r"([\\$])", r"\\\1", text)


def changes_speed(name: str) -> bool:
    """Return whether a variable sets how a worker computes: threads, memory allocation."""
    return name.startswith(_SPEED_PREFIXES)
