from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.archive import Archive
from serving.configuration.config import ServerConfig
from serving.configuration.deployment import Deployment
from serving.configuration.environment import parse_environment
from serving.errors import ConfigError

ARCHIVE = Archive(Path("/models/codegen.mar"), "codegen", "1.0")
SITE_PROPERTIES = {"inference_address": "http://127.0.0.1:8080"}
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})

SNAPSHOT_ENTRY = {
    **{"defaultVersion": True, "marName": "codegen.mar", "minWorkers": 3, "maxWorkers": 3},
    **{"batchSize": 16, "maxBatchDelay": 50},
}
SNAPSHOT = json.dumps(
    {"name": "s.cfg", "modelCount": 1, "models": {"codegen": {"1.0": SNAPSHOT_ENTRY}}}
)

naturals = st.none() | st.integers(1, 2**31 - 1)
letters = st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=("Cc", "Zs"))
text = st.text(letters, min_size=1)
configs = st.builds(
    ServerConfig,
    workers=naturals,
    batch_size=naturals,
    max_batch_delay_ms=naturals,
    netty_threads=naturals,
    netty_client_threads=naturals,
    mkl_threads=naturals,
    job_queue_size=naturals,
    response_timeout_s=naturals,
    properties=st.dictionaries(st.sampled_from(["cors_allowed_origin", "cpu_launcher_args"]), text),
    environment=st.dictionaries(
        st.sampled_from(["OMP_WAIT_POLICY", "A"]), text | st.just("a 'b' c")
    ),
    jvm=st.dictionaries(
        st.sampled_from(["-Xmx", "-XX:ParallelGCThreads", "-Dname"]), st.just("2") | st.just("a=b")
    ),
    model_properties=st.dictionaries(st.just("startupTimeout"), st.integers(1, 1000)),
)


def parse(
    text: str, archive: Archive, variables: Mapping[str, str] = NO_VARIABLES
) -> tuple[ServerConfig, Mapping[str, str]]:
    read = Deployment.read(text, variables, archive)
    return read.config, read.unused


@given(configs)
def test_config_is_equal_after_write_and_parse(config: ServerConfig) -> None:
    written = config.properties_text(ARCHIVE, SITE_PROPERTIES)
    environment = parse_environment(config.environment_text())
    read, overridden = parse(written, ARCHIVE, environment)
    assert read == config
    assert overridden == {**SITE_PROPERTIES, "load_models": "codegen.mar"}


def entry(**settings: Any) -> str:
    return f"models={json.dumps({'codegen': {'1.0': settings}})}\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("job_queue_size=1_000", "must be an integer that Java reads .got '1_000'"),
        ("job_queue_size=3000000000", "must be an integer that Java reads"),
        (f"job_queue_size={'9' * 5000}", "must be an integer that Java reads"),
        (f"inference_address=http://h:{'9' * 5000}", "inference_address must be http://HOST:PORT"),
        ("job_queue_size= ten", "must be an integer that Java reads"),
        ("max_request_size=10 ", "must be an integer that Java reads"),
        ("number_of_netty_threads=$$THREADS$$", "the environment variable THREADS, which is not"),
        ('models={"codegen":{"1.0":{"batchSize":"many"}}}', "batchSize must be an integer"),
        ('models={"codegen":{"1.0":{"minWorkers":true}}}', "minWorkers must be an integer"),
        (
            'models={\n  "codegen": {',
            "the JSON of property models has no end .found '{'.; .* needs a backslash at the end of each line",
        ),
        (
            "model_snapshot={\n}",
            "the JSON of property model_snapshot has no end .* needs a backslash at the end of each line",
        ),
        ('models={"codegen": {\\\n"1.0":\n{}}}', "needs a backslash at the end of each line"),
        ('model_snapshot={"modelCount":1}', "property model_snapshot must be a JSON object"),
        ('models={"codegen":{"1.0":{"batchSize":null}}}', "batchSize must be an integer"),
        ('models={"codegen":{"1.0":{"batchSize":4,}}}', "property models must be a JSON object"),
        ('models={"codegen":{"1.0":{"batchSize":4}};}', "property models must be a JSON object"),
        (
            'model_snapshot={"models":{"codegen":{"1.0":{"minWorkers":1,"maxWorkers":1}}}}',
            "the entry of codegen 1.0 has no batchSize; TorchServe does not start without it",
        ),
        (
            f"model_snapshot={SNAPSHOT.replace('50', '0')}",
            "maxBatchDelay must be at least 1 to be measured .got 0",
        ),
        ('vmargs=-Dname="a b"', """vmargs: 'b"' is not a JVM argument"""),
        ('vmargs="-Xmx2g"', "vmargs: '\"-Xmx2g\"' is not a JVM argument"),
        ('vmargs="-Xmx2g -server"', "vmargs: '\"-Xmx2g' is not a JVM argument"),
        ("job_queue_size=0", "job_queue_size must be an integer of at least 1"),
        ("models=[1]", r"models must be a JSON object keyed .* \(found \[1\]\)"),
        ("model_snapshot={}", r"model_snapshot must be a JSON object keyed .* \(found null\)"),
        ('models={"a": 3}', r"models must be a JSON object keyed .* \(found 3 for a\)"),
        ("vmargs=Xmx2g", "'Xmx2g' is not a JVM argument"),
        (
            "vmargs=-Xmx1g \\\n  -Dx=1\n",
            "vmargs ends in a backslash: the command torchserve does not",
        ),
        ("vmargs=-Xmx1g\\\n  -Dx=1\n", "vmargs ends in a backslash"),
        ("vmargs=$$OPTS$$\nenable_envvars_config=$$ON$$\n", "names the environment variable OPTS"),
        ("enable_envvars_config=true\njob_queue_size=$$QUEUE$$\n", "variable QUEUE, which is not"),
        ("job_queue_size=1e3", "must be an integer that Java reads"),
        ("job_queue_size=10L", "must be an integer that Java reads"),
        ("number_of_netty_threads=0x4", "must be an integer that Java reads"),
        (
            "grpc_inference_max_connection_age_ms=9223372036854775808",
            "must be an integer that Java",
        ),
        ("metric_time_interval=often", "must be an integer that Java reads"),
        ("grpc_inference_port=any", "must be an integer that Java reads"),
        ("default_workers_per_model=-1", "default_workers_per_model must not be negative"),
        ("inference_address=0.0.0.0:8080", "inference_address must be http://HOST:PORT"),
        ("management_address=http://[::1]:8081", r"no IPv6 address .got 'http://\[::1\]:8081'"),
        ("metrics_address=http://0.0.0.0:65535", "metrics_address must be http://HOST:PORT"),
        ("models=\n", "property models is empty, and TorchServe does not start with that"),
        ("models={codegen:null}", "property models: codegen is null"),
        ('models={"a":{"1.0":{},"1.0":{}}}', "property models has 1.0 for a twice"),
        ('models={"a":{},"a":{}}', "property models has a twice"),
        (entry(batchSize="8.0"), "batchSize must be an integer .got '8.0'"),
        (entry(batchSize=" 8"), "batchSize must be an integer .got ' 8'"),
        (entry(batchSize={}), "batchSize must be an integer .got {}"),
        (entry(batchSize=[True]), "batchSize must be an integer .got True"),
        (
            f"model_snapshot={SNAPSHOT.replace('defaultVersion', 'isDefault')}",
            "has no defaultVersion",
        ),
        (f"model_snapshot={SNAPSHOT.replace('marName', 'file')}", "of codegen 1.0 has no marName"),
        (
            f"model_snapshot={SNAPSHOT.replace('50', '50, runtimeType: x')}",
            "runtimeType of codegen must",
        ),
    ],
)
def test_read_refuses_invalid_line(line: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(line, ARCHIVE)


def test_read_returns_lines_outside_configuration() -> None:
    read, overridden = parse(
        "inference_address=http://0.0.0.0:80\n"
        "disable_token_authorization=true\n"
        "number_of_netty_threads=0\n"
        'models={"codegen":{"1.0":{"minWorkers":3,"maxWorkers":5}},"other":{"2":{}}}\n',
        ARCHIVE,
    )
    assert read == ServerConfig(workers=3, model_properties={"maxWorkers": 5})
    assert set(overridden) == {"inference_address", "disable_token_authorization"}


@pytest.mark.parametrize(
    ("written", "variables", "settings", "ignored"),
    [
        (
            f"model_snapshot={SNAPSHOT}\n",
            {},
            {"workers": 3, "batch_size": 16, "max_batch_delay_ms": 50},
            set(),
        ),
        (
            f"{entry(batchSize=2)}model_snapshot={SNAPSHOT}\n",
            {},
            {"workers": 3, "batch_size": 16, "max_batch_delay_ms": 50},
            set(),
        ),
        ("metrics_format=prometheus\nNUM_WORKERS=1\n", {}, {}, {"metrics_format", "NUM_WORKERS"}),
        ("models=[]\njob_queue_size=7\n", {}, {"job_queue_size": 7}, set()),
        (
            "batch_size=8\nnumber_of_nety_threads=4\n",
            {},
            {},
            {"batch_size", "number_of_nety_threads"},
        ),
        (
            "prefer_direct_buffer=True\nenable_model_api=yes\n",
            {},
            {"properties": {"prefer_direct_buffer": "true", "enable_model_api": "false"}},
            set(),
        ),
        (
            entry(minWorkers="2", maxWorkers="2", batchSize=8.0),
            {},
            {"workers": 2, "batch_size": 8},
            set(),
        ),
        (entry(batchSize=4, maxBatchDelay=0), {}, {"batch_size": 4}, {"maxBatchDelay"}),
        (entry(batchSize=-1), {}, {}, {"batchSize"}),
        (entry(batchSize=3000000000, minWorkers=4294967297), {}, {"workers": 1}, {"batchSize"}),
        (entry(batchSize=[4], minWorkers=[1, 2]), {}, {"batch_size": 4}, {"minWorkers"}),
        (entry(batchSize="+4", runtimeType="pypy"), {}, {"batch_size": 4}, {"runtimeType"}),
        (
            'models={"codegen":{"1.0":{"batchSize":4;"x":[1,2,]} // four\\u000a}}\n',
            {},
            {"batch_size": 4},
            {"x"},
        ),
        ('models={"zoo":null}\njob_queue_size=+7\n', {}, {"job_queue_size": 7}, set()),
        ("models=[[codegen,{1.0:{batchSize:4}}]]\n", {}, {"batch_size": 4}, set()),
        ("job_queue_size=\\uff11\\uff10\n", {}, {"job_queue_size": 10}, set()),
        (
            "unregister_model_timeout=soon\ngrpc_inference_max_connection_age_ms=9000000000\n",
            {},
            {"properties": {"grpc_inference_max_connection_age_ms": "9000000000"}},
            {"unregister_model_timeout"},
        ),
        ("cpu_launcher_args=--x \n", {}, {"properties": {"cpu_launcher_args": "--x "}}, set()),
        (
            "cors_allowed_origin=$$Q$$\n",
            {},
            {"properties": {"cors_allowed_origin": "$$Q$$"}},
            set(),
        ),
        ("job_queue_size=$$MY-Q.1$$\n", {"MY-Q.1": "5"}, {"job_queue_size": 5}, set()),
        (
            "cors_allowed_origin=$$ORIGIN$$\n",
            {"ORIGIN": "a\\b$1"},
            {
                "properties": {"cors_allowed_origin": "abORIGIN"},
                "environment": {"ORIGIN": "a\\b$1"},
            },
            set(),
        ),
        (
            "enable_envvars_config=$$ON$$\njob_queue_size=$$ON$$\n",
            {"ON": "True", "TS_JOB_QUEUE_SIZE": "9"},
            {
                "job_queue_size": 9,
                "properties": {"enable_envvars_config": "true"},
                "environment": {"ON": "True"},
            },
            set(),
        ),
        (
            "vmargs=-Djava.io.tmpdir=/mnt -XX:+A -XX:-A -XX:+A -cp /x @/etc/jvm.options\n",
            {"TS_MODEL_SERVER_HOME": "/opt"},
            {"jvm": {"-XX:-A": "", "-XX:+A": "", "--class-path": "/x", "@/etc/jvm.options": ""}},
            {"-Djava.io.tmpdir", "TS_MODEL_SERVER_HOME"},
        ),
        ("debug=true\n", {}, {}, {"debug"}),
        (
            "",
            dict.fromkeys(("MKL_NUM_THREADS", "OMP_NUM_THREADS"), "²"),
            {"environment": dict.fromkeys(("MKL_NUM_THREADS", "OMP_NUM_THREADS"), "²")},
            set(),
        ),
        (f"job_queue_size={'0' * 5000}7\n", {}, {"job_queue_size": 7}, set()),
        (entry(batchSize=8.7), {}, {"batch_size": 8}, set()),
        (entry(batchSize=4, batchDelay=3), {}, {"batch_size": 4}, {"batchDelay"}),
        (
            "number_of_netty_threads=$$THREADS$$\n",
            {"THREADS": "3"},
            {"netty_threads": 3, "environment": {"THREADS": "3"}},
            set(),
        ),
        ("models={'codegen':{'1.0':{'batchSize':'4'}}}\n", {}, {"batch_size": 4}, set()),
        ("models={codegen:{1.0:{batchSize=4}}}\n", {}, {"batch_size": 4}, set()),
        (
            "token_expiration_min=0.25\n",
            {},
            {"properties": {"token_expiration_min": "0.25"}},
            set(),
        ),
        ("# r\xe9glages\njob_queue_size=10\n", {}, {"job_queue_size": 10}, set()),
        (
            "\xef\xbb\xbf# settings\r\njob_queue_size=10\r\n",
            {},
            {"job_queue_size": 10},
            {"\xef\xbb\xbf#"},
        ),
        (
            "vmargs=-Dname=\"a\"\t-server  -Dx='b'\n",
            {},
            {"jvm": {"-Dname": '"a"', "-server": "", "-Dx": "'b'"}},
            set(),
        ),
        (
            "vmargs=-Xmx1g --add-opens java.base/java.lang=ALL-UNNAMED -Xmx2g\n",
            {},
            {"jvm": {"-Xmx": "2g", "--add-opens=java.base/java.lang": "ALL-UNNAMED"}},
            set(),
        ),
        (
            "enable_envvars_config=true\njob_queue_size=1\n",
            {
                "TS_JOB_QUEUE_SIZE": "7",
                "TS_INFERENCE_ADDRESS": "http://0.0.0.0:80",
                "TS_IO_RATIO": "9",
            },
            {
                "job_queue_size": 7,
                "properties": {"enable_envvars_config": "true"},
                "environment": {"TS_IO_RATIO": "9"},
            },
            {"inference_address"},
        ),
        (
            "job_queue_size=1\n",
            {"TS_JOB_QUEUE_SIZE": "7"},
            {"job_queue_size": 1, "environment": {"TS_JOB_QUEUE_SIZE": "7"}},
            set(),
        ),
    ],
)
def test_read_reads_as_torchserve_does(
    written: str, variables: dict[str, str], settings: dict[str, Any], ignored: set[str]
) -> None:
    read, overridden = parse(written, ARCHIVE, variables)
    assert read.to_dict() == settings
    assert set(overridden) == ignored


@pytest.mark.parametrize(
    ("archived", "kept", "overridden"),
    [
        (
            {"batchSize": 2**31, "minWorkers": 2.0, "maxWorkers": 2},
            ["workers", "batch_size", "job_queue_size"],
            {"responseTimeout"},
        ),
        ({"batchSize": 4}, ["workers", "job_queue_size"], {"batchSize", "responseTimeout"}),
        (
            {"minWorkers": 1, "maxWorkers": 1},
            ["batch_size", "job_queue_size"],
            {"minWorkers", "maxWorkers", "responseTimeout"},
        ),
        ({"minWorkers": 1}, ["workers", "batch_size", "job_queue_size"], {"responseTimeout"}),
        ({"batchSize": "4"}, ["workers", "batch_size", "job_queue_size"], {"responseTimeout"}),
        (
            {"jobQueueSize": 5, "handler": {}},
            ["workers", "batch_size"],
            {"job_queue_size", "responseTimeout"},
        ),
    ],
)
def test_read_returns_lines_that_the_archive_overrides(
    archived: dict[str, Any], kept: list[str], overridden: set[str]
) -> None:
    numbers = {"minWorkers": 3, "maxWorkers": 3, "batchSize": 8, "responseTimeout": 60}
    settings = {"workers": 3, "batch_size": 8, "job_queue_size": 10}
    decided = {"workers": "minWorkers", "batch_size": "batchSize", "job_queue_size": "jobQueueSize"}
    archive = replace(ARCHIVE, settings=archived)
    read, unused = parse(f"job_queue_size=10\n{entry(**numbers)}", archive)
    assert read.to_dict() == {
        name: value if name in kept else archived[decided[name]] for name, value in settings.items()
    }
    assert set(unused) == overridden


def test_read_takes_numbers_below_one_of_the_archive_as_one() -> None:
    archived = {"batchSize": -4, "minWorkers": 0, "maxWorkers": 1, "maxBatchDelay": 0}
    read, unused = parse(entry(batchSize=8, minWorkers=3), replace(ARCHIVE, settings=archived))
    assert read.to_dict() == {"workers": 1, "batch_size": 1}
    assert set(unused) == {"batchSize", "minWorkers"}


@pytest.mark.parametrize(
    ("lines", "variables", "archived", "note"),
    [
        ("vmargs: -Xmx1g\n", {}, {}, "vmargs=-Xmx1g: the command torchserve does not read it"),
        ("vmargs -Dx=1\n", {}, {}, "vmargs=-Dx=1: the command torchserve does not read it"),
        (
            "vmargs=-Djavax.net.ssl.keyStorePassword=x\n",
            {},
            {},
            "vmargs has a secret, -Djavax.net.ssl.keyStorePassword: the server gets it through",
        ),
        ("service_envelope=kserve\n", {}, {}, "passes only the first request of a batch"),
        (
            "service_envelope=kservev2\n",
            {},
            {"batchSize": 8, "maxBatchDelay": 9, "minWorkers": 1, "maxWorkers": 1},
            "TorchServe fails the others: batch_size must be 1 (in use: 8)",
        ),
        ("plugins_path: /p\n", {}, {}, "plugins_path=/p: the command torchserve does not read it"),
        ("model_store=$$M_S$$\n", {"M_S": "/m"}, {}, "torchserve reads it as '$$M_S$$'"),
        ("model_store=/a\\\n /b\n", {}, {}, "torchserve reads it as '/a"),
        ("enable_model_api=true \n", {}, {}, "enable_model_api='true ' is false: TorchServe reads"),
        ("prefer_direct_buffer=1\n", {}, {}, "prefer_direct_buffer='1' is false: TorchServe reads"),
        (
            "",
            {"TS_JOB_QUEUE_SIZE": "9"},
            {},
            "without effect, because enable_envvars_config is not true",
        ),
        (
            "",
            {"TS_CONFIG_FILE": "/etc/t"},
            {},
            "TS_CONFIG_FILE is /etc/t: TorchServe reads that file",
        ),
        ("", {"MY-Q": "1"}, {}, "variables that no shell can set, left out: MY-Q"),
        (
            "vmargs=-Djava.io.tmpdir=/mnt\ndebug=false\n",
            {},
            {},
            "servetune replaces in its own server: -Djava.io.tmpdir=/mnt, debug=false",
        ),
        ("debug=TRUE\n", {}, {}, "debug is true: TorchServe then starts no workers"),
        ("vmargs=-DTS_DEBUG=true\n", {}, {}, "debug is true: TorchServe then starts no workers"),
        ("load_models=codegen.mar, zoo.mar\n", {}, {}, "TorchServe does not find ' zoo.mar'"),
        (
            "load_models=codegen.mar \n",
            {},
            {},
            "load_models=codegen.mar  does not load codegen.mar",
        ),
        ("load_models=dog = codegen.mar\n", {}, {}, "TorchServe does not find ' codegen.mar'"),
        ("load_models=a=codegen.mar,b=codegen.mar\n", {}, {}, "of the same archive, left out: b"),
        (
            'load_models=codegen.mar\nmodels={"codegen":{"1":{}}}\n',
            {},
            {},
            "does not read the entry of codegen 1, because the version of codegen.mar is 1.0",
        ),
        (
            f"model_snapshot={SNAPSHOT.replace('1,', '0,', 1)}\n",
            {},
            {},
            "modelCount is 0, so that TorchServe loads no model",
        ),
        (
            f"model_snapshot={SNAPSHOT.replace('codegen.mar', 'x.mar')}\n",
            {},
            {},
            "the entry of codegen names x.mar, not codegen.mar",
        ),
        ("", {}, {"batchSize": True}, "batchSize is True, not an integer; TorchServe ignores it"),
        ("", {}, {"batchSize": 0}, "TorchServe takes batchSize 0 as 1"),
        ("", {}, {"minWorkers": 2}, "ignores minWorkers 2 without both minWorkers and maxWorkers"),
    ],
)
def test_summary_notes_what_torchserve_reads_otherwise(
    lines: str, variables: dict[str, str], archived: dict[str, Any], note: str
) -> None:
    read = Deployment.read(lines, variables, replace(ARCHIVE, settings=archived))
    assert note in " | ".join(read.summary(None))


def test_read_prefers_the_snapshot_to_the_archive() -> None:
    archive = replace(ARCHIVE, settings={"batchSize": 4, "minWorkers": 1, "maxWorkers": 1})
    read, unused = parse(f"model_snapshot={SNAPSHOT}\n", archive)
    assert (
        read.to_dict() == {"workers": 3, "batch_size": 16, "max_batch_delay_ms": 50}
        and unused == {}
    )


def test_read_keeps_different_thread_counts_as_variables() -> None:
    variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "2"}
    read, _ = parse("", ARCHIVE, variables)
    assert read.mkl_threads is None
    assert read.environment == variables


@pytest.mark.parametrize(
    ("lines", "name", "workers"),
    [
        ("load_models=parrot=codegen.mar\n", "parrot", 2),
        ("load_models=zoo.mar,parrot=codegen.mar\n", "parrot", 2),
        ("load_models=codegen.mar\n", "codegen", 5),
        ("load_models=all\n", "codegen", 5),
        ("load_models=parrot=other.mar\n", "codegen", 5),
        ("load_models=x.mar,parrot=codegen.mar,y.mar\n", "parrot", 2),
        ("load_models=parrot=/srv/models/codegen.mar\n", "parrot", 2),
        ("load_models=parrot=https://host/store/codegen.mar\n", "parrot", 2),
        ("load_models=codegen.mar,parrot=codegen.mar\n", "codegen", 5),
        ("", "codegen", 5),
    ],
)
def test_read_uses_the_name_that_the_model_is_registered_with(
    lines: str, name: str, workers: int
) -> None:
    models = {"parrot": {"1.0": {"minWorkers": 2, "maxWorkers": 2}}}
    models["codegen"] = {"1.0": {"minWorkers": 5, "maxWorkers": 5}}
    read = Deployment.read(f"{lines}models={json.dumps(models)}\n", {}, ARCHIVE)
    assert (read.archive.name, read.config.workers) == (name, workers)


def test_read_finds_a_snapshot_entry_by_the_name_of_its_archive() -> None:
    other = {**SNAPSHOT_ENTRY, "marName": "other.mar"}
    models = {"other": {"1.0": other}, "parrot": {"2.0": SNAPSHOT_ENTRY}}
    snapshot = {"modelCount": 2, "models": models}
    read = Deployment.read(f"load_models=all\nmodel_snapshot={json.dumps(snapshot)}\n", {}, ARCHIVE)
    assert (read.archive.name, read.version, read.config.workers) == ("parrot", "2.0", 3)
    assert read.other_models == ("other 1.0",)
    assert read.notes == ("model_snapshot: TorchServe does not read load_models beside it",)


@pytest.mark.parametrize(
    ("lines", "others"),
    [
        ("load_models=codegen.mar,zoo.mar\n" + entry(minWorkers=1), ("zoo",)),
        ("load_models=a=zoo.mar,codegen.mar\n", ("a",)),
        ('load_models=all\nmodels={"zoo":{"1.0":{},"2.0":{}},"codegen":{"2.0":{}}}\n', ("zoo 1.0", "zoo 2.0", "codegen 2.0")),
        ('load_models=codegen.mar,zoo.mar\nmodels={"zoo":{"1.0":{}}}\n', ("zoo 1.0",)),
        ('load_models=codegen.mar\nmodels={"zoo":{"1.0":{}}}\n', ()),
        ('models={"zoo":{"1.0":{}}}\n', ("zoo 1.0",)),
        ("load_models=codegen.mar\n", ()),
    ],
)  # fmt: skip
def test_read_names_the_other_models(lines: str, others: tuple[str, ...]) -> None:
    assert Deployment.read(lines, {}, ARCHIVE).other_models == others


def test_read_prefers_an_alias_that_is_the_stem_of_the_file() -> None:
    archive = Archive(Path("/models/codegen.mar"), "dog", "1.0", manifest_name="dog")
    for lines, name in (("codegen=codegen.mar", "codegen"), ("codegen.mar", "dog")):
        assert Deployment.read(f"load_models={lines}\n", {}, archive).archive.name == name


def test_read_notes_models_that_are_not_loaded() -> None:
    models = 'models={"zoo":{"1.0":{}}}\n'
    read = Deployment.read(f"load_models=codegen.mar\n{models}", {}, ARCHIVE)
    assert read.notes == ("models: load_models does not load zoo",)
    uncertain = Deployment.read(f"load_models=codegen.mar,animals.mar\n{models}", {}, ARCHIVE)
    assert uncertain.notes == () and uncertain.other_models == ("zoo 1.0", "animals")


def test_read_notes_that_the_archive_is_not_loaded() -> None:
    read = Deployment.read("load_models=zoo.mar\n", {}, ARCHIVE)
    assert read.notes == ("load_models=zoo.mar does not load codegen.mar",)


@pytest.mark.parametrize(
    ("lines", "settings", "workers"),
    [
        ("default_workers_per_model=1\n", {}, 1),
        ("default_workers_per_model=3\n" + entry(batchSize=2), {}, 3),
        ("default_workers_per_model=3\n" + entry(minWorkers=2, maxWorkers=2), {}, 2),
        ("default_workers_per_model=0\n", {}, None),
        ("default_workers_per_model=3\n", {"minWorkers": 4, "maxWorkers": 4}, 4),
        ("default_workers_per_model=3\n", {"minWorkers": 4}, 3),
    ],
)
def test_read_finds_the_effective_number_of_workers(
    lines: str, settings: dict[str, int], workers: int | None
) -> None:
    read = Deployment.read(lines, {}, replace(ARCHIVE, settings=settings))
    assert read.config.workers == workers


def test_read_separates_secrets() -> None:
    variables = {
        "HF_TOKEN": "a",
        "DB": "postgres://me:pw@host/db",
        "TS_KEYSTORE_PASS": "b",
        "X": "1",
    }
    lines = "keystore_pass=c\nallowed_urls=http://host/$$HF_TOKEN$$\n"
    read = Deployment.read(lines, variables, ARCHIVE, {"Y": "2"})
    assert read.secrets == {
        "HF_TOKEN": "a",
        "DB": variables["DB"],
        "TS_KEYSTORE_PASS": "b",
        "Y": "2",
    }
    assert read.config.environment == {"X": "1"}
    assert read.config.properties == {"allowed_urls": "http://host/$$HF_TOKEN$$"}
    printed = " ".join(read.summary(None)) + repr(read)
    assert "keystore_pass=<secret>" in printed and "pw@" not in printed


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        ({"SAGEMAKER_TS_BATCH_SIZE": "8"}, {"workers": 1, "batch_size": 8, "max_batch_delay_ms": 100, "response_timeout_s": 60}),
        ({"SAGEMAKER_TS_MIN_WORKERS": "2", "SAGEMAKER_TS_MAX_WORKERS": "2", "SAGEMAKER_TS_RESPONSE_TIMEOUT": "9"}, {"workers": 2, "batch_size": 1, "max_batch_delay_ms": 100, "response_timeout_s": 9}),
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "3", "TS_NUMBER_OF_NETTY_THREADS": "4", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}, {"workers": 3, "netty_threads": 4, "mkl_threads": 2}),
        ({"SAGEMAKER_TS_BATCH_SIZE": "8", "SAGEMAKER_MULTI_MODEL": "true"}, {}),
        ({"TS_JOB_QUEUE_SIZE": "7"}, {"job_queue_size": 7}),
    ],
)  # fmt: skip
def test_read_takes_an_environment_alone(
    variables: dict[str, str], settings: dict[str, int]
) -> None:
    read = Deployment.read(None, variables, ARCHIVE).config.to_dict()
    assert {k: v for k, v in read.items() if k not in ("properties", "jvm")} == settings
    assert read["properties"]["enable_envvars_config"] == "true"


@pytest.mark.parametrize("name", ["TS_VMARGS", "TS_PLUGINS_PATH", "TS_MODELS"])
def test_read_notes_variables_that_set_no_property(name: str) -> None:
    read = Deployment.read("enable_envvars_config=true\nvmargs=-Xmx1g\n", {name: "-Xmx2g"}, ARCHIVE)
    assert read.config.jvm == {"-Xmx": "1g"}
    assert f"variable {name} is not known to TorchServe" in " ".join(read.notes)


def test_read_notes_the_traps_of_sagemaker() -> None:
    variables = {"SAGEMAKER_TS_MAX_BATCH_DELAY": "100000", "SAGEMAKER_TS_STARTUP_TIMEOUT": "9"}
    archive = replace(ARCHIVE, settings={"batchSize": 4})
    notes = " ".join(Deployment.read(None, {**variables, "TS_WORKERS": "1"}, archive).notes)
    assert "the container sets the others to its defaults: SAGEMAKER_TS_BATCH_SIZE 1," in notes
    assert "the batch delay is 100000 ms, 100 s" in notes
    assert "variable SAGEMAKER_TS_STARTUP_TIMEOUT is not known" in notes
    assert "variable TS_WORKERS is not known" in notes
    assert "model-config.yaml takes precedence" in notes and "-XX:-UseContainerSupport" in notes
    with pytest.raises(ConfigError, match=r"SAGEMAKER_TS_BATCH_SIZE must be an integer .got"):
        Deployment.read(None, {"SAGEMAKER_TS_BATCH_SIZE": "big"}, ARCHIVE)


def test_read_leaves_secret_arguments_of_the_jvm_to_the_environment() -> None:
    options = "-Xmx1g -Djavax.net.ssl.keyStorePassword=hunter2"
    read = Deployment.read(
        None, {"JDK_JAVA_OPTIONS": options, "SAGEMAKER_TS_BATCH_SIZE": "2"}, ARCHIVE
    )
    assert read.secrets == {"JDK_JAVA_OPTIONS": options} and "hunter2" not in repr(read)


@pytest.mark.parametrize(
    ("variables", "public"),
    [
        ({}, {}),
        ({"JDK_JAVA_OPTIONS": "-Da.token=b"}, {}),
        ({}, {"JDK_JAVA_OPTIONS": "-Xmx2g"}),
        ({}, {"JDK_JAVA_OPTIONS": "-Dx=1 '-Dy=2 3'"}),
    ],
)
def test_read_keeps_secret_jvm_arguments_out_of_the_configuration(
    variables: dict[str, str], public: dict[str, str]
) -> None:
    lines = (
        "vmargs=-Xmx1g -Djavax.net.ssl.keyStorePassword=hunter2 -javaagent:a.jar=license_key=x\n"
    )
    read = Deployment.read(lines, {**variables, **public}, ARCHIVE)
    assert read.config.environment == public
    assert read.config.jvm == {"-Xmx": "1g"} and "hunter2" not in repr(read)
    words = ['"-Djavax.net.ssl.keyStorePassword=hunter2"', '"-javaagent:a.jar=license_key=x"']
    assert read.secrets == {"JDK_JAVA_OPTIONS": " ".join([*variables.values(), *words])}


@pytest.mark.parametrize(
    ("lines", "variables"),
    [
        ("vmargs: -Da.password=hidden\n", {}),
        ("vmargs=-Da.password=hidden-1\nvmargs -Da.password=hidden-2\n", {}),
        ("vmargs=-Da.password=hidden\\1\n", {}),
        ("job_queue_size=5\n", {"JDK_JAVA_OPTIONS": "-Xmx1g '-Dapi.key=hidden'"}),
        ("job_queue_size=5\n", {"_JAVA_OPTIONS": "-Ddb.pass=hidden"}),
        ("load_models=echo=https://h/echo.mar?sv=1&sig=hidden\n", {}),
    ],
)
def test_summary_shows_no_secret(lines: str, variables: dict[str, str]) -> None:
    read = Deployment.read(lines, variables, ARCHIVE)
    assert "hidden" not in " ".join(read.summary(None)) + repr(read.config)


def test_read_replaces_a_secret_in_a_line_by_a_variable() -> None:
    read = Deployment.read("allowed_urls=https://me:p$w@host/.*\n", {}, ARCHIVE)
    assert read.config.properties == {"allowed_urls": "$$SERVETUNE_ALLOWED_URLS$$"}
    assert read.secrets == {"SERVETUNE_ALLOWED_URLS": r"https://me:p\$w@host/.*"}


@pytest.mark.parametrize(
    ("lines", "variables", "settings", "name", "secrets"),
    [
        (
            'enable_envvars_config=true\nmodels={"cats":{"1.0":{"minWorkers":4,"maxWorkers":4}}}\n',
            {"TS_LOAD_MODELS": "cats=https://u:hidden@host/codegen.mar"},
            {"workers": 4},
            "cats",
            set(),
        ),
        (
            'load_models=$$MODEL_URL$$\nmodels={"cats":{"1.0":{"minWorkers":4,"maxWorkers":4}}}\n',
            {"MODEL_URL": "cats=https://u:hidden@host/codegen.mar"},
            {"workers": 4},
            "cats",
            {"MODEL_URL"},
        ),
        (
            "load_models=cats=https://u:$$ORACLE$$@host/codegen.mar\n",
            {"ORACLE": "hidden"},
            {},
            "cats",
            {"ORACLE"},
        ),
        (
            "job_queue_size=$$QUEUE_KEY$$\ndefault_workers_per_model=$$PASS$$\n",
            {"QUEUE_KEY": "10", "PASS": "3"},
            {"workers": 3, "job_queue_size": 10},
            "codegen",
            {"QUEUE_KEY", "PASS"},
        ),
        (
            "prefer_direct_buffer=$$A_KEY$$\nallowed_urls=$$A_KEY$$\n",
            {"A_KEY": "TRUE"},
            {},
            "codegen",
            {"A_KEY"},
        ),
    ],
)
def test_read_takes_numbers_and_models_from_secrets(
    lines: str,
    variables: dict[str, str],
    settings: dict[str, int],
    name: str,
    secrets: set[str],
) -> None:
    read = Deployment.read(lines, variables, ARCHIVE)
    found = read.config.to_dict()
    properties = found.pop("properties", {})
    assert (found, read.archive.name, read.secrets.keys()) == (settings, name, secrets)
    assert properties.get("prefer_direct_buffer", "true") == "true"
    assert properties.get("allowed_urls", "$$A_KEY$$") == "$$A_KEY$$"
    assert "hidden" not in repr(read) + " ".join(read.summary(None))
    assert not read.others


def test_read_takes_settings_of_the_file_of_secrets_and_drops_their_variables() -> None:
    secrets = {"TS_JOB_QUEUE_SIZE": "5", "TS_MODEL_STORE": "/a", "HF_TOKEN": "t"}
    read = Deployment.read("enable_envvars_config=true\n", {}, ARCHIVE, secrets)
    assert read.config.job_queue_size == 5 and read.secrets == {"HF_TOKEN": "t"}
    unknown = Deployment.read(
        "enable_envvars_config=true\n", dict.fromkeys(secrets, "<secret>"), ARCHIVE
    )
    assert unknown.secrets.keys() == {"TS_JOB_QUEUE_SIZE", "HF_TOKEN"}


@pytest.mark.parametrize("line", ["job_queue_size=$$A_KEY$$", "max_request_size=1$$A_KEY$$"])
def test_read_refuses_an_invalid_number_without_showing_the_secret(line: str) -> None:
    with pytest.raises(ConfigError, match=r"must be an integer that Java reads .*A_KEY") as error:
        Deployment.read(line + "\n", {"A_KEY": "hidden"}, ARCHIVE)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("https://a:hidden@h/.*,$$XX$$", "https://a:hidden@h/.*,1"),
        ("$$XX$$,https://a:hid$$PART$$@h/.*", "1,https://a:hiddenu@h/.*"),
        ("https://u:$$ORACLE$$@h/.*", None),
        ("$$XX$$", None),
    ],
)
def test_read_fills_variables_into_a_line_with_a_secret(text: str, secret: str | None) -> None:
    variables = {"XX": "1", "ORACLE": "hidden", "PART": "denu"}
    read = Deployment.read(f"allowed_urls={text}\n", variables, ARCHIVE)
    line = text.replace("$$XX$$", "1") if secret is None else "$$SERVETUNE_ALLOWED_URLS$$"
    assert read.config.properties == {"allowed_urls": line}
    assert read.secrets.get("SERVETUNE_ALLOWED_URLS") == secret
    if "ORACLE" in text:
        assert read.secrets == {"ORACLE": "hidden"}


def test_read_takes_only_redacted_variables_from_the_file_of_secrets() -> None:
    original = {"HF_TOKEN": "a", "THREADS": "2"}
    copied = {"HF_TOKEN": "<secret>", "THREADS": "2"}
    read = Deployment.read("number_of_netty_threads=$$THREADS$$\n", copied, ARCHIVE, original)
    assert read.config.netty_threads == 2 and read.secrets == {"HF_TOKEN": "a"}
