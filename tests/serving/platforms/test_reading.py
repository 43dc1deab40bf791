"""Reading compose files, units, Dockerfiles, InferenceServices and SageMaker's variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.configuration.environment import SERVING_MODULE
from serving.errors import ConfigError
from serving.limits import Limits
from serving.platforms.files import checking_paths
from serving.platforms.reading import read_platform
from tests.serving.platforms.path_checks import refuse_outside

PROPERTIES = "job_queue_size=7\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.properties").write_text(PROPERTIES)
    (tmp_path / "environment").write_text("OMP_NUM_THREADS=2\n")
    return tmp_path


def test_read_platform_reads_a_folder_of_plain_files(folder: Path) -> None:
    platform = read_platform(folder)
    assert platform is not None and platform.platform == "properties"
    assert (platform.properties, platform.environment) == (PROPERTIES, {"OMP_NUM_THREADS": "2"})


@pytest.mark.parametrize(
    ("service", "limits"),
    [
        (
            "entrypoint: [torchserve, --ts-config, /ts/config.properties]\n"
            "    env_file: environment\n    volumes: ['./config.properties:/ts/config.properties:ro']",
            Limits(),
        ),
        (
            "command: torchserve --start --ts-config=/ts/config.properties\n"
            "    environment: [OMP_NUM_THREADS=2]\n    volumes: ['.:/ts']\n"
            "    cpus: 1.5\n    mem_limit: 2g",
            Limits(1.5, 2 << 30),
        ),
        (
            "image: pytorch/torchserve:0.12.0-cpu\n    environment: {OMP_NUM_THREADS: 2}\n"
            "    volumes: [{type: bind, source: config.properties, "
            "target: /home/model-server/config.properties}]\n"
            "    deploy: {resources: {limits: {cpus: '0.5', memory: 512M}}}",
            Limits(0.5, 512 << 20),
        ),
    ],
    ids=["lists", "shell", "image"],
)
def test_read_compose_reads_each_form(folder: Path, service: str, limits: Limits) -> None:
    (folder / "compose.yaml").write_text(f"services:\n  db: {{image: db}}\n  ts:\n    {service}\n")
    platform = read_platform(folder)
    assert platform is not None and platform.platform == "compose"
    assert (platform.properties, platform.environment) == (PROPERTIES, {"OMP_NUM_THREADS": "2"})
    assert platform.limits == limits


def test_read_compose_refuses_a_file_that_no_volume_provides(folder: Path) -> None:
    (folder / "compose.yaml").write_text(
        "services: {ts: {command: torchserve --ts-config /ts/x.properties}}\n"
    )
    with pytest.raises(ConfigError, match=r"reads /ts/x\.properties, which no volume provides"):
        read_platform(folder)


def test_read_systemd_follows_resets_and_optional_files(folder: Path) -> None:
    (folder / "ts.service").write_text(
        '[Unit]\nDescription=x\n[Service]\nEnvironment=A=1 "B=two words"\n'
        "EnvironmentFile=-/nowhere/else\nEnvironmentFile=/etc/ts/environment\n"
        "ExecStart=/bin/false\nExecStart=\n"
        "ExecStart=/opt/bin/torchserve --start --foreground \\\n"
        "  --ts-config /etc/ts/config.properties\nCPUQuota=150%\nMemoryMax=2G\n"
    )
    platform = read_platform(folder / "ts.service")
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.environment == {"A": "1", "B": "two words", "OMP_NUM_THREADS": "2"}
    assert platform.limits == Limits(1.5, 2 << 30)
    assert platform.arguments[:2] == ("--start", "--foreground")


def test_read_systemd_splits_a_variable_of_several_words(folder: Path) -> None:
    (folder / "environment").write_text('OPTIONS="--ncs --ts-config /etc/ts/config.properties"\n')
    (folder / "ts.service").write_text(
        "[Service]\nEnvironmentFile=/etc/ts/environment\n"
        "ExecStart=/opt/bin/torchserve --start $OPTIONS\n"
    )
    platform = read_platform(folder / "ts.service")
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.arguments == ("--start", "--ncs", "--ts-config", "/etc/ts/config.properties")


def test_read_compose_prefers_the_volume_of_the_longest_path(folder: Path) -> None:
    (folder / "prod.properties").write_text("job_queue_size=70\n")
    (folder / "compose.yaml").write_text(
        f"{IMAGE}    volumes: ['.:/home/model-server', './prod.properties:{PLACE}:ro']\n"
    )
    platform = read_platform(folder)
    assert platform is not None and platform.properties == "job_queue_size=70\n"


def test_read_systemd_refuses_another_command(folder: Path) -> None:
    (folder / "ts.service").write_text("[Service]\nExecStart=/usr/bin/java -jar x\n")
    with pytest.raises(ConfigError, match="ExecStart does not run torchserve"):
        read_platform(folder / "ts.service")


@pytest.mark.parametrize(
    "text",
    [
        "FROM pytorch/torchserve\nENV OMP_NUM_THREADS 2\nCOPY config.properties /home/model-server/\n",
        '# base\nFROM a AS b\nENV A=1\nFROM c\nENV OMP_NUM_THREADS="2"\nWORKDIR /srv\n'
        "COPY . conf/\nCMD torchserve --start \\\n  --ts-config /srv/conf/config.properties\n",
        'FROM a\nENV OMP_NUM_THREADS=2\nCOPY ["config.properties", "/x/ts.conf"]\n'
        'ENTRYPOINT ["torchserve"]\nCMD ["--start", "--ts-config", "/x/ts.conf"]\n',
        "FROM a AS b\nENV OMP_NUM_THREADS=2\nCOPY config.properties /home/model-server/\nFROM b\n",
        "FROM a AS b\nENV OMP_NUM_THREADS=2\nCOPY config.properties /home/model-server/\nFROM 0\n",
        "FROM\ta\nENV\tOMP_NUM_THREADS=2\nCOPY\tconfig.properties\t/home/model-server/\n",
        "ARG N=2\nFROM a\nARG D=/home\nENV OMP_NUM_THREADS=$N\n"
        "COPY config.properties ${D}/model-server/\n",
        "FROM a\r\nENV \\\r\n  OMP_NUM_THREADS=2\r\nCOPY config.properties /home/model-server/\r\n",
        "FROM a\nENV OMP_NUM_THREADS=2\nCOPY <<EOF /home/model-server/config.properties\n"
        "job_queue_size=7\nEOF\n",
        "FROM a\nENV OMP_NUM_THREADS=2\nCOPY /../config.properties /home/model-server/\n",
    ],
    ids=[
        *("default place", "stages", "json", "a stage by name", "a stage by number", "tabs"),
        *("variables", "CRLF", "here-document", "the context is the root"),
    ],
)
def test_read_dockerfile_reads_each_form(folder: Path, text: str) -> None:
    (folder / "Dockerfile").write_text(text)
    platform = read_platform(folder)
    assert platform is not None and platform.platform == "docker"
    assert (platform.properties, platform.environment) == (PROPERTIES, {"OMP_NUM_THREADS": "2"})


SERVICE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: pets}
spec:
  predictor:
    model:
      modelFormat: {name: pytorch}
      protocolVersion: %s
      storageUri: gs://bucket/pets
      env: [{name: OMP_NUM_THREADS, value: "2"}]
      resources: {limits: {cpu: "1", memory: 2Gi}}
"""


@pytest.mark.parametrize(("protocol", "envelope"), [("v1", "kserve"), ("v2", "kservev2")])
def test_read_kserve_reads_the_storage(tmp_path: Path, protocol: str, envelope: str) -> None:
    (tmp_path / "isvc.yaml").write_text(SERVICE % protocol)
    with pytest.raises(ConfigError, match="copy the folder config of gs://bucket/pets beside"):
        read_platform(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.properties").write_text("enable_envvars_config=true\n")
    platform = read_platform(tmp_path)
    assert platform is not None and platform.platform == "kserve"
    assert platform.environment == {"TS_SERVICE_ENVELOPE": envelope, "OMP_NUM_THREADS": "2"}
    assert platform.limits == Limits(1.0, 2 << 30)


def test_read_kserve_refuses_other_formats(tmp_path: Path) -> None:
    text = (SERVICE % "v1").replace("    model:", "    sklearn:")
    (tmp_path / "isvc.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"no predictor\.model of the format pytorch"):
        read_platform(tmp_path)


def test_read_platform_reads_the_variables_of_sagemaker(tmp_path: Path) -> None:
    path = tmp_path / "create_model.json"
    path.write_text('{"PrimaryContainer": {"Environment": {"SAGEMAKER_TS_BATCH_SIZE": 4}}}')
    platform = read_platform(path)
    assert platform is not None and platform.properties is None
    assert platform.environment == {**SERVING_MODULE, "SAGEMAKER_TS_BATCH_SIZE": "4"}


@pytest.mark.parametrize("name", ["config.properties", "model-config.yaml", "vars.json"])
def test_read_platform_leaves_other_files_to_their_readers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"batchSize": 4}')
    assert read_platform(tmp_path / name) is None


def test_read_platform_finds_nothing_in_an_empty_folder(tmp_path: Path) -> None:
    assert read_platform(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services: [a]"),
        ("compose.yaml", "services: {a: {image: torchserve, volumes: 5}}"),
        ("compose.yaml", "services: {a: {image: torchserve, command: 'a \"b'}}"),
        ("compose.yaml", "services: {a: {image: torchserve, cpus: many}}"),
        ("compose.yaml", "services: {a: {image: torchserve, mem_limit: '1e999'}}"),
        ("compose.yaml", "services: {a: {image: torchserve, cpuset: 3-1}}"),
        ("compose.yaml", "services: {a: {image: torchserve, cpuset: 0-99999999}}"),
        ("Dockerfile", "COPY"),
        ("Dockerfile", "FROM x\nCMD [bad"),
        ("Dockerfile", "FROM x\nENV A='b"),
        ("a.service", "[Service]\nExecStart=torchserve 'a"),
        ("a.service", "[Service]\nExecStart=torchserve --start\nCPUQuota=x%"),
        ("a.yaml", "kind: Deployment\nspec: 3"),
        ("a.yaml", "kind: Pod\nspec: {containers: [{env: [{value: 3}]}]}"),
        ("a.yaml", "kind: Pod\nspec: {containers: [{resources: {limits: 3}}]}"),
    ],
)
def test_read_platform_refuses_entries_of_another_form(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(ConfigError, match="has an entry of an unexpected form"):
            read_platform(path)


@pytest.mark.parametrize("name", ["compose.yaml", "deployment.yaml"])
@pytest.mark.parametrize(
    "text",
    [
        "x0: &a0 {A: b}\n" + "".join(f"x{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)),
        "a: " + "[" * 10_000,
    ],
    ids=["nested aliases", "deep lists"],
)
def test_read_platform_refuses_yaml_that_would_exhaust_python(
    tmp_path: Path, name: str, text: str
) -> None:
    services = "services: {ts: {image: torchserve, command: *a29}}\n"
    spec = "kind: Deployment\nspec: {template: {spec: {containers: *a29}}}\n"
    (tmp_path / name).write_text(text + (services if name == "compose.yaml" else spec))
    with pytest.raises(ConfigError, match=r"is not valid YAML: .* more than"):
        read_platform(tmp_path / name)


MAPS = """---
kind: ConfigMap
metadata: {name: cfg}
data: {config.properties: "job_queue_size=8"}
---
kind: ConfigMap
metadata: {name: vars}
data: {OMP_NUM_THREADS: "3", TS_JOB_QUEUE_SIZE: "9"}
"""


def kserve(folder: Path, model: str = "", predictor: str = "", protocol: str = "v1") -> Path:
    own = '      env: [{name: OMP_NUM_THREADS, value: "2"}]\n'
    text = f"{(SERVICE % protocol).replace(own, model)}{predictor}"
    (folder / "config").mkdir()
    (folder / "config" / "config.properties").write_text(PROPERTIES)
    (folder / "isvc.yaml").write_text(text + MAPS)
    return folder


@pytest.mark.parametrize(
    ("model", "environment", "secrets"),
    [
        (
            "      envFrom: [{configMapRef: {name: vars}}]\n",
            {"OMP_NUM_THREADS": "3", "TS_JOB_QUEUE_SIZE": "9"},
            (),
        ),
        (
            "      env: [{name: N, valueFrom: {configMapKeyRef: {name: vars, key: "
            "OMP_NUM_THREADS}}}, {name: S, valueFrom: {secretKeyRef: {name: s, key: k}}}]\n",
            {"N": "3"},
            ("S",),
        ),
        ("      env: [{name: EMPTY, value: }]\n", {"EMPTY": ""}, ()),
    ],
    ids=["envFrom", "references", "null"],
)
def test_read_kserve_reads_each_form_of_variables(
    tmp_path: Path, model: str, environment: dict[str, str], secrets: tuple[str, ...]
) -> None:
    platform = read_platform(kserve(tmp_path, model))
    assert platform is not None and platform.secrets == secrets
    assert platform.environment == {"TS_SERVICE_ENVELOPE": "kserve", **environment}


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("", PROPERTIES),
        ("      args: [--ncs]\n", PROPERTIES),
        ("      args: ['--ts-config=/etc/ts/config.properties']\n", "job_queue_size=8"),
        (
            "      command: [torchserve]\n"
            "      args: [--start, --ts-config, /etc/ts/config.properties]\n",
            "job_queue_size=8",
        ),
        ("      args: ['--ts-config=/mnt/models/config/../other.properties']\n", "workers=1\n"),
    ],
    ids=["runtime", "more arguments", "ConfigMap", "command", "storage"],
)
def test_read_kserve_follows_the_arguments(tmp_path: Path, model: str, text: str) -> None:
    (tmp_path / "other.properties").write_text("workers=1\n")
    model += "      volumeMounts: [{name: c, mountPath: /etc/ts}]\n"
    platform = read_platform(
        kserve(tmp_path, model, "    volumes: [{name: c, configMap: {name: cfg}}]\n")
    )
    assert platform is not None and platform.properties == text


def test_read_kserve_refuses_a_file_that_nothing_provides(tmp_path: Path) -> None:
    kserve(tmp_path, "      args: ['--ts-config=/etc/ts/config.properties']\n")
    with pytest.raises(ConfigError, match="which neither the storage nor a ConfigMap"):
        read_platform(tmp_path)


def test_read_kserve_notes_a_protocol_without_http(tmp_path: Path) -> None:
    platform = read_platform(kserve(tmp_path, protocol="grpc-v2"))
    assert platform is not None and "HTTP only" in platform.notes[0]
    assert platform.environment == {
        "TS_SERVICE_ENVELOPE": "kservev2",
        "PROTOCOL_VERSION": "grpc-v2",
    }


def test_read_dockerfile_fills_in_variables_as_docker_does(folder: Path) -> None:
    (folder / "Dockerfile").write_text(
        "FROM a\nENV A=1\nENV B=$A C='$A' D=\"x ${A}\" E=\\$A F=${G:-2} H=${UNKNOWN}\n"
    )
    platform = read_platform(folder)
    assert platform is not None and platform.environment == {
        **{"A": "1", "B": "1", "C": "$A", "D": "x 1", "E": "$A", "F": "2", "H": "${UNKNOWN}"}
    }


@pytest.mark.parametrize(
    "run",
    ["RUN echo a=b >> /home/model-server/config.properties", "RUN <<E\nrm config.properties\nE"],
)
def test_read_dockerfile_notes_commands_that_may_change_the_file(folder: Path, run: str) -> None:
    (folder / "Dockerfile").write_text(
        f"FROM a\nCOPY config.properties /home/model-server/\n{run}\n"
    )
    platform = read_platform(folder)
    assert platform is not None and "servetune runs nothing" in platform.notes[0]


def test_read_systemd_reads_drop_ins_and_both_comments(folder: Path) -> None:
    (folder / "environment").write_text("; one\n# two\nA=1\nB=2\n")
    (folder / "ts.service").write_text(
        "[Service]\nEnvironmentFile=/etc/ts/environment\nCPUQuota=100%\n"
        "ExecStart=/opt/bin/torchserve --ts-config /etc/ts/config.properties\n"
    )
    (folder / "ts.service.d").mkdir()
    (folder / "ts.service.d" / "1.conf").write_text("[Service]\nEnvironment=C=3\nCPUQuota=200%\n")
    platform = read_platform(folder)
    assert platform is not None and platform.environment == {"A": "1", "B": "2", "C": "3"}
    assert platform.limits == Limits(2.0, None)
    assert folder / "ts.service.d" / "1.conf" in platform.sources


IMAGE = "services:\n  ts:\n    image: pytorch/torchserve\n"
PLACE = "/home/model-server/config.properties"
VOLUME = f"    volumes: ['./config.properties:{PLACE}']\n"


@pytest.mark.parametrize(
    ("text", "override"),
    [
        (f"{IMAGE}    environment: {{OMP_NUM_THREADS: '${{N:-9}}'}}\n{VOLUME}", ""),
        (f"{IMAGE}    environment: {{OMP_NUM_THREADS: '${{M:-2}}'}}\n{VOLUME}", ""),
        (
            f"{IMAGE}    environment: [OMP_NUM_THREADS=2]\n"
            f"    volumes: ['${{PWD}}/config.properties:{PLACE}']\n",
            "",
        ),
        (
            f"{IMAGE}    env_file: [environment, {{path: none.env, required: false}}]\n"
            f"    configs: [{{source: c, target: {PLACE}}}]\n"
            "configs: {c: {file: ./config.properties}}\n",
            "",
        ),
        (
            f"{IMAGE}    env_file: environment\n    configs: [{{source: c, target: {PLACE}}}]\n"
            'configs: {c: {content: "job_queue_size=7\\n"}}\n',
            "",
        ),
        (
            f"{IMAGE}    environment: [OMP_NUM_THREADS=1]\n    volumes: ['./x:{PLACE}']\n",
            f"services:\n  ts:\n    environment: {{OMP_NUM_THREADS: 2}}\n{VOLUME}",
        ),
    ],
    ids=["variable", "default", "PWD", "config", "text", "override"],
)
def test_read_compose_reads_references_configs_and_overrides(
    folder: Path, text: str, override: str
) -> None:
    (folder / ".env").write_text("N=2\n")
    (folder / "compose.yaml").write_text(text)
    if override:
        (folder / "compose.override.yaml").write_text(override)
    platform = read_platform(folder)
    assert platform is not None and platform.notes == ()
    assert (platform.properties, platform.environment) == (PROPERTIES, {"OMP_NUM_THREADS": "2"})


def test_read_compose_keeps_dollar_signs_and_notes_unknown_variables(folder: Path) -> None:
    (folder / "compose.yaml").write_text(
        f"{IMAGE}    environment: {{A: 'a$$N', B: '${{C}}'}}\n{VOLUME}"
    )
    platform = read_platform(folder)
    assert platform is not None and platform.environment == {"A": "a$N", "B": "${C}"}
    assert platform.notes[0].endswith("left as it is: B")


def test_read_platform_finds_the_container_of_a_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "create_model.json"
    server = '{"Environment": {"SAGEMAKER_TS_BATCH_SIZE": "8"}}'
    path.write_text(f'{{"Containers": [{server}, {{"Environment": {{"X": "y"}}}}]}}')
    platform = read_platform(path)
    assert platform is not None
    assert platform.environment == {**SERVING_MODULE, "SAGEMAKER_TS_BATCH_SIZE": "8"}
    path.write_text(f'{{"Containers": [{server}, {server}]}}')
    with pytest.raises(ConfigError, match="has 2 containers"):
        read_platform(path)


def test_read_platform_names_the_kinds_that_it_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("apiVersion: v1\nkind: ConfigMap\n---\napiVersion: a/v1\nkind: Rollout\n")
    with pytest.raises(ConfigError, match="found ConfigMap, Rollout"):
        read_platform(path)


def test_read_kubernetes_prefers_the_mount_of_the_longest_path(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(
        "kind: Pod\nspec:\n  containers:\n  - volumeMounts:\n"
        "    - {name: all, mountPath: /home/model-server}\n"
        f"    - {{name: one, mountPath: {PLACE}, subPath: one}}\n"
        "  volumes: [{name: all, configMap: {name: cfg}}, {name: one, configMap: {name: own}}]\n"
        f"---\nkind: ConfigMap\nmetadata: {{name: own}}\ndata: {{one: a=b}}\n{MAPS}"
    )
    platform = read_platform(path)
    assert platform is not None and platform.properties == "a=b"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "Dockerfile",
            'FROM a\nCOPY config.properties .\nCMD ["torchserve", "--ts-config", '
            '"config.properties"]\n',
        ),
        (
            "Dockerfile",
            "FROM a\nWORKDIR /srv/ts\nCOPY config.properties ./\nCMD torchserve --ncs\n",
        ),
        (
            "Dockerfile",
            "FROM a\nCOPY config.properties /x/\nCMD cd /x && torchserve --ts-config "
            "./config.properties\n",
        ),
        (
            "Dockerfile",
            "FROM a\nWORKDIR /srv\nCOPY config.properties conf/\nENV TS_CONFIG_FILE="
            "conf/config.properties\nCMD torchserve\n",
        ),
        (
            "compose.yaml",
            "services: {ts: {working_dir: /srv, command: torchserve --ts-config c/x, "
            "volumes: ['./config.properties:/srv/c/x']}}",
        ),
        (
            "compose.yaml",
            "services: {ts: {command: torchserve --ts-config config.properties, "
            "volumes: ['.:/home/model-server']}}",
        ),
        (
            "compose.yaml",
            "services: {ts: {command: sh -c 'cd /srv; torchserve --start', "
            "configs: [{source: c, target: /srv/config.properties}]}}\n"
            "configs: {c: {file: config.properties}}",
        ),
        (
            "ts.service",
            "[Service]\nWorkingDirectory=/opt/ts\nExecStart=torchserve --ts-config "
            "config.properties\n",
        ),
        ("ts.service", "[Service]\nWorkingDirectory=-/opt/ts\nExecStart=torchserve --ncs\n"),
    ],
)
def test_read_platform_starts_relative_paths_in_the_working_folder(
    folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / name).write_text(text)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.properties").write_text("job_queue_size=999\n")
    monkeypatch.chdir(elsewhere)
    platform = read_platform(folder)
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.notes == ()


@pytest.mark.parametrize(
    ("working_folder", "place"),
    [("/opt/ts", "/opt/ts/config.properties"), ("/", "/config.properties"), ("", "/config.prop")],
)
def test_read_systemd_notes_that_a_unit_names_no_file(
    tmp_path: Path, working_folder: str, place: str
) -> None:
    (tmp_path / "ts.service").write_text(
        f"[Service]\nWorkingDirectory={working_folder}\nExecStart=/bin/torchserve --start\n"
    )
    platform = read_platform(tmp_path / "ts.service")
    assert platform is not None and platform.properties == ""
    assert f"names no config.properties: TorchServe reads {place}" in platform.notes[0]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "Dockerfile",
            "FROM a\nCMD if a; then torchserve --start; else torchserve --ncs; fi\n",
            "different options under conditions",
        ),
        (
            "pod.yaml",
            "kind: Pod\nspec: {containers: [{resources: {limits: {cpu: two}}}]}",
            "'two' is not a quantity",
        ),
        (
            "create_model.json",
            '{"PrimaryContainer": {"Environment": [1]}}',
            "must be a JSON object",
        ),
    ],
)
def test_read_platform_names_the_file_in_each_error(
    tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_platform(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize(
    "text",
    [
        f"COPY *.properties {PLACE}\n",
        "COPY *.properties /home/model-server/\n",
        "COPY con?ig.[p]roperties /home/model-server/\n",
        "COPY */../config.properties /home/model-server/\n",
        'COPY --chown=model-server ["config.properties", "/home/model-server/"]\n',
        'ADD --chown=a --chmod=644 ["config.properties", "./"]\n',
        "COPY <<config.properties <<EOF /home/model-server/\njob_queue_size=7\n"
        "config.properties\nb\nEOF\n",
        'RUN bash -c "wc -c <<<hello"\nCOPY config.properties /home/model-server/\n',
        "RUN echo $((1<<2)) 'a <<B'\nCOPY config.properties /home/model-server/\n",
        "FROM x AS b\nCOPY config.properties /out/\nFROM a\n"
        f"COPY --from=b /out/config.properties {PLACE}\n",
        "FROM x AS b\nWORKDIR /out\nCOPY . conf\nFROM a\nCOPY --from=B /out/conf .\n",
        "COPY --from=models pets.mar /home/model-server/model-store/\n"
        "COPY config.properties /home/model-server/\n"
        "COPY --from=models pets.mar /home/model-server/\nCOPY other /home/other\n",
        "FROM a AS base\nCMD torchserve --ts-config /x.properties\nFROM base\n"
        'COPY config.properties .\nENTRYPOINT ["torchserve", "--start"]\n',
        'CMD ["--ts-config", "/c"]\nENTRYPOINT ["torchserve"]\nCOPY config.properties /c\n',
    ],
)
def test_read_dockerfile_reads_each_form_of_copy(folder: Path, text: str) -> None:
    (folder / "Dockerfile").write_text(f"FROM a\n{text}")
    platform = read_platform(folder)
    assert platform is not None and platform.notes == ()
    assert platform.properties == PROPERTIES


@pytest.mark.parametrize(
    "text",
    [
        f"COPY --from=b /out/config.properties {PLACE}\n",
        "COPY --from=other/image:1 /x/config.properties ./\n",
        "COPY --from=b /out/*.properties ./\n",
        "ADD https://example.com/config.properties .\n",
    ],
)
def test_read_dockerfile_notes_a_file_from_elsewhere(folder: Path, text: str) -> None:
    (folder / "Dockerfile").write_text(
        f"FROM a AS b\nRUN make\nFROM a\nCOPY config.properties /home/model-server/\n{text}"
    )
    platform = read_platform(folder)
    assert platform is not None and platform.properties == ""
    (note,) = platform.notes
    assert note.startswith(f"{PLACE} is from `") and text.split()[1] in note
    (folder / "Dockerfile").write_text(f"FROM a\n{text}CMD torchserve --ts-config {PLACE}\n")
    with pytest.raises(ConfigError, match=f"{PLACE} is from `"):
        read_platform(folder)


@pytest.mark.parametrize(
    "text",
    [
        "COPY --from=b /out /home/model-server\n",
        "ADD conf.tar.gz /home/model-server/\n",
        "COPY conf /home/model-server/\n",
    ],
)
def test_read_dockerfile_notes_a_folder_that_may_have_the_file(folder: Path, text: str) -> None:
    (folder / "Dockerfile").write_text(f"FROM a\nCOPY config.properties .\n{text}")
    platform = read_platform(folder)
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.notes[0].startswith(f"`{text.strip()}` may provide {PLACE}")


def test_read_dockerfile_shows_no_password(folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM a\nADD https://me:pass@host/config.properties .\n")
    platform = read_platform(folder)
    assert platform is not None and "is from `ADD …`" in platform.notes[0]


@pytest.mark.parametrize("source", ["my.properties", "*.conf", "conf/config.properties"])
def test_read_dockerfile_refuses_a_missing_source(folder: Path, source: str) -> None:
    (folder / "Dockerfile").write_text(f"FROM a\nCOPY {source} {PLACE}\n")
    with pytest.raises(ConfigError, match="does not exist; copy it there"):
        read_platform(folder)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "COPY link /home/model-server\n",
        "COPY link/*.properties /home/model-server/\n",
        "COPY */config.properties /home/model-server/\n",
        "COPY link* /home/model-server/\n",
    ],
)
def test_read_dockerfile_checks_links_before_it_looks_behind_them(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, text: str, exists: bool
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "conf"
    if exists:
        outside.mkdir()
        (outside / "config.properties").write_text("job_queue_size=9\n")
    (folder / "link").symlink_to(outside)
    (folder / "Dockerfile").write_text(f"FROM a\n{text}")
    with checking_paths(refuse_outside(folder)), pytest.raises(PermissionError, match="outside"):
        read_platform(folder / "Dockerfile")


def test_read_dockerfile_refuses_stages_that_copy_from_each_other(tmp_path: Path) -> None:
    stages = "".join(f"FROM {n}\nCOPY --from={n} /a /\nCOPY --from={n} /b /\n" for n in range(40))
    (tmp_path / "Dockerfile").write_text(f"FROM a\n{stages}")
    with pytest.raises(ConfigError, match="more than 1000 COPY --from"):
        read_platform(tmp_path)


@pytest.mark.parametrize(
    ("service", "environment", "secrets", "note"),
    [
        ("environment: [HF_TOKEN, A=1]", {"A": "1"}, ("HF_TOKEN",), ""),
        ("environment: {HF_TOKEN: , A: 1, B: ''}", {"A": "1", "B": ""}, ("HF_TOKEN",), ""),
        ("env_file: ts.env", {"A": "4", "B": "4"}, ("HF_TOKEN",), ""),
        ("environment: [N, A=1]", {"N": "2", "A": "1"}, (), ""),
        ("environment: [OMP_NUM_THREADS, CORES]", {}, (), "CORES, OMP_NUM_THREADS"),
    ],
)
def test_read_compose_reads_variables_from_the_shell(
    folder: Path,
    service: str,
    environment: dict[str, str],
    secrets: tuple[str, ...],
    note: str,
) -> None:
    (folder / ".env").write_text("N=2 # two\nOTHER\n")
    (folder / "ts.env").write_text("A=4 # one per core\nHF_TOKEN\nB=${A}\n")
    (folder / "compose.yaml").write_text(f"{IMAGE}    {service}\n{VOLUME}")
    platform = read_platform(folder)
    assert platform is not None and platform.environment == environment
    assert platform.secrets == secrets
    assert [text.rpartition("these files: ")[2] for text in platform.notes] == [note] * bool(note)


@pytest.mark.parametrize("name", ["ts.env", ".env"])
def test_read_compose_names_the_environment_file_in_errors(folder: Path, name: str) -> None:
    (folder / "ts.env").write_text("A=1\n")
    (folder / name).write_text("A=1\na b\n")
    (folder / "compose.yaml").write_text(f"{IMAGE}    env_file: ts.env\n{VOLUME}")
    with pytest.raises(ConfigError, match=rf"{name}: line 2 of the environment file"):
        read_platform(folder)


@pytest.mark.parametrize(
    "text",
    [
        "services:\n  ts:\n    extends: {file: parts/common.yaml, service: base}\n"
        "    image: pytorch/torchserve\n",
        "services:\n  db: {image: db}\n  base:\n    extends: {file: parts/common.yaml, service: "
        "base}\n    image: x\n  ts:\n    extends: base\n    image: pytorch/torchserve\n",
        "include: [parts/all.yaml]\nservices: {db: {image: db}}\n",
        "include: [{path: [parts/all.yaml, parts/all.yaml]}]\n",
    ],
    ids=["file", "chain", "include", "include twice"],
)
def test_read_compose_reads_services_of_other_files(folder: Path, text: str) -> None:
    parts = folder / "parts"
    parts.mkdir()
    (parts / "common.yaml").write_text(
        "services: {base: {env_file: ts.env, mem_limit: 2g, environment: {A: 1}, "
        f"volumes: ['./x:{PLACE}']}}}}\n"
    )
    (parts / "ts.env").write_text("OMP_NUM_THREADS=3\n")
    (parts / "x").write_text(PROPERTIES)
    (parts / "all.yaml").write_text(
        "include: [../compose.yaml, all.yaml]\nservices:\n  ts:\n    image: pytorch/torchserve\n"
        "    extends: {file: ./common.yaml, service: base}\n"
    )
    (folder / "compose.yaml").write_text(text)
    platform = read_platform(folder)
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.environment == {"OMP_NUM_THREADS": "3", "A": "1"}
    assert platform.limits == Limits(None, 2 << 30) and platform.notes == ()
    assert {parts / "x", folder / "compose.yaml"} <= {*platform.sources}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "services: {ts: {image: torchserve, extends: none}}",
            "has no service none, which another",
        ),
        ("services: {ts: {extends: {file: no.yaml, service: a}}}", "no.yaml cannot be read"),
        ("services: {ts: {extends: ts}}", "unexpected form"),
        ("include: no.yaml", "no.yaml cannot be read"),
    ],
)
def test_read_compose_refuses_missing_services(folder: Path, text: str, sentence: str) -> None:
    (folder / "compose.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_platform(folder)


@pytest.mark.parametrize(
    "volume", ["conf:/home/model-server", "{type: volume, source: c, target: /home/model-server}"]
)
def test_read_compose_looks_through_named_volumes(folder: Path, volume: str) -> None:
    (folder / "compose.yaml").write_text(f"{IMAGE}    volumes: [{volume!r}]\n".replace("'{", "{"))
    text = (folder / "compose.yaml").read_text().replace("}'", "}")
    (folder / "compose.yaml").write_text(text)
    platform = read_platform(folder)
    assert platform is not None
    assert platform.notes == ("no config.properties is mounted: the image has its own",)


BUILT = "FROM pytorch/torchserve\nARG N=1\nENV OMP_NUM_THREADS=$N A=1\nCOPY config.properties ./\n"


@pytest.mark.parametrize(
    "service",
    [
        "{build: ts, environment: {OMP_NUM_THREADS: 3}}",
        "{image: me/ts, build: {context: ./ts, args: {N: 3}}}",
        "{build: {context: ., dockerfile: ts/Other, args: [N=3], target: Serve}}",
        f"{{build: {{context: ts, args: {{N: 3}}, dockerfile_inline: {BUILT!r}}}}}",
        "{build: {context: ts, args: {N: 3}}, working_dir: /srv, "
        "command: torchserve --ts-config ../home/model-server/config.properties}",
        f"{{build: {{context: ts, args: {{N: 3}}}}, volumes: ['./config.properties:{PLACE}']}}",
    ],
)
def test_read_compose_reads_the_image_that_a_service_builds(folder: Path, service: str) -> None:
    service = service.replace("'FROM", '"FROM').replace("./\\n'", './\\n"')
    (folder / "compose.yaml").write_text(f"services: {{web: {{build: web}}, ts: {service}}}")
    (folder / "ts").mkdir()
    (folder / "ts" / "config.properties").write_text(PROPERTIES)
    (folder / "ts" / "Dockerfile").write_text(BUILT)
    (folder / "ts" / "Other").write_text(
        BUILT.replace("torchserve", "torchserve AS serve", 1) + "FROM x\n"
    )
    platform = read_platform(folder)
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.environment == {"OMP_NUM_THREADS": "3", "A": "1"}
    assert platform.notes == ()


@pytest.mark.parametrize(
    ("service", "options"),
    [
        ("{build: .}", "--a --b"),
        ("{build: ., command: --c}", "--a --c"),
        ("{build: ., entrypoint: torchserve}", ""),
        ("{build: ., entrypoint: [torchserve, --x], command: [--y]}", "--x --y"),
    ],
)
def test_read_compose_reads_the_command_of_an_image(
    folder: Path, service: str, options: str
) -> None:
    (folder / "compose.yaml").write_text(f"services: {{ts: {service}}}")
    (folder / "Dockerfile").write_text('FROM a\nENTRYPOINT ["torchserve", "--a"]\nCMD ["--b"]\n')
    platform = read_platform(folder)
    assert platform is not None and platform.arguments == tuple(options.split())


@pytest.mark.parametrize("build", ["web", "https://example.com/ts.git", "{dockerfile: Other}"])
def test_read_compose_notes_an_image_that_it_cannot_read(folder: Path, build: str) -> None:
    (folder / "compose.yaml").write_text(f"{IMAGE}    build: {build}\n{VOLUME}")
    platform = read_platform(folder)
    assert platform is not None and platform.properties == PROPERTIES
    assert platform.notes[0].startswith("the image is built from ")


@pytest.mark.parametrize(
    ("first", "second", "profiles", "image"),
    [
        ("gpu", "", "", "b"),
        ("gpu", "", "gpu", None),
        ("gpu", "cpu", "cpu,x", "b"),
        ("gpu", "cpu", "", None),
    ],
)
def test_read_compose_reads_the_service_that_is_started(
    folder: Path, first: str, second: str, profiles: str, image: str | None
) -> None:
    (folder / ".env").write_text(f"COMPOSE_PROFILES={profiles}\n")
    (folder / "compose.yaml").write_text(
        "services:\n"
        + "".join(
            f"  {name}: {{image: torchserve, profiles: [{profile}], environment: [I={name}]}}\n"
            for name, profile in (("a", first), ("b", second))
        )
    )
    if image is None:
        with pytest.raises(ConfigError, match="has 2 services that run torchserve"):
            read_platform(folder)
    else:
        platform = read_platform(folder)
        assert platform is not None and platform.environment == {"I": image}


@pytest.mark.parametrize(
    ("limits", "cpus"),
    [("cpuset: '0-1'", 2), ("cpuset: '0,2-4'", 4), ("cpuset: '3', cpus: 0.5", 0.5), ("cpus: 2", 2)],
)
def test_read_compose_reads_the_set_of_cpus(folder: Path, limits: str, cpus: float) -> None:
    (folder / "compose.yaml").write_text(f"services: {{ts: {{image: torchserve, {limits}}}}}")
    platform = read_platform(folder)
    assert platform is not None and platform.limits == Limits(cpus, None)
