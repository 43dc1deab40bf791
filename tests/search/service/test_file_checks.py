"""Files that an attacker names in a specification, or packs into an archive."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import AfterValidator, BaseModel

from search.errors import SpecError
from search.service import file_checks
from search.service.file_checks import FileChecks, FileProblem
from search.service.submission import accept
from search.spec import section
from search.spec.schema import StudySpec
from serving.archive_files import open_archive
from tests.archives import as_folder, as_tar, make_archive

MANIFEST = json.dumps({"model": {"modelName": "a", "handler": "h.py", "configFile": "c.yaml"}})


def problems_of(spec: dict[str, Any], root: Path, **sections: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        accept({**spec, **sections}, {}, [root])
    return caught.value.problems


@pytest.mark.parametrize(
    "field",
    [
        *("model.archive", "model.requests", "serving.baseline", "search.warm_start"),
        *("serving.baseline.properties", "serving.baseline.environment"),
        *("serving.baseline.secrets", "serving.baseline.original"),
        *("serving.models.other", "load.requests.other"),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../outside", "a/../../outside", "link", "link/inner", "~root/x"),
        *("~nobody-of-this-name/x", "/dev/zero", "/proc/self/environ", "a\0b", "./link"),
    ],
)
def test_accept_answers_alike_whether_a_path_outside_exists(
    spec: dict[str, Any], root: Path, tmp_path: Path, field: str, name: str
) -> None:
    (root / "link").symlink_to(tmp_path / "outside")
    data: dict[str, Any] = {**spec, "serving": {"baseline": {"properties": "p"}}}
    section = data
    *parents, last = field.split(".")
    for parent in parents:
        existing = section.get(parent)
        section[parent] = dict(existing) if isinstance(existing, dict) else {}
        section = section[parent]
    section[last] = name
    answers = []
    for exists in (False, True):
        if exists:
            (tmp_path / "outside").mkdir()
            (tmp_path / "outside" / "inner").touch()
            (tmp_path / "outside" / "spec.yaml").touch()
        problems = problems_of(data, root)
        answers.append(next((p for p in problems if p.startswith(field)), problems[0]))
    # Without a leading `~`, it is an ordinary character: the file is missing.
    expected = f"{root / name} " if name.startswith("~") else "is outside the folders"
    if name.startswith("~") and field.endswith(".other"):
        expected = field.split(".")[0]  # There is no such model.
    assert answers[0] == answers[1] and expected in answers[0]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "/none", "/dev/zero", "a\0"])
def test_accept_answers_alike_whether_requests_of_a_background_outside_exist(
    spec: dict[str, Any], root: Path, name: str
) -> None:
    (root.parent / "secret").touch()
    background = [{"model": "other", "rate_rps": 1, "requests": name}]
    (problem, *_) = problems_of(spec, root, load={"background": background})
    expected = f"{name!r} is outside the folders that the service may read"
    assert problem == f"load.background.0.requests: {expected}"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "../none", "/none", "out", "a\0"])
def test_accept_answers_alike_whether_a_payload_outside_exists(
    spec: dict[str, Any], root: Path, name: str
) -> None:
    (root.parent / "secret").touch()
    (root / "out").symlink_to("/etc/passwd")
    (root / "requests.jsonl").write_text(json.dumps({"file": name}) + "\n")
    (problem,) = problems_of(spec, root)
    assert problem.endswith(f"line 1: {name!r} is outside the folders that the service may read")


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "large", "socket"])
@pytest.mark.parametrize("field", ["archive", "requests", "payload", "baseline", "warm_start"])
def test_accept_opens_only_regular_files_up_to_a_size(
    spec: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, field: str
) -> None:
    if field == "archive" and kind in ("folder", "large"):
        pytest.skip("an archive may be a folder, and large")
    path = root / "special"
    data = dict(spec)
    match field:
        case "archive" | "requests":
            data["model"] = {**spec["model"], field: "special"}
        case "payload":
            (root / "requests.jsonl").write_text('{"file": "special"}\n')
        case "baseline":
            data["serving"] = {"baseline": "special"}
        case _:
            (root / "run").mkdir()
            path = root / "run" / "spec.yaml"
            data["search"] = {"warm_start": "run"}
    roots = [root]
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "large":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "socket":
            import socket

            monkeypatch.chdir(path.parent)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path.name)
        case _:
            path.symlink_to("/dev/zero")
            roots.append(Path("/dev"))
    with pytest.raises(SpecError) as caught:
        accept(data, {}, roots)
    (problem,) = caught.value.problems
    expected = "the maximum is" if kind == "large" else "is not a regular file"
    if (field, kind) == ("baseline", "folder"):
        expected = "has no files of a deployment"
    assert expected in problem


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, text in members:
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return path


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize("name", ["../../x", "/etc/cron.d/x", "a/../../x", "..\\..\\x"])
def test_check_archive_refuses_files_outside_of_it(tmp_path: Path, name: str) -> None:
    paths = [
        write_zip(tmp_path / "a.mar", {"MAR-INF/MANIFEST.json": b"{}", name: b"x"}),
        write_tar(tmp_path / "a.tar.gz", [(member(name), b"x")]),
    ]
    for path in paths:
        with pytest.raises(FileProblem, match="would be outside of the archive"):
            FileChecks((tmp_path,)).check_archive(path, 1 << 20)


@pytest.mark.parametrize(
    "special",
    [
        member("a/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("a/hard", type=tarfile.LNKTYPE, linkname="../x"),
        member("a/device", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        member("a/fifo", type=tarfile.FIFOTYPE),
    ],
    ids=lambda info: info.name,
)
def test_check_archive_refuses_links_and_devices(tmp_path: Path, special: tarfile.TarInfo) -> None:
    path = write_tar(tmp_path / "a.tar.gz", [(special, b"")])
    with pytest.raises(FileProblem, match="is a link, a device or sparse"):
        FileChecks((tmp_path,)).check_archive(path, 1 << 20)


def test_check_archive_refuses_a_link_in_a_zip_file(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(FileProblem, match="is a symbolic link"):
        FileChecks((tmp_path,)).check_archive(tmp_path / "a.mar", 1 << 20)


@pytest.mark.parametrize("make", [make_archive, lambda p: as_tar(make_archive(p))])
def test_check_archive_accepts_what_the_archiver_writes(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    FileChecks((tmp_path,)).check_archive(path, 1 << 20)
    FileChecks((tmp_path,)).check_archive(as_folder(make_archive(tmp_path, name="b")), 1 << 20)


def test_check_archive_refuses_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_checks, "_UNPACKED_BYTES", 1 << 20)
    zeros = bytes(4 << 20)
    bomb = write_zip(tmp_path / "a.mar", {"MAR-INF/MANIFEST.json": b"{}", "weights": zeros})
    tar = write_tar(tmp_path / "a.tar.gz", [(member("a/weights"), zeros)])
    for path in (bomb, tar):
        assert path.stat().st_size < 100_000
        with pytest.raises(FileProblem, match="bytes when it is unpacked"):
            FileChecks((tmp_path,)).check_archive(path, 1 << 20)


def test_check_archive_unpacks_no_more_of_a_bomb_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_checks, "_UNPACKED_BYTES", 1 << 20)
    path = write_tar(tmp_path / "a.tar.gz", [(member("a/weights"), bytes(64 << 20))])
    unpacked, read = [0], gzip.GzipFile.read

    def count(file: gzip.GzipFile, size: int | None = -1) -> bytes:
        data = read(file, size)
        unpacked[0] += len(data)
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", count)
    with pytest.raises(FileProblem, match="bytes when it is unpacked"):
        FileChecks((tmp_path,)).check_archive(path, 1 << 20)
    assert unpacked[0] < 4 << 20


def test_check_archive_refuses_a_nested_or_huge_manifest(tmp_path: Path) -> None:
    aliases = b"a: &a [1]\nb: &b [*a, *a]\n"
    deep = b'{"model": ' + b"[" * 200_000
    cases: tuple[tuple[dict[str, bytes], bytes, str], ...] = (
        ({"c.yaml": aliases}, MANIFEST.encode(), "aliases"),
        ({}, deep, "nested too deeply"),
        ({}, b" " * (2 << 20), "is larger than"),
        ({"c.yaml": b"#" * (2 << 20)}, MANIFEST.encode(), "is larger than"),
    )
    for number, (files, manifest, message) in enumerate(cases):
        texts = {"MAR-INF/MANIFEST.json": manifest, "h.py": b"", **files}
        mar = write_zip(tmp_path / f"{number}.mar", texts)
        members = [(member(f"a/{name}"), text) for name, text in texts.items()]
        tar = write_tar(tmp_path / f"{number}.tar.gz", members)
        folder = tmp_path / str(number)
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text)
        for path in (mar, tar, folder):
            with pytest.raises(FileProblem, match=message):
                FileChecks((tmp_path,)).check_archive(path, 1 << 30)


def test_check_archive_refuses_a_folder_that_leads_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = as_folder(make_archive(root))
    checks = FileChecks((root,))
    checks.check_archive(folder, 1 << 20)
    (folder / "inner").symlink_to(folder / "handler.py")
    checks.check_archive(folder, 1 << 20)
    (folder / "deep").mkdir()
    (folder / "deep" / "link").symlink_to("/etc")
    with pytest.raises(FileProblem, match=r"'deep/link' of .* is outside the folders"):
        checks.check_archive(folder, 1 << 20)
    (folder / "deep" / "link").unlink()
    os.mkfifo(folder / "deep" / "pipe")
    with pytest.raises(FileProblem, match="is not a regular file"):
        checks.check_archive(folder, 1 << 20)
    (folder / "deep" / "pipe").unlink()
    manifest = {"model": {"modelName": "a", "handler": "h", "configFile": "../../secret.yaml"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(FileProblem, match=r"configFile .* is outside of it"):
        checks.check_archive(folder, 1 << 20)


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": {"X": "a\r\nHost: attacker.example"}},
        {"headers": {"X": "a\nTransfer-Encoding: chunked"}},
        {"headers": {"Content-Length: 0\r\nX": "a"}},
        {"headers": {"": "a"}},
        {"headers": {"X": "\0"}},
        {"content_type": "text/plain\r\n\r\nDELETE / HTTP/1.1"},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"Host": "attacker.example/\r\n"}},
        {"path": "http://attacker.example/"},
        {"path": "/a HTTP/1.1\r\nX: y"},
        {"method": "GET / HTTP/1.1\r\nX:"},
    ],
)
def test_accept_refuses_requests_that_would_be_others(
    spec: dict[str, Any], root: Path, request_: dict[str, Any]
) -> None:
    (root / "requests.jsonl").write_text(json.dumps({"body": {}, **request_}) + "\n")
    (problem,) = problems_of(spec, root)
    assert problem.startswith("model.requests: ") and "line 1: " in problem


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, '{"a": ' * 100_000, '{"body": "", "expect": {"matches": "a{99999999999}"}}'],
)
def test_accept_refuses_requests_that_exhaust_python(
    spec: dict[str, Any], root: Path, line: str
) -> None:
    (root / "requests.jsonl").write_text(line + "\n")
    assert len(problems_of(spec, root)) == 1


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"notify": [{"url": "http://169.254.169.254/latest"}]}, "notify.0.url"),
        ({"notify": [{"url": "http://metadata.internal/"}]}, "notify.0.url"),
        ({"notify": [{"url": "http://127.0.0.1.attacker.example/"}]}, "notify.0.url"),
        ({"notify": [{"url": "http://localhost.attacker.example/"}]}, "notify.0.url"),
        ({"notify": [{"url": "http://[::ffff:10.0.0.1]/"}]}, "notify.0.url"),
        ({"output": {"mlflow": "http://10.0.0.1:5000"}}, "output.mlflow"),
    ],
)
def test_accept_refuses_to_send_results_to_other_hosts(
    spec: dict[str, Any], root: Path, section: dict[str, Any], path: str
) -> None:
    (problem,) = problems_of(spec, root, **section)
    assert problem.startswith(f"{path}: its host is not allowed")


def test_accept_sends_results_to_the_loopback_and_to_allowed_hosts(
    spec: dict[str, Any], root: Path
) -> None:
    urls = ["http://127.0.0.1:1/", "http://[::1]/", "http://localhost/x", "https://CI.example.org/"]
    sections = {"notify": [{"url": url} for url in urls]}
    _, accepted = accept({**spec, **sections}, {}, [root], ["ci.example.org"])
    assert [hook.url for hook in accepted.notify] == urls


@pytest.mark.parametrize(
    "properties",
    [
        {"load_models": "http://attacker.example/a.mar"},
        {"model_store": "/etc"},
        {"inference_address": "http://0.0.0.0:80"},
        {"management_address": "http://0.0.0.0:80"},
        {"models": "{}"},
    ],
)
def test_accept_refuses_properties_that_would_load_or_open_more(
    spec: dict[str, Any], root: Path, properties: dict[str, str]
) -> None:
    (problem, *_) = problems_of(spec, root, space={"properties": properties})
    assert problem.startswith("space.properties")


@pytest.mark.parametrize(
    "variable",
    [
        *("TS_INFERENCE_ADDRESS", "TS_MANAGEMENT_ADDRESS", "TS_METRICS_ADDRESS"),
        *("TS_GRPC_INFERENCE_ADDRESS", "TS_GRPC_MANAGEMENT_ADDRESS", "TS_LOAD_MODELS"),
        *("TS_MODEL_STORE", "TS_DISABLE_TOKEN_AUTHORIZATION", "TS_CONFIG_FILE"),
    ],
)
def test_accept_refuses_variables_that_would_load_or_open_more(
    spec: dict[str, Any], root: Path, variable: str
) -> None:
    space = {
        "properties": {"enable_envvars_config": "true"},
        "environment": {variable: "http://0.0.0.0:80"},
    }
    (problem, *_) = problems_of(spec, root, space=space)
    assert problem.startswith("space.environment") and "is set by servetune" in problem


def test_baseline_variables_of_the_place_do_not_reach_a_trial(
    spec: dict[str, Any], root: Path
) -> None:
    """Without enable_envvars_config they have no effect; a tuned property may switch it on."""
    (root / "config.properties").write_text("job_queue_size=7\n")
    (root / "environment").write_text("TS_MANAGEMENT_ADDRESS=http://0.0.0.0:8081\nA=b\n")
    _, accepted = accept({**spec, "serving": {"baseline": "config.properties"}}, {}, [root])
    baseline = accepted.baseline()
    assert baseline is not None and baseline.environment == {"A": "b"}


def leaves(section: type[BaseModel], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the path of each field of a schema that is no section, with its type."""
    for name, field in section.model_fields.items():
        inner = [t for t in types_in(field.annotation) if isinstance(t, type)]
        if sections := [t for t in inner if issubclass(t, BaseModel)]:
            for each in sections:
                yield from leaves(each, (*parents, name))
        else:
            yield ".".join((*parents, name)), field


def types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from types_in(argument)


def test_every_file_and_url_of_the_schema_is_checked() -> None:
    """A new field of these types must be checked before its file is read, or its host is called."""
    found = {
        kind: {
            path
            for path, field in leaves(StudySpec)
            if check in [*types_in(field.annotation), *field.metadata]
            or any(m.func is check for m in field.metadata if isinstance(m, AfterValidator))
            or any(
                isinstance(m, AfterValidator) and m.func is check
                for t in types_in(field.annotation)
                for m in getattr(t, "__metadata__", ())
            )
        }
        for kind, check in (("path", section._expand_user), ("url", section._is_http_url))
    }
    assert found["path"] == {
        *("model.archive", "model.requests", "search.warm_start", "output.folder"),
        *("serving.baseline.properties", "serving.baseline.environment"),
        *("serving.baseline.secrets", "serving.baseline.original"),
        *("serving.models", "load.requests", "load.background.requests"),
    }
    assert found["url"] == {"output.mlflow", "notify.url"}


@pytest.mark.parametrize("key", ["keystore", "private_key_file", "certificate_file"])
@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "/none", "link", "tls/none.pem"])
def test_accept_answers_alike_whether_a_key_file_outside_exists(
    spec: dict[str, Any], root: Path, key: str, name: str
) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    names = {"private_key_file": root / "a.key", "certificate_file": root / "a.pem", key: name}
    lines = [f"{key}={path}" for key, path in names.items()]
    (root / "config.properties").write_text(
        "\n".join(["inference_address=https://0.0.0.0:8443", *lines])
    )
    answers = []
    for exists in (False, True):
        if exists:
            (root.parent / "secret").touch()
        answers.append(problems_of(spec, root, serving={"baseline": "config.properties"}))
    expected = f"serving.baseline: its {key} is outside the folders that the service may read"
    assert answers[0] == answers[1] and answers[0][0].startswith(expected)


def test_accept_opens_no_special_key_file(spec: dict[str, Any], root: Path) -> None:
    os.mkfifo(root / "keys")
    (root / "config.properties").write_text(
        f"inference_address=https://0.0.0.0:8443\nkeystore={root}/keys\n"
    )
    (problem,) = problems_of(spec, root, serving={"baseline": "config.properties"})
    assert problem.endswith("keys is not a regular file")


def test_accept_takes_key_files_inside_the_roots(spec: dict[str, Any], root: Path) -> None:
    (root / "keys").touch()
    text = f"inference_address=https://0.0.0.0:8443\nkeystore={root}/keys\n"
    (root / "config.properties").write_text(text)
    accept({**spec, "serving": {"baseline": "config.properties"}}, {}, [root])


@pytest.mark.parametrize(
    ("baseline", "text"),
    [
        ("compose.yaml", "services: {ts: {image: torchserve, env_file: NAME}}"),
        ("compose.yaml", "services: {ts: {image: torchserve, volumes: ['NAME:/home']}}"),
        ("compose.yaml", "services: {ts: {command: torchserve, volumes: ['FOLDER:/home']}}"),
        ("ts.service", "[Service]\nExecStart=torchserve --start\nEnvironmentFile=-NAME"),
        ("ts.service", "[Service]\nExecStart=torchserve --ts-config NAME"),
        (
            "all.yaml",
            "kind: Kustomization\nconfigMapGenerator: [{name: a, files: [NAME], envs: [NAME]}]\n"
            "---\nkind: Pod\nspec: {containers: [{name: a}]}",
        ),
    ],
)
@pytest.mark.parametrize("name", ["secret", "link"])
def test_accept_reads_no_file_outside_that_a_platform_names(
    spec: dict[str, Any], root: Path, baseline: str, text: str, name: str
) -> None:
    secret = root.parent / "secret"
    (root / "link").symlink_to(secret)
    path = root / "link" if name == "link" else secret
    (root / baseline).write_text(text.replace("NAME", str(path)).replace("FOLDER", str(secret)))
    answers = []
    for content in (None, "not a variable"):
        if content is not None:
            secret.write_text(content)
        answers.append(problems_of(spec, root, serving={"baseline": baseline}))
    assert answers[0] == answers[1]
    (problem,) = answers[0]
    assert problem.startswith("serving.baseline: ")
    assert problem.endswith("is outside the folders that the service may read")


def test_accept_reads_no_endless_file_that_a_platform_names(
    spec: dict[str, Any], root: Path
) -> None:
    os.mkfifo(root / "pipe")
    (root / "compose.yaml").write_text("services: {ts: {image: torchserve, env_file: pipe}}")
    (problem,) = problems_of(spec, root, serving={"baseline": "compose.yaml"})
    assert problem.endswith("pipe is not a regular file")


@pytest.mark.parametrize(
    "files",
    [
        {"config.properties": "job_queue_size=7\n", "environment": "A=b\n"},
        {
            "compose.yaml": "services: {ts: {image: torchserve, volumes: ['.:/home/model-server']}}",
            "config.properties": "job_queue_size=7\n",
        },
        {
            "base/pod.yaml": "kind: Pod\nspec: {containers: [{image: torchserve}]}\n",
            "environment.json": "{}",
        },
        {"create_model.json": '{"PrimaryContainer": {"Environment": {"TS_JOB_QUEUE_SIZE": 7}}}'},
    ],
    ids=["plain", "compose", "manifests", "SageMaker"],
)
def test_accept_takes_the_folder_of_a_deployment(
    spec: dict[str, Any], root: Path, files: dict[str, str]
) -> None:
    for name, text in files.items():
        path = root / "deploy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _, accepted = accept({**spec, "serving": {"baseline": "deploy"}}, {}, [root])
    baseline = accepted.serving.baseline
    assert baseline is not None and baseline.properties == root / "deploy"


@pytest.mark.parametrize("name", ["config.properties", "environment", "base/pod.yaml", "base"])
def test_accept_reads_no_link_that_leads_out_of_the_folder_of_a_deployment(
    spec: dict[str, Any], root: Path, name: str
) -> None:
    secret = root.parent / "secret"
    path = root / "deploy" / name
    path.parent.mkdir(parents=True)
    path.symlink_to(secret)
    answers = [problems_of(spec, root, serving={"baseline": "deploy"})]
    secret.write_text("a=b")
    answers.append(problems_of(spec, root, serving={"baseline": "deploy"}))
    secret.unlink()
    secret.mkdir()
    answers.append(problems_of(spec, root, serving={"baseline": "deploy"}))
    assert answers[0] == answers[1] == answers[2]
    (problem,) = answers[0]
    assert problem.startswith("serving.baseline: the file ")
    assert problem.endswith("is outside the folders that the service may read")


def test_accept_reads_no_large_file_in_the_folder_of_a_deployment(
    spec: dict[str, Any], root: Path
) -> None:
    (root / "deploy").mkdir()
    with (root / "deploy" / "config.properties").open("wb") as file:
        file.truncate(1 << 40)
    (problem,) = problems_of(spec, root, serving={"baseline": "deploy"})
    assert "the maximum is" in problem


@pytest.mark.parametrize("baseline", ["config.properties", "compose.yaml"])
def test_accept_answers_alike_whether_the_target_of_an_environment_exists(
    spec: dict[str, Any], root: Path, baseline: str
) -> None:
    secret = root.parent / "secret"
    (root / baseline).write_text("services: {ts: {image: torchserve}}\n")
    (root / "environment").symlink_to(secret)
    answers = []
    for content in (None, "A=b\n", "no variable"):
        if content is not None:
            secret.write_text(content)
        answers.append(problems_of(spec, root, serving={"baseline": baseline}))
    assert answers[0] == answers[1] == answers[2]
    assert "is outside the folders" in answers[0][0]


def test_accept_ignores_the_environment_beside_the_folder_of_a_deployment(
    spec: dict[str, Any], root: Path
) -> None:
    (root / "deploy").mkdir()
    (root / "deploy" / "config.properties").write_text("job_queue_size=7\n")
    (root / "environment").symlink_to(root.parent / "secret")
    accept({**spec, "serving": {"baseline": "deploy"}}, {}, [root])


def test_check_archive_unpacks_no_manifest_beyond_its_stated_size(tmp_path: Path) -> None:
    size = 64_123_457
    path = write_zip(tmp_path / "a.mar", {"MAR-INF/MANIFEST.json": b" " * size, "h.py": b""})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<L", size), struct.pack("<L", 100)))
    tracemalloc.start()
    try:
        with pytest.raises(FileProblem, match=r"'MAR-INF/MANIFEST.json' has a different size"):
            FileChecks((tmp_path,)).check_archive(path, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_check_archive_refuses_damaged_archives(tmp_path: Path) -> None:
    """A reader may stop before the damage, and so read what was not checked."""
    (tmp_path / "a.mar").write_bytes(b"no zip")
    damaged = write_zip(tmp_path / "b.mar", {"MAR-INF/MANIFEST.json": MANIFEST.encode()})
    with zipfile.ZipFile(damaged) as archive:
        checksum = struct.pack("<L", archive.infolist()[0].CRC)
    damaged.write_bytes(damaged.read_bytes().replace(checksum, b"abcd"))
    (tmp_path / "c.tar.gz").write_bytes(b"no gzip")
    unpacked = io.BytesIO()
    with tarfile.open(fileobj=unpacked, mode="w") as tar:
        tar.addfile(member("a/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
    packed = gzip.compress(unpacked.getvalue()[:1536]) + b"garbage"
    (tmp_path / "d.tar.gz").write_bytes(packed)
    for name in ("a.mar", "b.mar", "c.tar.gz", "d.tar.gz"):
        with pytest.raises(FileProblem, match=f"{name} is not a model archive"):
            FileChecks((tmp_path,)).check_archive(tmp_path / name, 1 << 20)


@pytest.mark.parametrize("name", ["/dev/zero", "/etc/passwd", "../../../secret.yaml"])
def test_accept_reads_no_file_outside_of_an_only_subfolder(
    spec: dict[str, Any], root: Path, name: str
) -> None:
    inner = root / "m" / "inner"
    (inner / "MAR-INF").mkdir(parents=True)
    manifest = {"model": {"modelName": "a", "handler": "h.py", "configFile": name}}
    (inner / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (root.parent / "secret.yaml").write_text("password: 1")
    (problem,) = problems_of(spec, root, model={**spec["model"], "archive": "m"})
    assert problem.endswith(f"m: the configFile {name!r} of its manifest is outside of it")


def test_open_archive_reads_only_regular_files_inside_of_a_folder(tmp_path: Path) -> None:
    folder = as_folder(make_archive(tmp_path))
    (tmp_path / "secret.yaml").write_text("a: 1")
    os.mkfifo(folder / "pipe")
    with open_archive(folder) as read:
        assert read("handler.py")
        for name in (str(tmp_path / "secret.yaml"), "../secret.yaml", "/dev/zero", "pipe", "\0"):
            with pytest.raises(KeyError, match="there is no file"):
                read(name)


def test_check_archive_looks_into_linked_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    other = root / "other"
    other.mkdir(parents=True)
    (other / "loop").symlink_to(root)
    (root / "m").mkdir()
    (root / "m" / "inner").symlink_to(other)
    FileChecks((root,)).check_archive(root / "m", 1 << 20)
    (other / "MAR-INF").mkdir()
    (other / "MAR-INF" / "MANIFEST.json").symlink_to("/etc/passwd")
    with pytest.raises(FileProblem, match="is outside the folders"):
        FileChecks((root,)).check_archive(root / "m", 1 << 20)


@pytest.mark.parametrize("load_models", ["echo.mar,other.mar", "all"])
@pytest.mark.parametrize("is_linked", [False, True])
def test_accept_answers_alike_whatever_is_in_a_model_store_outside(
    spec: dict[str, Any], root: Path, load_models: str, is_linked: bool
) -> None:
    store = root.parent / "store"
    (root / "store").symlink_to(store)
    named = "store" if is_linked else str(store)
    text = f"model_store={named}\nload_models={load_models}\n"
    (root / "config.properties").write_text(text)

    def answer() -> list[str] | None:
        try:
            accept({**spec, "serving": {"baseline": "config.properties"}}, {}, [root])
        except SpecError as error:
            return error.problems
        return None

    answers = [answer()]
    for content in (None, b"no zip", make_archive(root.parent, name="x").read_bytes()):
        store.mkdir(exist_ok=True)
        if content is not None:
            (store / "other.mar").write_bytes(content)
        answers.append(answer())
    assert answers == [answers[0]] * 4
    if load_models == "all":
        assert answers[0] is None, "the store of an image is not here"
    else:
        assert answers[0] is not None and answers[0][0].startswith("serving.models.other: ")


def test_accept_ignores_a_model_store_that_no_model_needs(spec: dict[str, Any], root: Path) -> None:
    text = "model_store=/home/model-server/model-store\nload_models=echo.mar\n"
    (root / "config.properties").write_text(text)
    accept({**spec, "serving": {"baseline": "config.properties"}}, {}, [root])


@pytest.mark.parametrize("load_models", ["echo.mar,other.mar", "all", "given"])
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_accept_opens_only_regular_files_inside_of_a_model_store(
    spec: dict[str, Any], root: Path, load_models: str, kind: str
) -> None:
    store = root / "store"
    store.mkdir()
    outside = make_archive(root.parent / "secret", name="other")
    if kind == "pipe":
        os.mkfifo(store / "other.mar")
    else:
        (store / "other.mar").symlink_to(outside)
    serving: dict[str, Any] = {"baseline": "config.properties"}
    if load_models == "given":
        serving["models"] = {"other": "store/other.mar"}
        load_models = "echo.mar"
    text = f"model_store=store\nload_models={load_models}\n"
    (root / "config.properties").write_text(text)
    (problem,) = problems_of(spec, root, serving=serving)
    expected = "is not a regular file" if kind == "pipe" else "is outside the folders"
    assert problem.startswith("serving.models.other: ") and expected in problem


def test_accept_lists_no_linked_folder_of_a_model_store(spec: dict[str, Any], root: Path) -> None:
    outside = root.parent / "secret"
    (root / "store").mkdir()
    (root / "store" / "link").symlink_to(outside)
    (root / "config.properties").write_text("model_store=store\nload_models=all\n")
    serving = {"baseline": "config.properties"}
    accept({**spec, "serving": serving}, {}, [root])
    make_archive(outside, name="other")
    (outside / "MAR-INF").mkdir(parents=True)
    accept({**spec, "serving": serving}, {}, [root])


def test_accept_looks_for_no_model_beside_an_archive_that_is_a_root(
    spec: dict[str, Any], root: Path
) -> None:
    folder = as_folder(make_archive(root / "models"))
    make_archive(root / "models", name="other")
    (folder / "requests.jsonl").write_text('{"body": "a"}\n')
    (folder / "config.properties").write_text("load_models=echo.mar,other.mar\n")
    serving = {"baseline": "config.properties"}
    (problem,) = problems_of(
        {**spec, "model": {"archive": ".", "requests": "requests.jsonl"}}, folder, serving=serving
    )
    assert problem.startswith("serving.models.other: ")
    (root / "models" / "other.mar").unlink()
    assert problem in problems_of(
        {**spec, "model": {"archive": ".", "requests": "requests.jsonl"}}, folder, serving=serving
    ), "the same answer without it"
