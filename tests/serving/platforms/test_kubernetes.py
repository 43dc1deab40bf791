"""Reading Kubernetes manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ConfigError
from serving.limits import Limits
from serving.platforms.files import parse_quantity
from serving.platforms.reading import read_platform

CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: ts-config}
data:
  config.properties: |
    job_queue_size=7
  THREADS: "3"
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: ts}
spec:
  template:
    spec:
      containers:
        - name: proxy
          image: envoy
        - name: serve
          image: registry/serving@sha256:00
          command: [%s]
          env:
            - {name: OMP_NUM_THREADS, value: "2"}
            - {name: BASE, value: /models}
            - {name: STORE, value: "$(BASE)/store"}
            - {name: THREADS, valueFrom: {configMapKeyRef: {name: ts-config, key: THREADS}}}
            - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: hub, key: token}}}
            - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
          resources: {limits: {cpu: 1500m, memory: 2Gi}}
          volumeMounts: [%s]
      volumes:
        - {name: config, configMap: {name: ts-config%s}}
"""
START = "torchserve, --start, --ncs, --ts-config, /etc/ts/config.properties"


def write(
    folder: Path,
    command: str = START,
    mounts: str = "{name: config, mountPath: /etc/ts}",
    items: str = "",
) -> Path:
    (folder / "deployment.yaml").write_text(DEPLOYMENT % (command, mounts, items))
    (folder / "config.yaml").write_text(CONFIG_MAP)
    return folder


@pytest.mark.parametrize(
    ("command", "mounts", "items"),
    [
        (START, "{name: config, mountPath: /etc/ts}", ""),
        (
            "torchserve, --start, --ts-config=/etc/ts/config.properties",
            "{name: config, mountPath: /etc/ts/config.properties, subPath: config.properties}",
            "",
        ),
        (
            "sh, -c, 'exec torchserve --start --ts-config /etc/ts/ts.conf'",
            "{name: config, mountPath: /etc/ts}",
            ", items: [{key: config.properties, path: ts.conf}]",
        ),
        (
            "/usr/bin/torchserve, --start",
            "{name: config, mountPath: /home/model-server/config.properties, "
            "subPath: config.properties}",
            "",
        ),
    ],
    ids=["folder", "file", "items", "default place"],
)
def test_read_kubernetes_finds_the_config_map(
    tmp_path: Path, command: str, mounts: str, items: str
) -> None:
    platform = read_platform(write(tmp_path, command, mounts, items))
    assert platform is not None and platform.platform == "kubernetes"
    assert platform.properties == "job_queue_size=7\n"
    assert platform.environment == {
        "OMP_NUM_THREADS": "2",
        "BASE": "/models",
        "STORE": "/models/store",
        "THREADS": "3",
    }
    assert platform.secrets == ("HF_TOKEN",)
    assert platform.limits == Limits(1.5, 2 << 30)
    assert platform.notes == ("variable NODE is known only in the cluster",)


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("torchserve, --start, --ts-config, config.properties", "/etc/ts"),
        ("torchserve, --start, --ts-config, ts/config.properties", "/etc"),
        ("sh, -c, 'cd ts && torchserve --start --ncs'", "/etc"),
        ("torchserve, --start, --ts-config, ../../etc/ts/config.properties", None),
    ],
)
def test_read_kubernetes_starts_relative_paths_in_the_working_folder(
    tmp_path: Path, command: str, folder: str | None
) -> None:
    write(tmp_path, command)
    path = tmp_path / "deployment.yaml"
    entry = f"workingDir: {folder}\n          " if folder else ""
    path.write_text(path.read_text().replace("command: [", f"{entry}command: [", 1))
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == "job_queue_size=7\n"


def test_read_kubernetes_notes_what_only_a_shell_knows(tmp_path: Path) -> None:
    write(tmp_path, "sh, -c, 'export A=$(nproc); cd /etc/ts && torchserve --start'")
    platform = read_platform(tmp_path)
    assert platform is not None and "A" not in platform.environment
    assert any(note.startswith("variable A of the command is not read") for note in platform.notes)


def test_read_kubernetes_reads_one_file_with_all_documents(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "all.yaml"
    deployment = (tmp_path / "deployment.yaml").read_text()
    path.write_text(f"{CONFIG_MAP}---\n{deployment}---\n")
    platform = read_platform(path)
    assert platform is not None and platform.properties == "job_queue_size=7\n"


def test_read_kubernetes_reads_generated_config_maps(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "ts.properties").write_bytes(b"# r\xe9gl\xe9\r\njob_queue_size=8\r\n")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [deployment.yaml]\nconfigMapGenerator:\n  - name: ts-config\n"
        "    files: [config.properties=files/ts.properties]\n    literals: [THREADS=4]\n"
    )
    platform = read_platform(tmp_path)
    assert platform is not None
    assert platform.properties == "# r\xe9gl\xe9\r\njob_queue_size=8\r\n"
    assert platform.environment["THREADS"] == "4"


@pytest.mark.parametrize("source", ["literals: [THREADS=é]", "envs: [ts.env]"])
def test_read_kubernetes_reads_variables_as_utf_8(tmp_path: Path, source: str) -> None:
    write(tmp_path)
    (tmp_path / "ts.env").write_text("THREADS=é\n")
    (tmp_path / "kustomization.yaml").write_text(
        f"configMapGenerator:\n  - name: ts-config\n    {source}\n"
    )
    platform = read_platform(tmp_path)
    assert platform is not None and platform.environment["THREADS"] == "é"


def test_read_kubernetes_refuses_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match=r"reads /etc/ts/config\.properties, which no ConfigMap"):
        read_platform(tmp_path / "deployment.yaml")
    (tmp_path / "second.yaml").write_text((tmp_path / "deployment.yaml").read_text())
    with pytest.raises(ConfigError, match="has 2 workloads"):
        read_platform(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("500m", 0.5), ("2", 2), (4, 4), ("1.5Gi", 1.5 * 2**30), ("1e3", 1000)),
        *(("100k", 100_000), ("1500000u", 1.5), ("250000000n", 0.25), ("250n", 2.5e-7)),
    ],
)
def test_parse_quantity_reads_each_form(text: object, value: float) -> None:
    assert parse_quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "two", "5Qi", "1.2.3", None])
def test_parse_quantity_refuses_other_text(text: object) -> None:
    with pytest.raises(ConfigError, match="is not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize("value", ["", ", value: ", ", value: null"])
def test_read_kubernetes_reads_null_as_absent(tmp_path: Path, value: str) -> None:
    write(tmp_path)
    path = tmp_path / "deployment.yaml"
    text = path.read_text().replace("limits: {cpu: 1500m", "limits: {cpu: null")
    text = text.replace("env:\n", f"env:\n            - {{name: EMPTY{value}}}\n")
    text = text.replace(
        "env:\n", "envFrom: [{prefix: null, configMapRef: {name: ts-config}}]\n          env:\n"
    )
    path.write_text(text)
    platform = read_platform(tmp_path)
    assert platform is not None and platform.environment["EMPTY"] == ""
    assert platform.environment["THREADS"] == "3" and platform.limits == Limits(None, 2 << 30)
    assert not any(name.startswith("None") for name in platform.environment)


def test_read_kubernetes_reads_the_config_map_of_its_namespace(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "deployment.yaml"
    path.write_text(path.read_text().replace("{name: ts}", "{name: ts, namespace: a}"))
    for name in ("a", "b"):
        text = CONFIG_MAP.replace("{name: ts-config}", f"{{name: ts-config, namespace: {name}}}")
        (tmp_path / f"{name}.yaml").write_text(text.replace("=7", "=8" if name == "a" else "=9"))
    (tmp_path / "config.yaml").unlink()
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == "job_queue_size=8\n"


def test_read_kubernetes_compares_normal_paths(tmp_path: Path) -> None:
    write(
        tmp_path,
        "torchserve, --ts-config, /etc//ts/./config.properties",
        "{name: config, mountPath: /etc/ts/}",
    )
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == "job_queue_size=7\n"


@pytest.mark.parametrize(
    "entry",
    [
        "patches: [{path: threads.yaml}]",
        "patchesStrategicMerge: [threads.yaml]",
        "patchesJson6902: [{path: threads.yaml, target: {kind: Deployment, name: ts}}]",
        "components: [../components/gpu]",
        "resources: [deployment.yaml, ../base]",
        "resources: [deployment.yaml, 'https://github.com/a/b//base?ref=v1']",
        "bases: [../base]",
        "helmCharts: [{name: torchserve}]",
    ],
)
@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml", "Kustomization"])
def test_read_kubernetes_refuses_kustomizations_that_it_does_not_apply(
    tmp_path: Path, entry: str, name: str
) -> None:
    write(tmp_path)
    (tmp_path / name).write_text(f"{entry}\n")
    key = entry.partition(":")[0]
    with pytest.raises(ConfigError, match=rf"has {key}.* run `kubectl kustomize {tmp_path} >"):
        read_platform(tmp_path)


def test_read_kubernetes_refuses_an_overlay_without_workloads(tmp_path: Path) -> None:
    overlay = tmp_path / "overlays" / "prod"
    overlay.mkdir(parents=True)
    path = overlay / "kustomization.yaml"
    path.write_text("resources: [../../base]\nimages: [{name: a, newTag: '2'}]\n")
    for place in (overlay, path):
        with pytest.raises(ConfigError, match=r"has resources: \.\./\.\./base, which servetune"):
            read_platform(place)


def test_read_kubernetes_reads_an_overlay_with_its_base(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path / "base")
    (tmp_path / "base" / "kustomization.yaml").write_text(
        "resources: [./deployment.yaml, config.yaml]\npatches: []\n"
    )
    (tmp_path / "prod").mkdir()
    (tmp_path / "prod" / "kustomization.yaml").write_text(
        "resources: [../base]\nnamePrefix: prod-\n"
    )
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == "job_queue_size=7\n"


def test_read_kserve_refuses_kustomizations_that_servetune_does_not_apply(tmp_path: Path) -> None:
    (tmp_path / "isvc.yaml").write_text(
        "kind: InferenceService\nspec: {predictor: {pytorch: {storageUri: pvc://a}}}\n"
    )
    (tmp_path / "kustomization.yaml").write_text("resources: [isvc.yaml]\npatches: [{path: a}]\n")
    with pytest.raises(ConfigError, match="has patches, which servetune does not apply"):
        read_platform(tmp_path)


HOOK = (
    "kind: Pod\nmetadata: {name: test, annotations: {'helm.sh/hook': test}}\n"
    "spec: {containers: [{image: pytorch/torchserve}]}\n"
)
REDIS = (
    "kind: %s\nmetadata: {name: redis}\n"
    "spec: {template: {spec: {containers: [{image: redis, command: [redis-server]}]}}}\n"
)


@pytest.mark.parametrize(
    "other",
    [HOOK, REDIS % "Deployment", REDIS % "StatefulSet", "kind: DaemonSet\nspec: {}\n"],
    ids=["hook", "Deployment", "StatefulSet", "empty"],
)
def test_read_kubernetes_leaves_out_other_workloads(tmp_path: Path, other: str) -> None:
    write(tmp_path)
    (tmp_path / "other.yaml").write_text(other)
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == "job_queue_size=7\n"


def test_read_kubernetes_refuses_workloads_of_which_none_runs_torchserve(tmp_path: Path) -> None:
    for kind in ("Deployment", "StatefulSet"):
        (tmp_path / f"{kind}.yaml").write_text(REDIS % kind)
    with pytest.raises(ConfigError, match=r"has no workloads \(.*\) that run torchserve"):
        read_platform(tmp_path)


SECRET = "kind: Secret\nmetadata: {name: cfg}\n"
SERVER = """
kind: Pod
spec:
  containers:
    - image: pytorch/torchserve
      volumeMounts: [{name: v, mountPath: %s}]
  volumes: [{name: v, %s}]
"""
FILE = "/home/model-server/config.properties, subPath: config.properties"


@pytest.mark.parametrize(
    "data",
    [
        "stringData: {config.properties: 'job_queue_size=7'}\n",
        "data: {config.properties: am9iX3F1ZXVlX3NpemU9Nw==}\n",
        "data: {config.properties: YT1i}\nstringData: {config.properties: 'job_queue_size=7'}\n",
    ],
    ids=["text", "base64", "both"],
)
@pytest.mark.parametrize(
    ("mount", "volume"),
    [
        (FILE, "secret: {secretName: cfg}"),
        ("/home/model-server", "secret: {secretName: cfg}"),
        ("/home/model-server", "projected: {sources: [{secret: {name: cfg}}]}"),
    ],
    ids=["file", "folder", "projected"],
)
def test_read_kubernetes_reads_a_config_properties_in_a_secret(
    tmp_path: Path, data: str, mount: str, volume: str
) -> None:
    (tmp_path / "pod.yaml").write_text(SERVER % (mount, volume))
    (tmp_path / "secret.yaml").write_text(SECRET + data)
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == "job_queue_size=7"
    assert platform.notes == ()


def test_read_kubernetes_reads_a_generated_secret(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(SERVER % (FILE, "secret: {secretName: cfg}"))
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [pod.yaml]\n"
        "secretGenerator: [{name: cfg, literals: ['config.properties=job_queue_size=7']}]\n"
    )
    platform = read_platform(tmp_path)
    assert platform is not None and platform.properties == "job_queue_size=7"


@pytest.mark.parametrize(
    ("mount", "volume", "source"),
    [
        (FILE, "secret: {secretName: cfg}", "Secret cfg"),
        (FILE, "configMap: {name: cfg}", "ConfigMap cfg"),
        ("/home/model-server", "secret: {secretName: cfg}", "Secret cfg"),
        ("/home/model-server", "persistentVolumeClaim: {claimName: a}", "volume v"),
        ("/home/model-server", "emptyDir: {}", "volume v"),
    ],
    ids=["Secret", "ConfigMap", "folder", "claim", "empty folder"],
)
def test_read_kubernetes_notes_a_mounted_file_that_is_missing(
    tmp_path: Path, mount: str, volume: str, source: str
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(SERVER % (mount, volume))
    platform = read_platform(path)
    assert platform is not None and platform.notes == (
        f"/home/model-server/config.properties is in {source}, not in these files: its lines are "
        "missing",
    )
    command = "command: [torchserve, --ts-config, /home/model-server/config.properties]"
    path.write_text(path.read_text().replace("image:", f"{command}\n      image:"))
    with pytest.raises(ConfigError, match=f"provides .{source} is mounted there.; it is named by"):
        read_platform(path)


@pytest.mark.parametrize(
    ("mount", "volume"),
    [
        ("/home/model-server/model-store", "persistentVolumeClaim: {claimName: a}"),
        ("/home/model-server/log4j2.xml, subPath: log4j2.xml", "configMap: {name: cfg}"),
        ("/home/model-server/config", "secret: {secretName: cfg}"),
    ],
)
def test_read_kubernetes_notes_the_file_of_the_image(
    tmp_path: Path, mount: str, volume: str
) -> None:
    (tmp_path / "pod.yaml").write_text(SERVER % (mount, volume))
    platform = read_platform(tmp_path)
    assert platform is not None
    assert platform.notes == ("no config.properties is mounted: the image has its own",)


def test_read_kubernetes_names_the_variables_of_a_secret(tmp_path: Path) -> None:
    pod = SERVER % (FILE, "secret: {secretName: cfg}")
    pod = pod.replace("image:", "envFrom: [{prefix: A_, secretRef: {name: cfg}}]\n      image:")
    (tmp_path / "pod.yaml").write_text(pod)
    (tmp_path / "secret.yaml").write_text(
        f"{SECRET}stringData: {{config.properties: a=b, TOKEN: x}}\n"
    )
    platform = read_platform(tmp_path)
    assert platform is not None and platform.notes == ()
    assert platform.secrets == ("A_config.properties", "A_TOKEN")
    assert platform.environment == {}


@pytest.mark.parametrize(
    ("base", "prefix"), [("../../base", ""), ("../../base/", "./"), ("../../base/all.yaml", "./")]
)
def test_read_kubernetes_refuses_several_overlays_of_one_base(
    tmp_path: Path, base: str, prefix: str
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "all.yaml").write_text(SERVER % (FILE, "configMap: {name: cfg}"))
    for name, queue in (("dev", 7), ("prod", 70)):
        (tmp_path / "overlays" / name).mkdir(parents=True)
        (tmp_path / "overlays" / name / "kustomization.yaml").write_text(
            f"resources: ['{prefix if name == 'dev' else ''}{base}']\n"
            "configMapGenerator: [{name: cfg, behavior: merge, "
            f"literals: ['config.properties=job_queue_size={queue}']}}]\n"
        )
    with pytest.raises(ConfigError, match=r"dev/kust.* and .*prod/kust.* both change .*base"):
        read_platform(tmp_path)


def test_read_kubernetes_prefers_the_variables_of_the_container(tmp_path: Path) -> None:
    pod = SERVER % (FILE, "secret: {secretName: cfg}")
    pod = pod.replace(
        "image:",
        "envFrom: [{secretRef: {name: cfg}}, {configMapRef: {name: open}}]\n"
        "      env:\n        - {name: LEVEL, value: debug}\n"
        "        - {name: TOKEN, valueFrom: {secretKeyRef: {name: cfg, key: LEVEL}}}\n"
        "      image:",
    )
    (tmp_path / "pod.yaml").write_text(
        f"{pod}---\nkind: ConfigMap\nmetadata: {{name: open}}\ndata: {{TOKEN: x}}\n"
    )
    (tmp_path / "secret.yaml").write_text(
        f"{SECRET}stringData: {{config.properties: a=b, LEVEL: x}}\n"
    )
    platform = read_platform(tmp_path)
    assert platform is not None
    assert platform.environment == {"LEVEL": "debug"}
    assert platform.secrets == ("config.properties", "TOKEN")
