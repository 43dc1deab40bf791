"""The versions of TorchServe that servetune supports, and how they differ.

Source: ConfigManager, ModelManager, ModelConfig, DescribeModelResponse, ModelServer and
TokenAuthorization of successive versions; each version has also served a model here. 0.8.0 is not
supported: it ignores batchSize and maxBatchDelay in `models`. Earlier ones have no metrics_mode.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.configuration.properties import KNOWN_KEYS

#: The version that servetune installs.
DEFAULT_VERSION = "0.12.0"
#: The supported versions, and the keys of config.properties that each was the first to read.
_NEW_KEYS: dict[str, frozenset[str]] = {
    "0.8.1": frozenset(),
    "0.8.2": frozenset(),
    "0.9.0": frozenset(["use_env_allowed_urls"]),
    "0.10.0": frozenset(
        [
            "cpp_log_config",
            "model_metrics_auto_detect",
            "system_metrics_cmd",
            "token_expiration_min",
            "ts_open_inference_protocol",
        ]
    ),
    "0.11.0": frozenset(
        [
            "grpc_inference_address",
            "grpc_inference_max_connection_age_grace_ms",
            "grpc_inference_max_connection_age_ms",
            "grpc_management_address",
            "grpc_management_max_connection_age_grace_ms",
            "grpc_management_max_connection_age_ms",
            "ts_header_key_sequence_end",
            "ts_header_key_sequence_id",
            "ts_header_key_sequence_start",
        ]
    ),
    "0.11.1": frozenset(["disable_token_authorization", "enable_model_api", "ipex_gpu_enable"]),
    "0.12.0": frozenset(["default_startup_timeout"]),
}
#: The same for keys of a model's entry in `models` and of an archive's model-config.yaml.
_NEW_MODEL_KEYS = {
    "0.9.0": frozenset(["jobQueueSize"]),
    "0.10.0": frozenset(["runtimeType"]),
    "0.12.0": frozenset(["startupTimeout"]),
}


@dataclass(frozen=True)
class TorchServeVersion:
    """What one version of TorchServe does differently from others.

    Attributes:
        number: as on PyPI.
        later_keys: keys of config.properties that only later versions read, with the first one.
        later_model_keys: the same for keys of a model.
        requires_tokens: whether each request needs a token unless that is switched off. Before,
            tokens were a plugin.
        describes_timeouts: whether the description of a model has its response timeout.
        logs_asynchronously: whether `async_logging` has an effect.
    """

    number: str
    later_keys: dict[str, str]
    later_model_keys: dict[str, str]
    requires_tokens: bool
    describes_timeouts: bool
    logs_asynchronously: bool

    def reads(self, key: str) -> bool:
        """Return whether this version reads a key of config.properties."""
        return key in KNOWN_KEYS and key not in self.later_keys

    def problem_with(self, key: str) -> str | None:
        """Return why a key of config.properties would have no effect; None if it is read.

        >>> SUPPORTED["0.9.0"].problem_with("job_queue_size") is None
        True
        """
        if key not in self.later_keys:
            return None
        return (
            f"property {key} is not known to TorchServe {self.number} and would be ignored (known "
            f"since {self.later_keys[key]})"
        )


def _order(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split("."))


def _later(new_keys: dict[str, frozenset[str]], number: str) -> dict[str, str]:
    return {
        key: first
        for first, keys in new_keys.items()
        if _order(first) > _order(number)
        for key in sorted(keys)
    }


SUPPORTED = {
    number: TorchServeVersion(
        number,
        _later(_NEW_KEYS, number),
        _later(_NEW_MODEL_KEYS, number),
        requires_tokens=_order(number) >= (0, 11, 1),
        describes_timeouts=_order(number) >= (0, 11, 0),
        logs_asynchronously=_order(number) < (0, 8, 2),
    )
    for number in _NEW_KEYS
}
NEWEST = SUPPORTED[DEFAULT_VERSION]


def find_version(number: str | None) -> TorchServeVersion | None:
    """Return a supported version by its number, with or without a local part; else None.

    >>> find_version("0.9.0+cu118").number, find_version("0.7.1")
    ('0.9.0', None)
    """
    return SUPPORTED.get((number or "").partition("+")[0])


def supported_versions() -> str:
    """Return the supported versions as text: "0.8.1, …, 0.11.1 and 0.12.0"."""
    *others, last = SUPPORTED
    return f"{', '.join(others)} and {last}"
