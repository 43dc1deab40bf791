"""A server that runs exported files by their start.sh, as production does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import psutil

from serving.config import ServerConfig, format_environment
from serving.environment import parse_environment
from serving.production import edit_properties
from serving.properties import TLS_KEYS
from serving.reading import VARIABLES
from serving.server import TorchServe, inherited_environment
from serving.site import Site

START_SCRIPT = "start.sh"
#: The folder of an exported archive. TorchServe 0.12.0 looks for an archive that is a folder in its
#: working folder first, where it then cannot load it.
MODEL_STORE = "model-store"


class ExportedServer(TorchServe):
    """TorchServe started from a copy of exported files, on free loopback ports.

    Args:
        files: the exported folder, which contains start.sh.
        config: the configuration in the files.
        site: the archive to serve, the installation and the limits.
        folder: receives torchserve.log.
    """

    def __init__(self, files: Path, config: ServerConfig, site: Site, folder: Path):
        super().__init__(config, site, folder)
        self._files = files

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request for a prediction."""
        return self._authorization("inference")

    def differences(self) -> list[str]:
        """Return each JVM argument or variable that the running processes do not have."""
        server = psutil.Process(self.pid)
        processes = [server, *server.children(recursive=True)]
        commands = [process.cmdline() for process in processes]
        (java,) = (c for c in commands if "org.pytorch.serve.ModelServer" in c)
        differences = [
            f"the JVM runs without {argument}"
            for argument in self.config.jvm_arguments()
            if argument not in java
        ]
        for pid in sorted(self.worker_pids):
            environment = psutil.Process(pid).environ()
            differences += [
                f"worker {pid} has {name}={environment.get(name, 'unset')} instead of {text}"
                for name, text in self.config.environment_variables().items()
                if environment.get(name) != text
            ]
        return differences

    def _prepare(self) -> None:
        super()._prepare()
        copy = self._home / "work"
        ignored = shutil.ignore_patterns(MODEL_STORE)
        shutil.copytree(self._files, copy, dirs_exist_ok=True, ignore=ignored)
        path = copy / "config.properties"
        addresses = {
            key: text
            for key, text in self._site_properties().items()
            if key.endswith(("_address", "_port")) or key in TLS_KEYS
        }
        text = edit_properties(path.read_bytes().decode("latin-1"), addresses)
        # Variables would win over the free ports.
        hidden = {VARIABLES[key] for key in addresses}
        environment = copy / "environment"
        variables = parse_environment(environment.read_text())
        environment.write_text(
            format_environment({k: v for k, v in variables.items() if k not in hidden})
        )
        for file in (path, self.folder / path.name):
            file.write_bytes(text.encode("latin-1"))

    def _place_archive(self, path: Path) -> None:
        path.symlink_to(self.site.archive.path)  # As exported, whatever it contains.

    def _command(self) -> list[str]:
        return [str(self._home / "work" / START_SCRIPT)]

    def environment(self) -> dict[str, str]:
        """Return production's environment: PATH, folders for temporary files, MODEL_STORE."""
        installation = self.site.installation
        python = shutil.which(installation.python) or installation.python
        folders = [str(Path(python).parent), str(Path(installation.java.path).parent)]
        return {
            **inherited_environment(),
            **self.site.secrets,
            "PATH": os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]),
            "TMPDIR": str(self._home / "tmp"),
            "TEMP": str(self._home / "tmp"),  # The wrapper passes it on as java.io.tmpdir.
            "MODEL_STORE": str(self._home / "store"),
        }

    def _authorization(self, api: str) -> dict[str, str]:
        try:
            keys = json.loads((self._home / "work" / "key_file.json").read_text())
            return {"Authorization": f"Bearer {keys[api]['key']}"}
        except (OSError, ValueError, KeyError):
            return {}  # The file does not exist yet, or no token is required.
