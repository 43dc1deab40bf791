"""Exported files, started as production starts them: by their own start.sh."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import psutil

from serving.config import ServerConfig
from serving.production import edited
from serving.server import TorchServe, inherited
from serving.site import Site

START = "start.sh"


class ExportedServer(TorchServe):
    """TorchServe started from a copy of exported files, its addresses on free loopback ports.

    Args:
        files: the folder, with start.sh.
        config: what the files hold.
        site: the archive that they serve, and what starts them.
        folder: receives torchserve.log.
    """

    def __init__(self, files: Path, config: ServerConfig, site: Site, folder: Path):
        super().__init__(config, site, folder)
        self._files = files

    @property
    def headers(self) -> dict[str, str]:
        """What a request for a prediction must carry."""
        return self._authorisation("inference")

    def differences(self) -> list[str]:
        """What of the configuration the running processes do not have."""
        found = []
        server = psutil.Process(self._pid)
        processes = [server, *server.children(recursive=True)]
        commands = [process.cmdline() for process in processes]
        (java,) = (c for c in commands if "org.pytorch.serve.ModelServer" in c)
        found += [
            f"the JVM runs without {argument}"
            for argument in self.config.jvm_arguments()
            if argument not in java
        ]
        for pid in sorted(self.worker_pids):
            environment = psutil.Process(pid).environ()
            found += [
                f"worker {pid} has {name}={environment.get(name, 'nothing')}, not {text}"
                for name, text in self.config.environment_variables().items()
                if environment.get(name) != text
            ]
        return found

    def _prepare(self) -> None:
        super()._prepare()
        copy = self._home / "work"
        shutil.copytree(self._files, copy, dirs_exist_ok=True)
        path = copy / "config.properties"
        place = {
            key: text for key, text in self._place().items() if key.endswith(("_address", "_port"))
        }
        text = edited(path.read_text("latin-1"), place)
        for file in (path, self.folder / path.name):
            file.write_text(text, "latin-1")

    def _command(self) -> list[str]:
        return [str(self._home / "work" / START)]

    def environment(self) -> dict[str, str]:
        """What production has: the commands on PATH, and the folder of the archive."""
        installed = self.site.installation
        python = shutil.which(installed.python) or installed.python
        folders = [str(Path(python).parent), str(Path(installed.java.path).parent)]
        return {
            **inherited(),
            "PATH": os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]),
            "TMPDIR": str(self._home / "tmp"),
            "TEMP": str(self._home / "tmp"),  # Where the wrapper lets Java unpack the archive.
            "MODEL_STORE": str(self._home / "store"),
        }

    def _authorisation(self, kind: str) -> dict[str, str]:
        try:
            keys = json.loads((self._home / "work" / "key_file.json").read_text())
            return {"Authorization": f"Bearer {keys[kind]['key']}"}
        except (OSError, ValueError, KeyError):
            return {}  # Not written yet, or none is asked for.
