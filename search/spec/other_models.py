"""Find the archives of the models that a server has beside the tuned one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from search.errors import SpecError, SpecProblem
from serving.archive import Archive
from serving.configuration.deployment import Deployment
from serving.configuration.models import OtherModel
from serving.errors import ArchiveError, PathRefused
from serving.platforms.files import check_archive, is_folder, list_folder

_SUFFIXES = (".mar", ".tar.gz", ".tgz")


class ModelRefused(PathRefused):
    """An archive that must not be read.

    Attributes:
        field: the path of the field of the specification that leads to it.
    """

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


def add_models(
    deployment: Deployment, given: Mapping[str, Path | None], stores: Sequence[Path]
) -> Deployment:
    """Return a deployment with the other models of its server beside the tuned one.

    Args:
        given: archives by the name of their model; None leaves a model out.
        stores: folders that may hold the others. A relative `model_store` of the deployment
            starts at the first.

    Raises:
        SpecError: a model is not found, or cannot be served beside the others.
        ConfigError: TorchServe would not start with an entry, or a folder cannot be read.
        ModelRefused: an archive must not be read; see `checking_paths`.
    """
    problems: list[SpecProblem] = []
    named_store = stores[0] / deployment.model_store if deployment.model_store else None
    others = list(deployment.others)
    if deployment.loads_all and named_store and _is_here(named_store):
        others += _unnamed(deployment, named_store)
    elif deployment.loads_all:
        place = deployment.model_store or "its model store"
        note = f"load_models=all: models of {place} that have no entry are not known here"
        deployment = replace(deployment, notes=(*deployment.notes, note))
    folders = [each for each in (named_store, *stores[1:]) if each is not None and _is_here(each)]
    found: dict[str, Archive] = {}
    left_out = []
    given_files = {path.name for path in given.values() if path is not None}
    for model in others:
        # Of several versions of the tuned model, a request reaches one.
        # A model store has one file of a name, which has the settings of one model.
        is_same_file = model.file == deployment.archive.path.name
        if model.name == deployment.archive.name or is_same_file or model.name in given:
            if given.get(model.name) is None:
                left_out.append(model)
            continue
        if not model.is_certain and model.file in given_files:
            continue
        field = f"serving.models.{model.name}"
        paths = (folder / model.file for folder in folders)
        path = next((path for path in paths if _exists(path, field)), None)
        if path is None:
            problems.append(SpecProblem(field, _missing(model, folders)))
            continue
        try:
            archive = Archive.read(path)
        except ArchiveError as error:
            problems.append(SpecProblem(field, str(error)))
            continue
        # Without an entry or an alias, TorchServe takes the name in the manifest.
        name = model.name if model.is_certain else archive.name
        found.setdefault(name, archive.registered_as(name))
    for name, path in given.items():
        field = f"serving.models.{name}"
        if name == deployment.archive.name:
            problems.append(SpecProblem(field, f"{name} is the model of model.archive; remove it"))
        elif path is not None:
            _check(path, field)
            try:
                found[name] = Archive.read(path).registered_as(name)
            except ArchiveError as error:
                problems.append(SpecProblem(field, str(error)))
        elif name not in {model.name for model in others}:
            known = ", ".join(sorted({model.name for model in others})) or "none"
            problems.append(
                SpecProblem(field, f"null leaves out a model of the baseline, which has {known}")
            )
    problems += _same_file_names(deployment.archive, found.values())
    if problems:
        raise SpecError(problems)
    return deployment.with_models(list(found.values()), left_out)


def _is_here(folder: Path) -> bool:
    """Return whether a model store, or a folder in it, is here.

    The store of another host may be anywhere; one that must not be read is as good as absent.
    """
    try:
        return is_folder(folder)
    except (PathRefused, OSError):
        return False


def _check(path: Path, field: str) -> None:
    try:
        check_archive(path)
    except PathRefused as error:
        raise ModelRefused(field, str(error)) from None


def _exists(path: Path, field: str) -> bool:
    _check(path, field)
    try:
        return path.exists()
    except OSError:
        return False


def _unnamed(deployment: Deployment, folder: Path) -> Iterator[OtherModel]:
    """Yield the archives in the model store that no line of the deployment names."""
    named = {model.file for model in deployment.others} | {deployment.archive.path.name}
    for path in list_folder(folder):
        is_archive = path.name.endswith(_SUFFIXES) or _is_here(path / "MAR-INF")
        if is_archive and path.name not in named:
            yield OtherModel(path.name.partition(".")[0], "", path.name, is_certain=False)


def _missing(model: OtherModel, folders: Sequence[Path]) -> str:
    where = " and ".join(map(str, folders)) or "the baseline's model_store, which is not here"
    return (
        f"the baseline serves {model} from {model.file}, which is not in {where}; give its path, "
        f"or leave the model out with `serving: {{models: {{{model.name}: null}}}}`"
    )


def _same_file_names(tuned: Archive, others: Iterable[Archive]) -> Iterator[SpecProblem]:
    """Yield a problem for each archive that cannot be in one model store with another."""
    paths = {tuned.path.name: tuned}
    for archive in others:
        first = paths.setdefault(archive.path.name, archive)
        if first.path != archive.path:
            yield SpecProblem(
                f"serving.models.{archive.name}",
                f"{archive.path} has the file name of {first.path}, and a model store has one file "
                "of a name; rename one",
            )
