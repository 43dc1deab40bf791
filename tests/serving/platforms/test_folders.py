"""Reading folders with several files of platforms."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.platforms.reading import read_platform

FILES = {
    "compose.yaml": "services: {ts: {image: torchserve}, db: {image: db}}\n",
    "Dockerfile": "FROM pytorch/torchserve\nCOPY config.properties .\n",
    "ts.service": "[Service]\nExecStart=/bin/torchserve --start\n",
    "pod.yaml": "kind: Pod\nspec: {containers: [{image: torchserve}]}\n",
    "k8s/pod.yaml": "kind: Pod\nspec: {containers: [{image: torchserve}]}\n",
    "prod.yml": "services: {ts: {image: torchserve}}\n",
    "config.properties": "",
}
FILES |= dict.fromkeys(
    ("Dockerfile.gpu", "Dockerfile-gpu", "serving.Dockerfile", "Containerfile"), FILES["Dockerfile"]
)
OTHERS = {
    "compose.yaml": "services: {web: {image: nginx}, db: {image: db}}\n",
    "Dockerfile": 'FROM python:3.11\nCOPY app.py /\nCMD ["python", "app.py"]\n',
    "nginx.service": "[Service]\nExecStart=/usr/sbin/nginx\n",
    "values.yaml": "image: {{ .Values.image }}\n",
    "a.yaml": "batchSize: 4\n",
    "Dockerfile.dockerignore": "*.torchserve\n",
    **dict.fromkeys(("Dockerfile.cpu", "Dockerfile.gpu"), FILES["Dockerfile"]),
}
OTHERS["Dockerfile.web"] = OTHERS["Dockerfile"]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "config.properties").write_text("job_queue_size=7\n")
    return folder


@pytest.mark.parametrize(
    ("name", "others", "platform"),
    [
        ("compose.yaml", ("Dockerfile", "nginx.service", "values.yaml", "a.yaml"), "compose"),
        ("Dockerfile", ("compose.yaml", "nginx.service", "values.yaml"), "docker"),
        ("ts.service", ("compose.yaml", "Dockerfile", "nginx.service"), "systemd"),
        ("pod.yaml", ("compose.yaml", "Dockerfile", "nginx.service", "a.yaml"), "kubernetes"),
        ("prod.yml", ("Dockerfile", "nginx.service", "values.yaml"), "compose"),
        ("Dockerfile.gpu", ("Dockerfile.web", "compose.yaml", "a.yaml"), "docker"),
        ("serving.Dockerfile", ("nginx.service",), "docker"),
        ("Containerfile", ("nginx.service",), "docker"),
        ("Dockerfile", ("Dockerfile.web", "Dockerfile.dockerignore"), "docker"),
        ("k8s/pod.yaml", ("Dockerfile.cpu", "Dockerfile.gpu"), "kubernetes"),
        ("config.properties", ("Dockerfile.cpu", "Dockerfile.gpu"), "properties"),
        ("config.properties", ("Dockerfile.web",), "properties"),
        ("Dockerfile-gpu", ("Dockerfile.web", "nginx.service"), "docker"),
    ],
)
def test_read_platform_reads_the_deployment_of_torchserve(
    tmp_path: Path, name: str, others: tuple[str, ...], platform: str
) -> None:
    write(tmp_path, {name: FILES[name], **{other: OTHERS[other] for other in others}})
    found = read_platform(tmp_path)
    assert found is not None and found.platform == platform
    assert not any("also has" in note for note in found.notes)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("compose.yaml", "Dockerfile"), "also has Dockerfile: compose.yaml was read"),
        (("compose.yaml", "ts.service"), "also has ts.service: compose.yaml was read"),
        (
            ("Dockerfile", "ts.service", "pod.yaml"),
            "also has ts.service, manifests: Dockerfile was",
        ),
        (("ts.service", "k8s/pod.yaml"), "also has manifests: ts.service was read"),
    ],
)
def test_read_platform_notes_other_deployments(
    tmp_path: Path, names: tuple[str, ...], note: str
) -> None:
    found = read_platform(write(tmp_path, {name: FILES[name] for name in names}))
    assert found is not None and note in found.notes[-1]


def test_read_platform_notes_no_file_of_the_deployment_itself(tmp_path: Path) -> None:
    compose = "services: {ts: {build: .}}\n"
    write(tmp_path, {"compose.yaml": compose, "Dockerfile": FILES["Dockerfile"]})
    found = read_platform(tmp_path)
    assert found is not None and found.notes == () and found.properties == "job_queue_size=7\n"


@pytest.mark.parametrize(
    "files",
    [
        {"a.service": FILES["ts.service"], "b.service": FILES["ts.service"]},
        {"prod.yml": FILES["prod.yml"], "dev.yml": FILES["prod.yml"]},
    ],
)
def test_read_platform_refuses_two_deployments_of_one_kind(
    tmp_path: Path, files: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="has 2 deployments of one kind") as caught:
        read_platform(write(tmp_path, files))
    assert all(name in str(caught.value) for name in files)


@pytest.mark.parametrize("name", ["docker-compose.prod.yml", "stack.yaml", "compose-gpu.yml"])
def test_read_platform_knows_a_compose_file_by_its_services(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: FILES["prod.yml"]})
    for path in (tmp_path, tmp_path / name):
        found = read_platform(path)
        assert found is not None and found.platform == "compose"


def test_read_platform_reports_a_unit_of_another_command(tmp_path: Path) -> None:
    write(tmp_path, {"nginx.service": OTHERS["nginx.service"]})
    with pytest.raises(ConfigError, match="ExecStart does not run torchserve"):
        read_platform(tmp_path)


def test_read_platform_reads_no_folder_as_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "charts.yaml").mkdir()
    (tmp_path / "config.properties").write_text("job_queue_size=7\n")
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == "job_queue_size=7\n"


@pytest.mark.parametrize("template", ["values/pod.yaml", "ts.yml", "a/b/chart.yaml"])
def test_read_platform_leaves_out_templates_with_a_note(tmp_path: Path, template: str) -> None:
    path = tmp_path / template
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{{- if .Values.enabled }}\nkind: Pod\n{{- end }}\n")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_platform(tmp_path)
    read = read_platform(write(tmp_path, {}))
    assert read is not None and read.properties == "job_queue_size=7\n"
    assert any(f"{template}: not valid YAML, left out" in note for note in read.notes)


@pytest.mark.parametrize(
    ("start", "is_noted"),
    [
        ('ENTRYPOINT ["/usr/local/bin/dockerd-entrypoint.sh"]\nCMD ["serve"]', False),
        ('CMD ["/usr/local/bin/dockerd-entrypoint.sh", "serve"]', False),
        ('CMD ["serve"]', False),
        ('ENTRYPOINT ["/start.sh"]', True),
    ],
)
def test_read_platform_knows_the_entrypoint_of_the_image(
    tmp_path: Path, start: str, is_noted: bool
) -> None:
    text = f"FROM pytorch/torchserve\nCOPY config.properties /home/model-server/\n{start}\n"
    read = read_platform(write(tmp_path, {"Dockerfile": text}))
    assert read is not None and read.properties == "job_queue_size=7\n"
    assert any("does not name torchserve" in note for note in read.notes) is is_noted
