"""Find the platform of a file or folder, and read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.configuration.environment import MULTI_MODEL, SERVING_MODULE
from serving.configuration.sagemaker import ARGUMENTS as SAGEMAKER_ARGUMENTS
from serving.configuration.sagemaker import is_sagemaker
from serving.errors import ConfigError
from serving.platforms import compose, docker, systemd
from serving.platforms.compose import FILES as COMPOSE_FILES
from serving.platforms.compose import is_compose, read_compose
from serving.platforms.docker import read_dockerfile
from serving.platforms.files import (
    PlatformFiles,
    is_file,
    naming_file,
    one,
    read_bytes_as_text,
    read_documents,
    read_environment,
)
from serving.platforms.kserve import CONFIG_FILE, is_inference_service, read_kserve
from serving.platforms.kubernetes import KUSTOMIZATIONS, WORKLOADS, is_workload, read_kubernetes
from serving.platforms.systemd import read_systemd

_YAML_SUFFIXES = (".yaml", ".yml")
#: What the readers raise for an entry of another type or form than its platform expects.
_MALFORMED = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
_DOCKERFILES = ("Dockerfile", "Containerfile")
#: The request comes first: it also names the kind of the endpoint.
_SAGEMAKER_FILES = ("create_model.json", "environment.json")
#: A file, its reader, and whether the file may run TorchServe.
_Candidate = tuple[Path, Callable[[Path], PlatformFiles], Callable[[Path], bool]]
_START_SCRIPT_ARGUMENTS = ("--start", "--foreground", "--ncs")


def read_platform(path: Path) -> PlatformFiles | None:
    """Read a deployment from a file or folder of a platform.

    Returns:
        The deployment; None if the file or folder is of no known platform.

    Raises:
        ConfigError: it is of a platform, but cannot be read.
    """
    with _malformed(path):
        return _read(path)


def read_manifests(paths: Sequence[Path]) -> PlatformFiles | None:
    """Read YAML files together: an InferenceService, or a workload; None if there is neither.

    Raises:
        ConfigError: a file cannot be read, or the deployment is not complete.
    """
    with _malformed(paths[0]):
        return _read_manifests(paths)


@contextmanager
def _malformed(path: Path) -> Iterator[None]:
    """Name the file in each error, also in that of an entry of another type or form."""
    try:
        with naming_file(path):
            yield
    except ConfigError:
        raise
    except _MALFORMED as error:
        raise ConfigError(
            f"{path} has an entry of an unexpected form ({error}); correct it, or pass its "
            "config.properties"
        ) from None


def _read(path: Path) -> PlatformFiles | None:
    if path.is_dir():
        return _read_folder(path)
    if path.name in COMPOSE_FILES:
        return read_compose(path)
    if path.suffix == ".service":
        return read_systemd(path)
    if _is_dockerfile(path):
        return read_dockerfile(path)
    if _is_yaml(path):
        if is_compose(read_documents(path)):
            return read_compose(path)
        if (found := _read_manifests([path])) is None:
            _refuse_other_kinds(path)
        return found
    if path.suffix == ".json":
        return _read_sagemaker(path)
    return None


def _is_yaml(path: Path) -> bool:
    return path.suffix in _YAML_SUFFIXES or path.name in KUSTOMIZATIONS


def _read_manifests(paths: Sequence[Path]) -> PlatformFiles | None:
    documents = [document for path in paths for document in read_documents(path)]
    if is_inference_service(documents):
        return read_kserve(paths)
    depth = min(len(path.parts) for path in paths)
    has_overlay = any(p.name in KUSTOMIZATIONS and len(p.parts) == depth for p in paths)
    if is_workload(documents) or has_overlay:
        return read_kubernetes(paths)
    return None


def _refuse_other_kinds(path: Path) -> None:
    """Raise ConfigError if a file has manifests, but none that runs TorchServe."""
    kinds = [str(d["kind"]) for d in read_documents(path) if "kind" in d and "apiVersion" in d]
    if kinds:
        raise ConfigError(
            f"{path} has no InferenceService and no workload that servetune reads "
            f"({', '.join(WORKLOADS)}); found {', '.join(kinds)}"
        )


def _read_folder(folder: Path) -> PlatformFiles | None:
    """Read the deployment in a folder; note YAML files that cannot be read, such as templates."""
    paths = sorted(path for path in folder.rglob("*") if _is_yaml(path) and not path.is_dir())
    files, problems = [], list[ConfigError]()
    for path in paths:
        try:
            read_documents(path)
            files.append(path)
        except ConfigError as error:
            problems.append(error)
    platform = _read_files(folder, files)
    if platform is None and problems:
        raise problems[0]
    if platform is None or not problems:
        return platform
    names = ", ".join(str(p.relative_to(folder)) for p in paths if p not in files)
    note = f"{names}: not valid YAML, left out; of a Helm chart, pass the output of `helm template`"
    return replace(platform, notes=(*platform.notes, note))


def _read_files(folder: Path, files: Sequence[Path]) -> PlatformFiles | None:
    images = _dockerfiles(folder, has_others=_has_workload(files) or _has_properties(folder))
    candidates: list[_Candidate] = [
        *((path, read_compose, compose.may_run_torchserve) for path in _compose_files(folder)),
        *((path, read_dockerfile, docker.may_run_torchserve) for path in images),
        *((p, read_systemd, systemd.may_run_torchserve) for p in sorted(folder.glob("*.service"))),
    ]
    if likely := [found for found in candidates if _is_likely(found)]:
        return _read_first(likely, files, folder)
    if files and (found := _read_manifests(files)):
        return found
    if candidates:
        return _read_first(candidates, files, folder)
    requests = [folder / name for name in _SAGEMAKER_FILES if (folder / name).is_file()]
    _check_sagemaker_requests(requests)
    for path in requests:
        if found := _read_sagemaker(path):
            return found
    properties = folder / "config.properties"
    if not _has_properties(folder):
        if (folder / CONFIG_FILE).is_file():
            raise ConfigError(
                f"{folder} has {CONFIG_FILE} but no InferenceService; put its YAML file beside it"
            )
        return None
    environment = folder / "environment"
    return PlatformFiles(
        "properties",
        read_bytes_as_text(properties),
        read_environment(environment) if environment.is_file() else {},
        _START_SCRIPT_ARGUMENTS,
        sources=(properties, environment) if environment.is_file() else (properties,),
    )


def _compose_files(folder: Path) -> list[Path]:
    """Return the file that Compose reads; without one, those that it reads with `--file`."""
    names = [folder / name for name in COMPOSE_FILES if is_file(folder / name)]
    others = (path for path in sorted(folder.iterdir()) if path.suffix in _YAML_SUFFIXES)
    return names[:1] or [path for path in others if _holds(is_compose, [path])]


def _dockerfiles(folder: Path, has_others: bool) -> list[Path]:
    """Return the file that a build reads; without one, those that it reads with `--file`.

    Args:
        has_others: whether other files show what runs. Then a variant counts only if no other one
            runs TorchServe.
    """
    names = [folder / name for name in _DOCKERFILES if is_file(folder / name)]
    if names:
        return names[:1]
    others = (path for path in sorted(folder.iterdir()) if _is_dockerfile(path))
    variants = [path for path in others if is_file(path)]
    likely = [p for p in variants if _is_likely((p, read_dockerfile, docker.may_run_torchserve))]
    return (likely if len(likely) == 1 else []) if has_others else likely or variants


def _has_properties(folder: Path) -> bool:
    return (folder / "config.properties").is_file()


def _is_dockerfile(path: Path) -> bool:
    suffix = path.suffix.lower()
    is_named = path.name.startswith(_DOCKERFILES) or suffix in (".dockerfile", ".containerfile")
    return is_named and suffix != ".dockerignore"


def _holds(test: Callable[[Sequence[Mapping[str, Any]]], bool], paths: Sequence[Path]) -> bool:
    """Return whether a test holds for the documents of any of these files that can be read."""
    for path in paths:
        with suppress(ConfigError):
            if test(read_documents(path)):
                return True
    return False


def _has_workload(manifests: Sequence[Path]) -> bool:
    return _holds(is_workload, manifests) or _holds(is_inference_service, manifests)


def _is_likely(candidate: _Candidate) -> bool:
    path, _, may_run = candidate
    try:
        return may_run(path)
    except (ConfigError, *_MALFORMED):
        return True  # Its reader reports the problem.


def _read_first(
    candidates: Sequence[_Candidate], manifests: Sequence[Path], folder: Path
) -> PlatformFiles:
    """Read the deployment of the first kind; note the others.

    Raises:
        ConfigError: there are several of this kind.
    """
    path, read, _ = candidates[0]
    same = [found for found in candidates if found[1] is read]
    names = ", ".join(found[0].name for found in same)
    one(same, f"deployments of one kind ({names})", folder)
    platform = read(path)
    others = [found[0].name for found in candidates[1:] if found[0] not in platform.sources]
    if _has_workload(manifests):
        others.append("manifests")
    if not others:
        return platform
    note = (
        f"{folder} also has {', '.join(others)}: {path.name} was read; to read another deployment, "
        "pass its files by name"
    )
    return replace(platform, notes=(*platform.notes, note))


def _check_sagemaker_requests(files: Sequence[Path]) -> None:
    """Refuse two sets of variables, of which one would be ignored."""
    if len(files) < 2:
        return
    first, second = (read_environment(file) for file in files)
    given = {*first, *second} - SERVING_MODULE.keys() - MULTI_MODEL.keys()
    if names := sorted(n for n in given if first.get(n) != second.get(n)):
        raise ConfigError(
            f"{files[0]} and {files[1].name} differ in {', '.join(names)}: the endpoint has those "
            "of the file that it is made with; make them equal"
        )


def _read_sagemaker(path: Path) -> PlatformFiles | None:
    environment = read_environment(path)
    if not is_sagemaker(environment):
        return None
    return PlatformFiles("sagemaker", None, environment, SAGEMAKER_ARGUMENTS, sources=(path,))
