"""Notes on what a reader of a deployment's files may not expect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from serving.archive import Archive
from serving.configuration.config import MODEL_NUMBERS, ServerConfig
from serving.configuration.jvm import redact_arguments
from serving.configuration.properties import BOOLEAN_KEYS, UNBATCHED_ENVELOPES
from serving.configuration.reading import START_KEYS, VARIABLES
from serving.configuration.sagemaker import LONG_DELAY_MS, unknown_variables


def config_notes(config: ServerConfig, variables: Mapping[str, str]) -> Iterator[str]:
    """Yield a note on each setting that is easily misunderstood."""
    if (delay_ms := config.max_batch_delay_ms or 0) >= LONG_DELAY_MS:
        yield (
            f"the batch delay is {delay_ms} ms, {delay_ms / 1000:g} s: TorchServe counts "
            "milliseconds, not microseconds"
        )
    if config.workers is not None and "maxWorkers" in config.model_properties:
        yield (
            f"minWorkers is {config.workers}, maxWorkers {config.model_properties['maxWorkers']}: "
            "TorchServe starts minWorkers, and does not scale by itself"
        )
    envelope = config.properties.get("service_envelope")
    if envelope in UNBATCHED_ENVELOPES:
        in_use = f" (in use: {config.batch_size})" if (config.batch_size or 1) > 1 else ""
        yield (
            f"service_envelope={envelope} passes only the first request of a batch to the handler, "
            f"and TorchServe fails the others: batch_size must be 1{in_use}"
        )
    for name in unknown_variables(variables):
        yield f"variable {name} is not known to TorchServe and has no effect"
    if "-XX:-UseContainerSupport" in config.jvm:
        yield (
            "vmargs has -XX:-UseContainerSupport: in a container, the JVM counts the host's cores "
            "for its threads; set number_of_netty_threads"
        )


def encoding_notes(properties: str) -> Iterator[str]:
    """Yield a note if the command torchserve cannot read the bytes of the file."""
    try:
        properties.encode("latin-1").decode()
    except UnicodeDecodeError:
        yield (
            "config.properties has bytes that are not UTF-8, which the command torchserve "
            "cannot read; the JVM alone can"
        )
    except UnicodeEncodeError:
        pass  # Text that was not read from a file's bytes.


def start_notes(lines: Mapping[str, str], read_at_start: Mapping[str, str]) -> Iterator[str]:
    """Yield a note for each line that the command torchserve reads otherwise than Java."""
    for key in START_KEYS:
        read = read_at_start.get(key, "")
        if key in lines and (lines[key].split() != read.split() or "$$" in read):
            shown = redact_arguments(lines[key])
            read = redact_arguments(read)
            effect = f"reads it as {read!r}" if key in read_at_start else "does not read it"
            yield (
                f"{key}={shown}: the command torchserve {effect}, because it reads only lines "
                f"of the form {key}=VALUE, without continuation, escapes or variables"
            )


def boolean_notes(lines: Mapping[str, str]) -> Iterator[str]:
    """Yield a note on each boolean that looks like true and is false."""
    for key in sorted(lines.keys() & BOOLEAN_KEYS):
        text = lines[key]
        if text.lower() != "true" and text.strip().lower() in ("true", "yes", "on", "1"):
            yield f"{key}={text!r} is false: TorchServe reads only true, without spaces, as true"


def archive_notes(archive: Archive) -> Iterator[str]:
    """Yield a note for each number of the model-config.yaml that TorchServe does not take."""
    for key in (*MODEL_NUMBERS, "startupTimeout", "jobQueueSize"):
        if key not in archive.settings:
            continue
        given, taken = archive.settings[key], archive.effective_settings.get(key)
        if type(given) is not int:
            yield f"model-config.yaml: {key} is {given!r}, not an integer; TorchServe ignores it"
        elif taken is None:
            reason = " without both minWorkers and maxWorkers" if key.endswith("Workers") else ""
            yield f"model-config.yaml: TorchServe ignores {key} {given}{reason}"
        elif taken != given:
            yield f"model-config.yaml: TorchServe takes {key} {given} as {taken}"


def environment_notes(
    environment: Mapping[str, str], reads_variables: bool, unnamed: Sequence[str], is_debug: bool
) -> Iterator[str]:
    """Yield a note on each variable that has no effect or another one than expected.

    Args:
        reads_variables: whether variables TS_* set properties.
        unnamed: variables that no shell can set.
        is_debug: whether TorchServe would run in its debug mode.
    """
    if not reads_variables and (idle := _idle_variables(environment)):
        yield (
            "variables without effect, because enable_envvars_config is not true: "
            + ", ".join(idle)
        )
    if unnamed:
        yield f"variables that no shell can set, left out: {', '.join(sorted(unnamed))}"
    if is_debug:
        yield (
            "debug is true: TorchServe then starts no workers, but waits for one that is "
            "started by hand; servetune leaves it out"
        )
    if "TS_CONFIG_FILE" in environment:
        yield (
            f"TS_CONFIG_FILE is {environment['TS_CONFIG_FILE']}: TorchServe reads that file "
            "and no other; servetune reads the one that it is given"
        )


def _idle_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables TS_* that set properties only with `enable_envvars_config`."""
    read_anyway = {"TS_MODEL_SERVER_HOME", "TS_OPEN_INFERENCE_PROTOCOL"}
    return sorted(environment.keys() & set(VARIABLES.values()) - read_anyway)


def is_debug(
    lines: Mapping[str, str], jvm: Mapping[str, str], variables: Mapping[str, str]
) -> bool:
    """Return whether TorchServe would run in its debug mode."""
    texts = (variables.get("TS_DEBUG", lines.get("debug", "")), jvm.get("-DTS_DEBUG", ""))
    return any(text.lower() == "true" for text in texts)
