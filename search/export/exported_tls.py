"""The key pair with which exported files serve over https."""

from __future__ import annotations

from pathlib import Path

from search.export.exported_files import ExportedFiles
from serving.configuration.key_pair import KeyPair
from serving.errors import ConfigError


def exported_key_pair(files: ExportedFiles, in_run: KeyPair | None) -> KeyPair | None:
    """Return the key pair that exported files name, with paths on this host; None for http.

    A relative path may be in the current folder, in that of the files, or where the run found the
    deployment's. The run's own key pair stands for one whose paths exist only on the platform.

    Args:
        in_run: the key pair of the run's deployment with absolute paths; None if it is not known.

    Raises:
        ConfigError: a file does not exist, or the keystore's password is not known.
    """
    key_pair = files.deployment.key_pair
    if key_pair is None:
        return None
    known = [Path(text) for key, text in in_run.lines.items() if _is_path(key)] if in_run else []
    folders = [Path.cwd(), files.folder, *(parent for path in known for parent in path.parents)]
    try:
        found = key_pair.resolved(folders)
    except ConfigError as error:
        if in_run is not None and in_run.lines.keys() == key_pair.lines.keys():
            return in_run
        raise ConfigError(
            f"{error}; to verify https, put the key pair there, or pass --against a run whose "
            "baseline has it"
        ) from None
    found.variables()
    return found


def _is_path(key: str) -> bool:
    return key != "keystore_type"
