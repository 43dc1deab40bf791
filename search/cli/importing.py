"""The command import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from search.cli.console import create_console
from search.cli.options import JsonOption
from search.errors import CommandError
from search.spec.importing import ImportedFiles, import_files


def import_deployment(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="paths of a config.properties and of an environment file (lines NAME=value or "
            "JSON), or one of them; or the folder or the files of a platform: Kubernetes "
            "manifests, a KServe InferenceService, compose.yaml, a systemd unit, a Dockerfile",
        ),
    ],
    archive: Annotated[Path | None, typer.Option(help="path of the model archive to tune")] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="path of a new specification that has these files as its baseline"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how TorchServe reads the files of a deployment, and start a specification from them.

    The exit status is 0 if TorchServe would start with these files.
    """
    if into is not None and into.exists():
        raise CommandError(f"{into} already exists; choose a new file")
    imported = import_files(files, archive)
    if into is not None:
        try:
            into.write_text(imported.spec_text(into.parent))
        except OSError as error:
            raise CommandError(f"{into} cannot be written: {error.strerror}") from None
    if as_json:
        print(json.dumps(imported.to_dict()))
    else:
        _show(imported, into)


def _show(imported: ImportedFiles, into: Path | None) -> None:
    from search.study.diff import flat

    console = create_console(soft_wrap=True)
    archive = imported.deployment.archive
    name = f"model {archive.name}, version {archive.version}"
    console.print(name if imported.is_named else "the files name no model")
    table = Table("setting", "value")
    for name, value in flat(imported.deployment.config.to_dict()).items():
        table.add_row(name, str(value))
    console.print(table if table.rows else "no settings: TorchServe's defaults")
    for note in imported.notes():
        console.print(f"note: {note}")
    if into is not None:
        missing = "model.requests" if imported.has_archive else "model.archive and model.requests"
        console.print(f"wrote {into}; set {missing} in it, then run servetune tune {into}")
