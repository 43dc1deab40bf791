"""What runs today: a config.properties and its server's environment, read as TorchServe does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from serving.archive import Archive
from serving.configuration.config import (
    ARCHIVE_KEYS,
    MODEL_KEYS,
    MODEL_NUMBERS,
    MODEL_PROPERTIES,
    SERVER_KEYS,
    THREAD_VARIABLES,
    ServerConfig,
)
from serving.configuration.deployment_notes import (
    archive_notes,
    boolean_notes,
    config_notes,
    encoding_notes,
    environment_notes,
    is_debug,
    start_notes,
)
from serving.configuration.environment import (
    REDACTED,
    SHELL_NAME,
    escaped,
    is_secret,
    redacted,
    secret_variable,
)
from serving.configuration.ignored import find_ignored_settings
from serving.configuration.jvm import JVM_VARIABLE, format_variable, parse_jvm, take_secrets
from serving.configuration.key_pair import PASSWORD, KeyPair
from serving.configuration.models import (
    RUNTIMES,
    OtherModel,
    find_models,
    read_model_int,
    without_urls,
)
from serving.configuration.properties import (
    SET_BY_SERVETUNE,
    TLS_KEYS,
    VARIABLES_SET_BY_SERVETUNE,
    read_int,
)
from serving.configuration.reading import (
    VARIABLES,
    fill_in,
    parse_lines,
    read_properties,
    start_lines,
)
from serving.configuration.sagemaker import (
    is_sagemaker,
    sagemaker_notes,
    sagemaker_properties,
)
from serving.configuration.secret_lines import has_secret, secret_variables
from serving.configuration.versions import NEWEST
from serving.errors import ConfigError
from serving.installation import Installation

#: Keys of a file that servetune sets itself, and those of TLS that have no effect. The snapshot
#: holds the model's settings.
_NOT_READ = SET_BY_SERVETUNE - {"model_snapshot"} | TLS_KEYS
#: Variables of the place, not of the configuration.
_PLACE_VARIABLES = frozenset(
    [
        *("HOME", "LOGNAME", "LOG_LOCATION", "METRICS_LOCATION", "PATH", "PWD", "TEMP", "TMPDIR"),
        *("TS_CONFIG_FILE", "TS_DEBUG", "TS_MODEL_SERVER_HOME", "USER"),
    ]
)
#: JVM arguments of the place.
_PLACE_FLAGS = ("-DTS_DEBUG", "-Djava.io.tmpdir", "-Dmodel_server_home")
#: Keys of a model's entry that are always written and are not settings.
_MODEL_IDENTITY = ("defaultVersion", "marName")


@dataclass(frozen=True)
class Deployment:
    """A configuration in use.

    Attributes:
        config: its settings; effective, also where the archive or a default decides them.
        archive: the model, under the name that it is registered with.
        unused: entries by key that are not part of the configuration: servetune sets them,
            TorchServe ignores them, or the archive's model-config.yaml overrides them.
        others: models of the server that are left out; `with_models` adds them.
        beside: the archives of the models that are served beside this one; `config.models` has
            their settings.
        has_models: whether it is known which of the other models are served, `beside`.
        loads_all: whether the server loads every archive in its model store.
        model_store: the folder of its archives, as the file names it; empty if it names none.
        is_snapshot: whether the settings of the models are those of a `model_snapshot`.
        notes: what a reader of the files may not expect.
        secrets: variables that the server needs, and whose values are never stored or printed.
        version: the key of the model's entry; TorchServe ignores a snapshot's.
        reads_variables: whether variables TS_* set properties.
        key_pair: that of an https inference address; None if it is http.
        from_secrets: numbers and names by key that a secret variable sets; not secrets themselves.
        secret_flags: the JVM arguments of `vmargs` that are secrets, by flag.
    """

    config: ServerConfig
    archive: Archive
    unused: Mapping[str, str] = field(default_factory=dict)
    others: tuple[OtherModel, ...] = ()
    beside: tuple[Archive, ...] = ()
    has_models: bool = False
    loads_all: bool = False
    model_store: str = ""
    is_snapshot: bool = False
    notes: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    version: str = ""
    reads_variables: bool = False
    key_pair: KeyPair | None = None
    secret_flags: tuple[str, ...] = ()
    from_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        properties: str | None,
        environment: Mapping[str, str],
        archive: Archive,
        more_secrets: Mapping[str, str] = MappingProxyType({}),
        line_secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> Deployment:
        """Read a deployment.

        Args:
            properties: the text of config.properties. None if there is only an environment:
                SageMaker's container writes the file from its variables; elsewhere TS_* count.
            more_secrets: variables that are secrets whatever they are called.
            line_secrets: the secrets in the lines of the original, which this text, a run's copy,
                leaves out; see `secret_values`.

        Raises:
            ConfigError: TorchServe would not start with this.
        """
        secrets = {k: v for k, v in environment.items() if is_secret(k, v)}
        # In a run's copy of the environment, the values of secrets are left out.
        secrets |= {k: v for k, v in more_secrets.items() if k in secrets or k not in environment}
        variables = {k: v for k, v in environment.items() if k not in secrets}
        notes = []
        if properties is None:
            if is_sagemaker(environment):
                # A secret in the variable reaches the JVM through the environment alone.
                properties = sagemaker_properties(variables, archive)
                notes = sagemaker_notes(environment, archive)
                variables = {
                    k: v
                    for k, v in variables.items()
                    if not k.startswith("SAGEMAKER_") and k != JVM_VARIABLE
                }
            else:
                properties = "enable_envvars_config=true\n"
                notes = ["no config.properties: its line enable_envvars_config=true is assumed"]
        for name in secret_variables(properties, {**variables, **secrets}) & variables.keys():
            secrets[name] = variables.pop(name)
        values = {k: None if v == REDACTED else v for k, v in secrets.items()}
        lines, unused, hidden = read_properties(properties, variables, values)
        from_secrets = {key: lines[key] for key in hidden}
        if "load_models" in from_secrets:
            from_secrets["load_models"] = without_urls(lines["load_models"])
        for key in [key for key, text in lines.items() if has_secret(key, text)]:
            lines[key] = fill_in(key, lines[key], secrets)
        reads_variables = lines.get("enable_envvars_config") == "true"
        if reads_variables:  # They are among the lines now.
            variables = {k: v for k, v in variables.items() if k not in VARIABLES.values()}
            read = {VARIABLES.get(key) for key in hidden}
            secrets = {k: v for k, v in secrets.items() if k not in read or v == REDACTED}
        for name in VARIABLES_SET_BY_SERVETUNE & secrets.keys():
            del secrets[name]
            unused[name] = REDACTED
        for name in (_PLACE_VARIABLES | VARIABLES_SET_BY_SERVETUNE) & variables.keys():
            unused[name] = variables.pop(name)
        models = find_models(lines, archive)
        archive = archive.registered_as(models.name)
        key_pair = KeyPair.take(lines)
        if key_pair is not None and key_pair.password == REDACTED:
            password = line_secrets.get(secret_variable(PASSWORD), REDACTED)
            key_pair = replace(key_pair, password=password)
        settings, entry, entry_unused = _model_settings(models.entry, models.is_snapshot, archive)
        not_read = {key: lines.pop(key) for key in list(lines) if key in _NOT_READ}
        unused |= entry_unused | {k: hidden.get(k, text) for k, text in not_read.items()}
        for key in ("models", "model_snapshot"):
            lines.pop(key, None)
        settings |= _server_settings(lines)
        if "jobQueueSize" in archive.overridden_keys and "job_queue_size" in settings:
            unused["job_queue_size"] = str(settings.pop("job_queue_size"))
        counts = {variables.get(name) for name in THREAD_VARIABLES}
        count = counts.pop() if len(counts) == 1 else None
        if count and count.isdecimal() and (threads := read_int(count)):
            settings["mkl_threads"] = threads
            variables = {k: v for k, v in variables.items() if k not in THREAD_VARIABLES}
        if "workers" not in settings and not models.is_snapshot:
            settings |= _default_workers(lines)
        model_store = lines.get("model_store", unused.get("model_store", ""))
        lines.pop("vmargs", None)
        written, read_at_start = parse_lines(properties), start_lines(properties)
        jvm = parse_jvm(read_at_start.get("vmargs", ""))
        secret_flags = _move_secrets(lines, jvm, secrets, line_secrets)
        debug = is_debug(unused, jvm, environment if reads_variables else {})
        unused |= {flag: jvm.pop(flag) for flag in _PLACE_FLAGS if flag in jvm}
        unnamed = [name for name in variables if not SHELL_NAME.fullmatch(name)]
        variables = {k: v for k, v in variables.items() if k not in unnamed}
        config = ServerConfig(
            **{**settings, **archived_settings(archive, models.is_snapshot)},
            properties=lines,
            environment=variables,
            jvm=jvm,
            model_properties=entry,
        )
        notes += [
            *models.notes,
            *config_notes(config, variables),
            *encoding_notes(properties),
            *start_notes(written, read_at_start),
            *boolean_notes(written),
            *archive_notes(archive),
            *environment_notes(environment, reads_variables, unnamed, debug),
        ]
        return cls(
            config,
            archive,
            unused,
            models.others,
            loads_all=models.loads_all,
            model_store=model_store,
            is_snapshot=models.is_snapshot,
            notes=tuple(notes),
            secrets=secrets,
            version=models.version,
            reads_variables=reads_variables,
            key_pair=key_pair,
            secret_flags=secret_flags,
            from_secrets=from_secrets,
        )

    @classmethod
    def of_archive(cls, archive: Archive) -> Deployment:
        """Return TorchServe's defaults for an archive, with what its model-config.yaml decides."""
        return cls(ServerConfig(**archived_settings(archive)), archive, version=archive.version)

    @property
    def other_models(self) -> tuple[str, ...]:
        """The models of the server that are left out, `NAME VERSION` or a name."""
        return tuple(str(model) for model in self.others)

    def with_models(
        self, archives: Sequence[Archive], left_out: Sequence[OtherModel] | None = None
    ) -> Deployment:
        """Return the deployment with other models beside this one, with their own settings.

        Args:
            archives: of the models, under the names that they are registered with.
            left_out: models of the server that are not among them; None to compare their names.

        Raises:
            ConfigError: TorchServe would not start with an entry.
        """
        if left_out is None:
            names = {archive.name for archive in archives}
            left_out = [model for model in self.others if model.name not in names]
        models: dict[str, dict[str, Any]] = {}
        unused = dict(self.unused)
        for archive in archives:
            settings, ignored = self._settings_of(archive)
            models |= {archive.name: settings} if settings else {}
            unused |= {f"models.{archive.name}.{key}": text for key, text in ignored.items()}
        return replace(
            self,
            config=replace(self.config, models=models),
            others=tuple(left_out),
            beside=tuple(archives),
            has_models=True,
            unused=unused,
        )

    def _settings_of(self, archive: Archive) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the effective settings of another model, and the entries without effect."""
        entries = [
            model.entry
            for model in self.others
            # TorchServe does not read the version in a snapshot.
            if model.name == archive.name and (self.is_snapshot or model.version == archive.version)
        ]
        entry = entries[0] if entries else {}
        settings, properties, unused = _model_settings(entry, self.is_snapshot, archive)
        archived = archived_settings(archive, self.is_snapshot)
        archived.pop("job_queue_size", None)  # The archive keeps it.
        # Not every trial has these lines of the server.
        defaults = {}
        if not self.is_snapshot:
            defaults["workers"] = self._positive("default_workers_per_model")
        if not archive.settings:
            defaults["response_timeout_s"] = self._positive("default_response_timeout")
        defaults = {name: number for name, number in defaults.items() if number}
        return {**defaults, **settings, **archived, **properties}, unused

    def _positive(self, key: str) -> int:
        return max(read_int(self.config.properties.get(key, "0")) or 0, 0)

    @property
    def place_jvm(self) -> dict[str, str]:
        """The JVM arguments of the place, by flag, which are not part of the configuration."""
        return {flag: self.unused[flag] for flag in _PLACE_FLAGS if flag in self.unused}

    def summary(self, installation: Installation | None) -> list[str]:
        """Return a sentence on each part of the deployment that has no effect or is left out.

        Args:
            installation: of the TorchServe that will run it; None if it is not known.
        """
        sentences, version = list(self.notes), installation.version if installation else NEWEST
        known, later = dict(self.config.properties), dict(self.unused)
        later |= {key: known.pop(key) for key in list(known) if not version.reads(key)}
        later |= {
            key: str(value)
            for key, value in self.config.model_properties.items()
            if key in version.later_model_keys
        }
        if ignored := find_ignored_settings(known, installation, self.archive):
            sentences.append(ignored)
        place = {*SET_BY_SERVETUNE, *_PLACE_VARIABLES, *_PLACE_FLAGS, "debug"}
        of_place = {k: later.pop(k) for k in list(later) if k in place}
        for what, entries in (
            (
                "entries without effect (TorchServe ignores them, or the archive's "
                "model-config.yaml overrides them)",
                later,
            ),
            ("entries that servetune replaces in its own server", of_place),
        ):
            if entries:
                listed = sorted(redacted(entries).items())
                sentences.append(f"{what}: {', '.join(f'{key}={text}' for key, text in listed)}")
        if self.key_pair is not None:
            sentences.append(self.key_pair.describe())
        others = [model for model in self.others if model.name != self.archive.name]
        if versions := [str(model) for model in self.others if model not in others]:
            sentences.append(f"other versions of the model, left out: {', '.join(versions)}")
        if same := [str(model) for model in others if model.file == self.archive.path.name]:
            sentences.append(f"other names of the same archive, left out: {', '.join(same)}")
        others = [model for model in others if model.file != self.archive.path.name]
        if others:
            names = ", ".join(map(str, others))
            sentences.append(
                f"other models, left out: {names}"
                if self.has_models
                else f"other models: {names}; a run serves them too (see serving.models)"
            )
        for archive in self.beside:
            settings = self.config.models.get(archive.name, {})
            given = ", ".join(f"{key}={value}" for key, value in settings.items())
            sentences.append(
                f"the model {archive.name} {archive.version} is served beside it "
                f"({given or 'default settings'})"
            )
        if self.secret_flags:
            sentences.append(
                f"vmargs has a secret, {', '.join(self.secret_flags)}: the server gets it through "
                f"{JVM_VARIABLE}, and no file of a run has it"
            )
        if self.secrets:
            sentences.append(
                f"secrets, given to every server and not stored: {', '.join(sorted(self.secrets))}"
            )
        return sentences


def archived_settings(archive: Archive, is_snapshot: bool = False) -> dict[str, Any]:
    """Return the settings that the archive's model-config.yaml decides, by name.

    Args:
        is_snapshot: whether the server reads a `model_snapshot`, which wins over the archive.
    """
    settings = {}
    # A snapshot has no size of the queue.
    by_name = {"job_queue_size": ARCHIVE_KEYS["job_queue_size"]} if is_snapshot else ARCHIVE_KEYS
    for name, keys in by_name.items():
        # The default of a timeout is no setting.
        if keys[0] in archive.settings and keys[0] in archive.effective_settings:
            settings[name] = archive.effective_settings[keys[0]]
    return settings


def _server_settings(lines: dict[str, str]) -> dict[str, Any]:
    """Take the numbers of the server out of its lines; return those that count, by name."""
    settings = {}
    for name, key in SERVER_KEYS.items():
        number = read_int(lines.pop(key, ""))
        # 0 threads means TorchServe's default; a queue of 0 aborts its start and is refused.
        if number is not None and (number != 0 or name == "job_queue_size"):
            settings[name] = number
    return settings


def _default_workers(lines: Mapping[str, str]) -> dict[str, Any]:
    """Return the workers that every model has without an entry, as a setting.

    Raises:
        ConfigError: their number is negative.
    """
    workers = read_int(lines.get("default_workers_per_model", "0")) or 0
    if workers < 0:
        raise ConfigError(
            f"property default_workers_per_model must not be negative (got {workers}); "
            "TorchServe does not start with that"
        )
    return {"workers": workers} if workers else {}


def _move_secrets(
    lines: dict[str, str],
    jvm: dict[str, str],
    secrets: dict[str, str],
    line_secrets: Mapping[str, str],
) -> tuple[str, ...]:
    """Move the secrets in lines and in JVM arguments to variables.

    Args:
        secrets: the variables; the secrets are added.
        line_secrets: the secrets that the lines of a run's copy leave out.

    Returns:
        The flags of the JVM arguments that are secrets.
    """
    arguments = take_secrets(jvm)
    if arguments:
        is_copy = REDACTED in arguments.values()
        text = line_secrets.get(JVM_VARIABLE, REDACTED) if is_copy else format_variable(arguments)
        secrets[JVM_VARIABLE] = f"{secrets.get(JVM_VARIABLE, '')} {text}".strip()
    for key in [key for key, text in lines.items() if has_secret(key, text)]:
        name, text = secret_variable(key), lines[key]
        secrets[name] = escaped(line_secrets.get(name, text) if text == REDACTED else text)
        lines[key] = f"$${name}$$"
    return tuple(arguments)


def _model_settings(
    given: Mapping[str, Any], is_snapshot: bool, archive: Archive
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Return the settings in a model's entry, its other properties, and what has no effect.

    Raises:
        ConfigError: TorchServe would not start with a value.
    """
    entry, unused = dict(given), {}
    archived = frozenset() if is_snapshot else archive.overridden_keys
    for key in (*MODEL_NUMBERS, "startupTimeout"):
        number = read_model_int(key, entry[key]) if key in entry else None
        if key in entry and (number is None or key in archived):
            unused[key] = str(entry.pop(key))
        elif number is not None:
            entry[key] = number
    if not is_snapshot and entry.get("runtimeType", "python") not in RUNTIMES:
        unused["runtimeType"] = str(entry.pop("runtimeType"))
    settings = {name: entry.pop(keys[0]) for name, keys in MODEL_KEYS.items() if keys[0] in entry}
    if entry.get("maxWorkers") == settings.get("workers"):
        entry.pop("maxWorkers", None)
    properties = {k: v for k, v in entry.items() if k in MODEL_PROPERTIES}
    unused |= {
        key: str(value)
        for key, value in entry.items()
        if key not in (*MODEL_PROPERTIES, *_MODEL_IDENTITY)
    }
    return settings, properties, unused
