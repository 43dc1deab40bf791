"""Reading InferenceServices with their runtimes."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.limits import Limits
from serving.platforms.files import PlatformFiles
from serving.platforms.reading import read_platform

RUNTIME = """
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata: {name: my-ts}
spec:
  supportedModelFormats: [{name: pytorch, autoSelect: true}]
  containers:
    - name: kserve-container
      image: registry/serving
      args: [torchserve, --start, --ts-config=/mnt/models/config/prod.properties]
      env:
        - {name: TS_SERVICE_ENVELOPE, value: "{{.Labels.serviceEnvelope}}"}
        - {name: OMP_NUM_THREADS, value: "4"}
        - {name: MODEL, value: "{{ .Name }}"}
      resources: {limits: {cpu: "3", memory: 6Gi}}
"""
SERVICE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: pets, labels: {team: vision}}
spec:
  predictor:
    model:
      modelFormat: {name: pytorch}
      storageUri: pvc://models
"""
NAMED = "      runtime: my-ts\n"


def write(folder: Path, service: str, runtime: str = RUNTIME) -> Path:
    (folder / "config").mkdir()
    (folder / "config" / "config.properties").write_text("job_queue_size=7\n")
    (folder / "config" / "prod.properties").write_text("job_queue_size=70\n")
    (folder / "isvc.yaml").write_text(service)
    if runtime:
        (folder / "runtimes").mkdir()
        (folder / "runtimes" / "runtime.yaml").write_text(runtime)
    return folder


def read(folder: Path) -> PlatformFiles:
    platform = read_platform(folder)
    assert platform is not None and platform.platform == "kserve"
    return platform


@pytest.mark.parametrize(
    ("model", "runtime"),
    [
        (NAMED, RUNTIME),
        ("", RUNTIME),
        (NAMED, RUNTIME.replace("ServingRuntime", "ClusterServingRuntime")),
        (NAMED, RUNTIME.replace("    - name: k", "    - {name: proxy}\n    - name: k")),
    ],
    ids=["named", "selects itself", "of the cluster", "several containers"],
)
def test_read_kserve_reads_the_runtime(tmp_path: Path, model: str, runtime: str) -> None:
    platform = read(write(tmp_path, SERVICE + model, runtime))
    assert platform.properties == "job_queue_size=70\n"
    assert platform.environment == {
        "TS_SERVICE_ENVELOPE": "kserve",
        "OMP_NUM_THREADS": "4",
        "MODEL": "pets",
    }
    assert platform.limits == Limits(3.0, 6 << 30)
    assert platform.notes == ()


def test_read_kserve_merges_the_model_into_the_runtime(tmp_path: Path) -> None:
    model = (
        "      protocolVersion: v2\n"
        "      args: [--ncs, --ts-config=/mnt/models/config/config.properties]\n"
        "      env: [{name: OMP_NUM_THREADS, value: '2'}, {name: A, value: $(MODEL)}]\n"
        "      resources: {limits: {cpu: 2}}\n"
    )
    platform = read(write(tmp_path, SERVICE + NAMED + model))
    assert platform.properties == "job_queue_size=7\n"
    assert platform.arguments[:3] == (
        "--start",
        "--ts-config=/mnt/models/config/prod.properties",
        "--ncs",
    )
    assert platform.environment == {
        "TS_SERVICE_ENVELOPE": "kservev2",
        "OMP_NUM_THREADS": "2",
        "MODEL": "pets",
        "A": "pets",
    }
    assert platform.limits == Limits(2.0, 6 << 30)


def test_read_kserve_reads_a_config_map_of_the_runtime(tmp_path: Path) -> None:
    runtime = RUNTIME.replace("/mnt/models/config/prod", "/etc/ts/config").replace(
        "  containers:", "  volumes: [{name: c, configMap: {name: cfg}}]\n  containers:"
    )
    runtime += "      volumeMounts: [{name: c, mountPath: /etc/ts}]\n"
    config_map = "---\nkind: ConfigMap\nmetadata: {name: cfg}\ndata: {config.properties: a=b}\n"
    other = config_map.replace("{name: cfg}", "{name: cfg, namespace: other}").replace("a=b", "a=c")
    service = SERVICE.replace("{name: pets,", "{name: pets, namespace: pets,") + NAMED
    other += f"---{RUNTIME}".replace("{name: my-ts}", "{name: my-ts, namespace: other}")
    platform = read(write(tmp_path, service, f"{other}---{runtime}{config_map}"))
    assert platform.properties == "a=b"


@pytest.mark.parametrize("name", ["my-ts", "other"])
def test_read_kserve_notes_a_missing_runtime(tmp_path: Path, name: str) -> None:
    runtime = "" if name == "my-ts" else RUNTIME
    platform = read(write(tmp_path, f"{SERVICE}      runtime: {name}\n", runtime))
    assert platform.properties == "job_queue_size=7\n"
    assert platform.notes[0].startswith(f"the runtime {name} is not in these files")


@pytest.mark.parametrize(
    ("model", "limits"),
    [
        ("", Limits(1.0, 2 << 30)),
        ("      runtime: kserve-torchserve\n", Limits(1.0, 2 << 30)),
        ("      resources: {limits: {memory: 4Gi}}\n", Limits(1.0, 4 << 30)),
        ("      resources: {requests: {cpu: 4}}\n", Limits(1.0, 2 << 30)),
    ],
    ids=["none", "named", "memory", "requests"],
)
def test_read_kserve_reads_the_limits_of_the_default_runtime(
    tmp_path: Path, model: str, limits: Limits
) -> None:
    platform = read(write(tmp_path, SERVICE + model, ""))
    assert platform.limits == limits
    assert platform.notes == ()


@pytest.mark.parametrize(
    ("name", "runtime", "message"),
    [
        ("sklearn", "", "the format sklearn, which kserve-torchserve does not serve"),
        ("sklearn", RUNTIME, "the format sklearn, which kserve-torchserve does not serve"),
        (
            "sklearn",
            RUNTIME.replace("pytorch", "sklearn").replace("[torchserve, ", "["),
            "the runtime my-ts does not run torchserve",
        ),
        (
            "pytorch",
            RUNTIME.replace("      args", "      command: [tritonserver]\n      args").replace(
                "[torchserve, ", "["
            ),
            "the runtime my-ts does not run torchserve",
        ),
    ],
    ids=["no runtime", "another runtime", "another server", "another command"],
)
def test_read_kserve_refuses_a_model_that_torchserve_does_not_serve(
    tmp_path: Path, name: str, runtime: str, message: str
) -> None:
    write(tmp_path, SERVICE.replace("pytorch", name), runtime)
    with pytest.raises(ConfigError, match=message):
        read_platform(tmp_path)


def test_read_kserve_reads_another_format_that_torchserve_serves(tmp_path: Path) -> None:
    service = SERVICE.replace("pytorch", "torchscript")
    platform = read(write(tmp_path, service, RUNTIME.replace("pytorch", "torchscript")))
    assert platform.properties == "job_queue_size=70\n"


def test_read_kserve_notes_a_runtime_that_names_no_file(tmp_path: Path) -> None:
    runtime = RUNTIME.replace(", --ts-config=/mnt/models/config/prod.properties", "")
    platform = read(write(tmp_path, SERVICE, runtime))
    assert platform.properties == ""
    assert "the image has its own" in platform.notes[0]


@pytest.mark.parametrize(
    ("folder", "name", "text"),
    [
        ("/mnt/models/config", "prod.properties", "job_queue_size=70\n"),
        ("/mnt/models", "./config/config.properties", "job_queue_size=7\n"),
        ("/home", "../mnt/models/config/config.properties", "job_queue_size=7\n"),
    ],
)
@pytest.mark.parametrize("in_model", [False, True], ids=["runtime", "model"])
def test_read_kserve_starts_relative_paths_in_the_working_folder(
    tmp_path: Path, folder: str, name: str, text: str, in_model: bool
) -> None:
    runtime = RUNTIME.replace("/mnt/models/config/prod.properties", name)
    runtime += "" if in_model else f"      workingDir: {folder}\n"
    service = f"{SERVICE}      workingDir: {folder}\n" if in_model else SERVICE
    assert read(write(tmp_path, service, runtime)).properties == text


def test_read_kserve_reads_the_default_file_of_the_working_folder(tmp_path: Path) -> None:
    runtime = RUNTIME.replace(", --ts-config=/mnt/models/config/prod.properties", "").replace(
        "  containers:", "  volumes: [{name: c, configMap: {name: cfg}}]\n  containers:"
    )
    runtime += "      workingDir: /srv\n      volumeMounts: [{name: c, mountPath: /srv}]\n"
    config_map = "---\nkind: ConfigMap\nmetadata: {name: cfg}\ndata: {config.properties: a=b}\n"
    assert read(write(tmp_path, SERVICE, runtime + config_map)).properties == "a=b"


def test_read_kserve_reads_the_script_of_a_shell(tmp_path: Path) -> None:
    script = (
        "sed -i s/7/8/ config.properties; cd /mnt/models/config; "
        "exec torchserve --start --ts-config config.properties --ncs --models $(ls)"
    )
    runtime = RUNTIME.replace(
        "[torchserve, --start, --ts-config=/mnt/models/config/prod.properties]",
        f'[sh, -c, "{script}"]',
    )
    platform = read(write(tmp_path, SERVICE + NAMED, runtime))
    assert platform.properties == "job_queue_size=7\n", "the folder that the script changes to"
    notes = "; ".join(platform.notes)
    assert "option --models of the command is not read" in notes
    assert "the command runs sed on config.properties" in notes


def test_read_kserve_notes_a_command_without_torchserve(tmp_path: Path) -> None:
    runtime = RUNTIME.replace("registry/serving", "registry/torchserve").replace(
        "args: [torchserve, --start, --ts-config=/mnt/models/config/prod.properties]",
        "command: [/start.sh]",
    )
    platform = read(write(tmp_path, SERVICE + NAMED, runtime))
    assert any("/start.sh does not name torchserve" in note for note in platform.notes)
