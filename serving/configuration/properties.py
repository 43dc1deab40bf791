"""The keys of config.properties that TorchServe reads.

TorchServe ignores unknown keys, so a trial of a misspelt key would measure nothing. The newest
version reads every key that an earlier supported one reads; versions.py has the keys that came
later.
Source: org.pytorch.serve.util.ConfigManager of 0.12.0.
"""

from __future__ import annotations

import re

INTEGER_KEYS = frozenset(
    [
        "default_response_timeout",
        "default_startup_timeout",
        "default_workers_per_model",
        "initial_distribution_port",
        "initial_worker_port",
        "io_ratio",
        "job_queue_size",
        "max_request_size",
        "max_response_size",
        "metric_time_interval",
        "netty_client_threads",
        "number_of_gpu",
        "number_of_netty_threads",
        "unregister_model_timeout",
    ]
)

#: Numbers that TorchServe reads as Java's `long`.
LONG_KEYS = frozenset(
    f"grpc_{api}_max_connection_age_{suffix}"
    for api in ("inference", "management")
    for suffix in ("ms", "grace_ms")
)

BOOLEAN_KEYS = frozenset(
    [
        "async_logging",
        "cpu_launcher_enable",
        "decode_input_request",
        "disable_system_metrics",
        "disable_token_authorization",
        "enable_envvars_config",
        "enable_grpc_ssl",
        "enable_metrics_api",
        "enable_model_api",
        "install_py_dep_per_model",
        "ipex_enable",
        "ipex_gpu_enable",
        "limit_max_image_pixels",
        "model_metrics_auto_detect",
        "prefer_direct_buffer",
        "ts_open_inference_protocol",
        "use_env_allowed_urls",
        "use_native_io",
    ]
)

TEXT_KEYS = frozenset(
    [
        "allowed_urls",
        "blacklist_env_vars",
        "certificate_file",
        "cors_allowed_headers",
        "cors_allowed_methods",
        "cors_allowed_origin",
        "cpp_log_config",
        "cpu_launcher_args",
        "default_service_handler",
        "grpc_inference_address",
        "grpc_inference_port",
        "grpc_management_address",
        "grpc_management_port",
        "inference_address",
        "keystore",
        "keystore_pass",
        "keystore_type",
        "load_models",
        "management_address",
        "metrics_address",
        "metrics_config",
        "metrics_mode",
        "model_server_home",
        "model_snapshot",
        "model_store",
        "models",
        "plugins_path",
        "private_key_file",
        "service_envelope",
        "system_metrics_cmd",
        "token_expiration_min",
        "ts_header_key_sequence_end",
        "ts_header_key_sequence_id",
        "ts_header_key_sequence_start",
        "version",
        "vmargs",
        "workflow_store",
    ]
)

KNOWN_KEYS = INTEGER_KEYS | LONG_KEYS | BOOLEAN_KEYS | TEXT_KEYS

#: Keys that servetune sets in every configuration: addresses, model, metrics. The values of
#: a file that is read are overridden and reported.
SET_BY_SERVETUNE = frozenset(
    [
        "disable_system_metrics",
        "disable_token_authorization",
        "grpc_inference_address",
        "grpc_inference_port",
        "grpc_management_address",
        "grpc_management_port",
        "inference_address",
        "load_models",
        "management_address",
        "metrics_address",
        "metrics_config",
        "metrics_mode",
        "model_server_home",
        "model_snapshot",
        "model_store",
        "version",
    ]
)

#: The variables that would override them if `enable_envvars_config` is true.
VARIABLES_SET_BY_SERVETUNE = frozenset(f"TS_{key.upper()}" for key in SET_BY_SERVETUNE)

#: Envelopes that pass only the first request of a batch to the handler. TorchServe then answers
#: every batch of several requests with status 503, "number of batch response mismatched".
#: Source: ts/torch_handler/request_envelope of 0.9.0 and 0.12.0.
UNBATCHED_ENVELOPES = frozenset(["kserve", "kservev2"])

#: Keys of the server's certificate.
TLS_KEYS = frozenset(
    [
        "certificate_file",
        "enable_grpc_ssl",
        "keystore",
        "keystore_pass",
        "keystore_type",
        "private_key_file",
    ]
)

#: Properties without which a model may not be served, or not answer as it does today.
ESSENTIAL_KEYS = frozenset(
    [
        "allowed_urls",
        "blacklist_env_vars",
        "cpp_log_config",
        "decode_input_request",
        "default_service_handler",
        "default_startup_timeout",
        "install_py_dep_per_model",
        "limit_max_image_pixels",
        "max_request_size",
        "max_response_size",
        "plugins_path",
        "service_envelope",
        "ts_header_key_sequence_end",
        "ts_header_key_sequence_id",
        "ts_header_key_sequence_start",
        "ts_open_inference_protocol",
        "use_env_allowed_urls",
    ]
)
#: The same for the keys of a model's entry.
ESSENTIAL_MODEL_KEYS = frozenset(["runtimeType", "startupTimeout"])


def read_int(text: str) -> int | None:
    """Return what Java's Integer.parseInt returns; None if it throws an exception."""
    return _read_number(text, 31)


def read_long(text: str) -> int | None:
    """Return what Java's Long.parseLong returns; None if it throws an exception."""
    return _read_number(text, 63)


def _read_number(text: str, bits: int) -> int | None:
    # Python refuses texts of more than 4300 digits; a `long` has 19, and zeros before them.
    match = re.fullmatch(r"([+-]?)0*(?=\d)(\d{1,19})", text)
    if match is None:
        return None
    number = int(match[1] + match[2])
    return number if -(2**bits) <= number < 2**bits else None


def check_property(name: str, value: str) -> str | None:
    """Return the problem with one property, or None.

    >>> check_property("job_queue_size", "ten")
    "property job_queue_size must be an integer (got 'ten')"
    """
    if name not in KNOWN_KEYS:
        return f"property {name} is not known to TorchServe and would be ignored"
    if (name in INTEGER_KEYS and read_int(value) is None) or (
        name in LONG_KEYS and read_long(value) is None
    ):
        return f"property {name} must be an integer (got {value!r})"
    if name in BOOLEAN_KEYS and value not in ("true", "false"):
        return f"property {name} must be true or false (got {value!r})"
    if "\n" in value or "\r" in value:
        return f"property {name} must not contain line breaks (got {value!r})"
    return None
