from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.archive import Archive
from serving.config import ServerConfig, parse_environment
from serving.errors import ConfigError

ARCHIVE = Archive(Path("/models/codegen.mar"), "codegen", "1.0")
SITE_PROPERTIES = {"inference_address": "http://127.0.0.1:8080"}

SNAPSHOT_ENTRY = {"minWorkers": 3, "maxWorkers": 3, "batchSize": 16, "maxBatchDelay": 50}
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


@given(configs)
def test_config_is_equal_after_write_and_parse(config: ServerConfig) -> None:
    written = config.properties_text(ARCHIVE, SITE_PROPERTIES)
    environment = parse_environment(config.environment_text())
    read, overridden = ServerConfig.parse(written, ARCHIVE, environment)
    assert read == config
    assert overridden == {**SITE_PROPERTIES, "load_models": "codegen.mar"}


def test_config_without_settings_writes_archive_only() -> None:
    written = ServerConfig().properties_text(ARCHIVE, {})
    assert written == "load_models=codegen.mar\n"
    assert ServerConfig().environment_text() == ""


def test_environment_variables_has_both_thread_variables() -> None:
    assert ServerConfig(mkl_threads=2).environment_variables() == {
        "MKL_NUM_THREADS": "2",
        "OMP_NUM_THREADS": "2",
    }


def test_properties_text_does_not_escape_vmargs() -> None:
    # The torchserve wrapper splits lines at the first '=' and unescapes nothing.
    written = ServerConfig(jvm={"-Dname": "a:b", "-Xmx": "2g"}).properties_text(ARCHIVE, {})
    assert "vmargs=-Dname=a:b -Xmx2g\n" in written


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 0}, r"batch_size must be an integer of at least 1 \(got 0\)"),
        ({"max_batch_delay_ms": 0}, "TorchServe reads 0 as 100"),
        ({"workers": True}, "workers must be an integer"),
        ({"properties": {"async_loging": "true"}}, "async_loging is not known"),
        ({"properties": {"io_ratio": "many"}}, "io_ratio must be an integer"),
        ({"properties": {"ipex_enable": "yes"}}, "ipex_enable must be true or false"),
        ({"properties": {"keystore": "x "}}, "trailing spaces"),
        ({"properties": {"job_queue_size": "5"}}, "use the setting job_queue_size"),
        ({"properties": {"inference_address": "x"}}, "inference_address is set by servetune"),
        ({"properties": {"models": "{}"}}, "is written from the other settings"),
        ({"environment": {"A B": "1"}}, "A B='1' needs a valid shell name"),
        ({"environment": {"OMP_NUM_THREADS": "1"}, "mkl_threads": 1}, "set the same thing"),
        ({"environment": {"TS_CONFIG_FILE": "x"}}, "TS_CONFIG_FILE is set by servetune"),
        ({"jvm": {"Xmx": "2g"}}, "must start with '-'"),
        ({"model_properties": {"batchDelay": 3}}, "batchDelay is not known"),
    ],
)
def test_config_refuses_invalid_setting(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ServerConfig(**settings)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("job_queue_size=1_000", "must be an integer that Java reads .got '1_000'"),
        ("job_queue_size=3000000000", "must be an integer that Java reads"),
        ("job_queue_size= ten", "must be an integer that Java reads"),
        ("max_request_size=10 ", "must be an integer that Java reads"),
        ("number_of_netty_threads=$$THREADS$$", "the environment variable THREADS, which is not"),
        ('models={"codegen":{"1.0":{"batchSize":"many"}}}', "batchSize must be an integer"),
        ('models={"codegen":{"1.0":{"minWorkers":true}}}', "minWorkers must be an integer"),
        ('models={\n  "codegen": {', "models must be .* needs a backslash at the end of each line"),
        (
            "model_snapshot={\n}",
            "model_snapshot must be .* needs a backslash at the end of each line",
        ),
        ('models={"codegen": {\\\n"1.0":\n{}}}', "needs a backslash at the end of each line"),
        ('model_snapshot={"modelCount":1}', "property model_snapshot must be a JSON object"),
        ('models={"codegen":{"1.0":{"batchSize":null}}}', "batchSize must be an integer"),
        ('models={"codegen":{"1.0":{"batchSize":4,}}}', "property models must be a JSON object"),
        ('models={"codegen":{"1.0":{"batchSize":4}};}', "property models must be a JSON object"),
        (
            'model_snapshot={"models":{"codegen":{"1.0":{"minWorkers":1,"maxWorkers":1}}}}',
            "batchSize must be an integer",
        ),
        (
            f"model_snapshot={SNAPSHOT.replace('50', '0')}",
            "maxBatchDelay must be at least 1 to be measured .got 0",
        ),
        ('models={"codegen":{"1.0":{"batchSize":1e400}}}', "batchSize must be an integer"),
        ('vmargs=-Dname="x', "vmargs: No closing quotation"),
        ("job_queue_size=0", "job_queue_size must be an integer of at least 1"),
        ("models=[]", "models must be a JSON object"),
        ("vmargs=Xmx2g", "'Xmx2g' is not a JVM argument"),
    ],
)
def test_parse_refuses_invalid_line(line: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ServerConfig.parse(line, ARCHIVE)


def test_parse_returns_lines_outside_configuration() -> None:
    read, overridden = ServerConfig.parse(
        "inference_address=http://0.0.0.0:80\n"
        "disable_token_authorization=true\n"
        "number_of_netty_threads=0\n"
        'models={"codegen":{"1.0":{"minWorkers":3,"maxWorkers":5}},"other":{"2":{}}}\n',
        ARCHIVE,
    )
    assert read == ServerConfig(workers=3, model_properties={"maxWorkers": 5})
    assert set(overridden) == {"inference_address", "disable_token_authorization", "models"}


def entry(**settings: Any) -> str:
    return f"models={json.dumps({'codegen': {'1.0': settings}})}\n"


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
def test_parse_reads_as_torchserve_does(
    written: str, variables: dict[str, str], settings: dict[str, Any], ignored: set[str]
) -> None:
    read, overridden = ServerConfig.parse(written, ARCHIVE, variables)
    assert read.to_dict() == settings
    assert set(overridden) == ignored


@pytest.mark.parametrize(
    ("archived", "kept", "overridden"),
    [
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
def test_parse_returns_lines_that_the_archive_overrides(
    archived: dict[str, Any], kept: list[str], overridden: set[str]
) -> None:
    numbers = {"minWorkers": 3, "maxWorkers": 3, "batchSize": 8, "responseTimeout": 60}
    settings = {"workers": 3, "batch_size": 8, "job_queue_size": 10}
    archive = replace(ARCHIVE, settings=archived)
    read, unused = ServerConfig.parse(f"job_queue_size=10\n{entry(**numbers)}", archive)
    assert read.to_dict() == {name: settings[name] for name in kept}
    assert set(unused) == overridden


def test_parse_prefers_the_snapshot_to_the_archive() -> None:
    archive = replace(ARCHIVE, settings={"batchSize": 4, "minWorkers": 1, "maxWorkers": 1})
    read, unused = ServerConfig.parse(f"model_snapshot={SNAPSHOT}\n", archive)
    assert (
        read.to_dict() == {"workers": 3, "batch_size": 16, "max_batch_delay_ms": 50}
        and unused == {}
    )


def test_parse_keeps_different_thread_counts_as_variables() -> None:
    variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "2"}
    read, _ = ServerConfig.parse("", ARCHIVE, variables)
    assert read.mkl_threads is None
    assert read.environment == variables


def test_digest_ignores_order_of_settings() -> None:
    config = ServerConfig(environment={"A": "1", "B": "2"})
    reordered = ServerConfig(environment={"B": "2", "A": "1"})
    assert config.digest == reordered.digest != ServerConfig().digest
