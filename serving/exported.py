"""A server that runs exported files as their platform does."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import psutil

from serving.archive import Archive
from serving.configuration.config import ServerConfig, format_environment
from serving.configuration.editing import edit_properties
from serving.configuration.jvm import JVM_VARIABLE, with_secrets
from serving.configuration.properties import TLS_KEYS
from serving.configuration.reading import VARIABLES
from serving.configuration.sagemaker import MODEL_NAME, container_properties
from serving.platforms.files import PlatformFiles
from serving.platforms.kserve import prediction_path
from serving.server import TorchServe, inherited_environment
from serving.site import Site

START_SCRIPT = "start.sh"
#: The folder of an exported archive. TorchServe 0.12.0 looks for an archive that is a folder in its
#: working folder first, where it then cannot load it.
MODEL_STORE = "model-store"
#: The container starts the command in the background, and waits for something else.
_FOREGROUND = "--foreground"
_TOKEN_EXPIRATION_MIN = "1440"


class ExportedServer(TorchServe):
    """TorchServe started from a copy of exported files, on free loopback ports.

    Args:
        files: the exported folder.
        platform: what its files give to TorchServe.
        config: the configuration in the files.
        site: the archive to serve, the installation and the limits.
        folder: receives torchserve.log.
    """

    def __init__(
        self,
        files: Path,
        platform: PlatformFiles,
        config: ServerConfig,
        site: Site,
        folder: Path,
    ):
        super().__init__(config, site, folder)
        self._files = files
        self._platform = platform

    @property
    def url(self) -> str:
        """URL by which the platform sends requests for predictions to TorchServe."""
        name = self.site.archive.name
        path = {
            "sagemaker": "/invocations",
            "kserve": prediction_path(name, self._envelope),
        }.get(self._platform.platform, f"/predictions/{name}")
        return f"{self._origin}{path}"

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request for a prediction."""
        return self._authorization("inference")

    @property
    def _envelope(self) -> str:
        return self._platform.environment.get("TS_SERVICE_ENVELOPE", "")

    def differences(self) -> list[str]:
        """Return each JVM argument or variable that the running processes do not have."""
        server = psutil.Process(self.pid)
        processes = [server, *server.children(recursive=True)]
        commands = [process.cmdline() for process in processes]
        (java,) = (c for c in commands if "org.pytorch.serve.ModelServer" in c)
        given = [*java, *self._platform.environment.get(JVM_VARIABLE, "").split()]
        differences = [
            f"the JVM runs without {argument}"
            for argument in self.config.jvm_arguments()
            if argument not in given
        ]
        for pid in sorted(self.worker_pids):
            environment = psutil.Process(pid).environ()
            differences += [
                f"worker {pid} has {name}={environment.get(name, 'unset')} instead of {text}"
                for name, text in self.config.environment_variables().items()
                if name not in self.site.secrets and environment.get(name) != text
            ]
        return differences

    def _prepare(self) -> None:
        super()._prepare()
        work = self._home / "work"
        for file in self._files.iterdir():
            if file.is_file() and file.stat().st_size < 1 << 20:
                shutil.copy(file, work)
        text = self._platform.properties
        if text is None:
            text = container_properties(self._platform.environment, self.site.archive)
        addresses = {
            key: text
            for key, text in self._site_properties().items()
            if key.endswith(("_address", "_port")) or key in TLS_KEYS
        }
        # The tokens must not expire before the server is ready.
        addresses["token_expiration_min"] = _TOKEN_EXPIRATION_MIN
        # Variables would win over the free ports.
        hidden = {*(VARIABLES[key] for key in addresses), "TS_CONFIG_FILE", "TS_MODEL_STORE"}
        variables = {k: v for k, v in self._platform.environment.items() if k not in hidden}
        self._variables = with_secrets(variables, self.site.secrets, self._home)
        text = edit_properties(text, {**addresses, **self._store_property(text)})
        for file in (work / "config.properties", self.folder / "config.properties"):
            file.write_bytes(text.encode("latin-1"))
        if (work / START_SCRIPT).is_file():
            (work / "environment").write_text(
                format_environment({name: self._variables[name] for name in variables})
            )

    def _store_property(self, text: str) -> Mapping[str, str]:
        is_given = any(line.startswith("model_store") for line in text.splitlines())
        return {"model_store": str(self._home / "store")} if is_given else {}

    def _place_archive(self, archive: Archive, path: Path) -> None:
        path.symlink_to(archive.path)  # As exported, whatever it contains.

    def _command(self) -> list[str]:
        script = self._home / "work" / START_SCRIPT
        if script.is_file():
            return [str(script)]
        places = {
            "--model-store": str(self._home / "store"),
            "--ts-config": str(self._home / "work" / "config.properties"),
            "--log-config": str(self._home / "work" / "log4j2.xml"),
            "--models": f"{MODEL_NAME}={self.site.archive.path}",
        }
        command, arguments = ["torchserve"], list(self._platform.arguments)
        while arguments:
            name, equals, _ = arguments.pop(0).partition("=")
            command.append(name)
            if name in places:
                command.append(places[name])
                if not equals:
                    arguments.pop(0)
        for option in ("--ts-config", "--model-store"):
            command += [option, places[option]] if option not in command else []
        return [*command, *([] if _FOREGROUND in command else [_FOREGROUND])]

    def environment(self) -> dict[str, str]:
        """Return production's environment: PATH, folders for temporary files, MODEL_STORE."""
        installation = self.site.installation
        python = shutil.which(installation.python) or installation.python
        folders = [str(Path(python).parent), str(Path(installation.java.path).parent)]
        return {
            **inherited_environment(),
            **self._variables,
            "PATH": os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]),
            "TMPDIR": str(self._home / "tmp"),
            "TEMP": str(self._home / "tmp"),  # The wrapper passes it on as java.io.tmpdir.
            "LOG_LOCATION": str(self._home / "logs"),
            "METRICS_LOCATION": str(self._home / "logs"),
            "MODEL_STORE": str(self._home / "store"),
        }

    def _authorization(self, api: str) -> dict[str, str]:
        try:
            keys = json.loads((self._home / "work" / "key_file.json").read_text())
            return {"Authorization": f"Bearer {keys[api]['key']}"}
        except (OSError, ValueError, KeyError):
            return {}  # The file does not exist yet, or no token is required.
