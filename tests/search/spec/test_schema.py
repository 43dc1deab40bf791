"""What a specification derives from its sections."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from search.errors import SpecError
from search.spec import schema
from search.spec.loading import load_spec
from search.spec.schema import StudySpec
from search.spec.space_building import DEFAULT_SETTINGS
from serving.configuration.config import ServerConfig
from serving.limits import Limits
from tests.archives import make_archive
from tests.specifications import write_spec


def test_spec_with_only_a_model_has_all_defaults(folder: Path) -> None:
    spec = load_spec(write_spec(folder))
    assert spec.archive().name == "echo"
    assert len(spec.payloads()) == 1
    assert len(spec.build_space(2).dimensions) == 6


def test_build_space_searches_the_thread_variable_instead_of_mkl_threads(folder: Path) -> None:
    settings = {"mkl_threads": None, "environment": {"OMP_NUM_THREADS": [1, 2]}}
    space = load_spec(write_spec(folder, space=settings)).build_space(2)
    names = [d.name for d in space.dimensions]
    assert "environment.OMP_NUM_THREADS" in names and "mkl_threads" not in names


def test_baseline_notes_name_what_has_no_effect(folder: Path) -> None:
    (folder / "config.properties").write_text("NUM_WORKERS=1\njob_queue_size=5\nsecret=x\n")
    spec = load_spec(write_spec(folder, serving={"baseline": "config.properties"}))
    (note,) = spec.baseline_notes()
    assert note.endswith("model-config.yaml overrides them): NUM_WORKERS=1, secret=<secret>")
    (folder / "config.properties").write_text("job_queue_size=5\n")
    assert spec.baseline_notes() == []
    assert load_spec(write_spec(folder)).baseline_notes() == []


def test_baseline_reads_the_file_and_its_environment(folder: Path) -> None:
    (folder / "config.properties").write_text("number_of_netty_threads=8\n")
    (folder / "environment").write_text("OMP_NUM_THREADS=1\nMKL_NUM_THREADS=1\n")
    spec = load_spec(write_spec(folder, serving={"baseline": "config.properties"}))
    assert spec.baseline() == ServerConfig(netty_threads=8, mkl_threads=1)


def test_resolved_spec_loads_as_the_same_spec(folder: Path) -> None:
    spec = load_spec(write_spec(folder, space={"netty_threads": None, "batch_size": [1, 8]}))
    resolved = spec.resolved()
    assert resolved["space"]["workers"]["low"] == 1
    (folder / "again.yaml").write_text(yaml.safe_dump(resolved))
    assert load_spec(folder / "again.yaml").build_space() == spec.build_space()


IN_USE = """\
service_envelope=json
max_request_size=1000
io_ratio=70
job_queue_size=500
number_of_netty_threads=9
vmargs=-Xmx1g
models={"echo":{"1.0":{"minWorkers":2,"maxWorkers":4,"batchSize":3,"responseTimeout":60,"startupTimeout":9}}}
"""


def in_use(folder: Path, **sections: Any) -> StudySpec:
    (folder / "config.properties").write_text(IN_USE)
    (folder / "environment").write_text("OMP_NUM_THREADS=1\nOMP_WAIT_POLICY=active\nMODEL=a\n")
    return load_spec(write_spec(folder, serving={"baseline": "config.properties"}, **sections))


def test_study_space_holds_untuned_settings_in_use_in_every_trial(folder: Path) -> None:
    space = in_use(folder).study_space(2)
    assert [d.name for d in space.dimensions] == list(DEFAULT_SETTINGS)
    assert space.common == ServerConfig(
        job_queue_size=500,
        response_timeout_s=60,
        properties={"service_envelope": "json", "max_request_size": "1000", "io_ratio": "70"},
        environment={"OMP_WAIT_POLICY": "active", "MODEL": "a"},
        jvm={"-Xmx": "1g"},
        model_properties={"startupTimeout": 9},
    )


def test_study_space_prefers_the_specification_to_the_file_in_use(folder: Path) -> None:
    settings = {
        **{"netty_threads": None, "job_queue_size": None, "mkl_threads": None, "workers": 3},
        "properties": {"io_ratio": [50, 90]},
        "jvm": {"-Xmx": "2g"},
    }
    space = in_use(folder, space=settings).study_space(2)
    assert {d.name for d in space.dimensions} >= {"properties.io_ratio", "batch_size"}
    common = space.common
    assert (common.netty_threads, common.job_queue_size, common.workers) == (None, None, 3)
    assert common.jvm == {"-Xmx": "2g"} and "io_ratio" not in common.properties
    assert "OMP_NUM_THREADS" not in common.environment, "null is TorchServe's default"


def test_study_space_of_a_sweep_holds_what_is_not_swept(folder: Path) -> None:
    sweep = {"points": [{"batch_size": 2}], "loads": [{"kind": "closed", "users": 1}]}
    points = in_use(folder, sweep=sweep).points()
    settings = {(p.batch_size, p.workers, p.netty_threads, p.job_queue_size) for p in points}
    assert settings == {(2, 2, 9, 500)}


def test_default_config_keeps_only_what_the_model_may_need(folder: Path) -> None:
    default = in_use(folder).study_space(2).default_config
    assert default == ServerConfig(
        properties={"service_envelope": "json", "max_request_size": "1000"},
        environment={"MODEL": "a"},
        model_properties={"startupTimeout": 9},
    )
    notes = " ".join(in_use(folder).baseline_notes())
    assert "with what the model may need of the baseline: service_envelope, max_request_" in notes


def test_default_config_has_the_settings_of_the_archive(folder: Path) -> None:
    make_archive(folder, model_config__yaml="minWorkers: 1\nmaxWorkers: 1\njobQueueSize: 7\n")
    space = load_spec(write_spec(folder)).study_space(2)
    assert space.default_config == ServerConfig(workers=1, job_queue_size=7)
    assert space.common.job_queue_size == 7


@pytest.mark.parametrize(
    "baseline", [{"environment": "env.json"}, {"properties": "c", "environment": "env.json"}]
)
def test_baseline_may_be_an_environment_file(folder: Path, baseline: dict[str, str]) -> None:
    (folder / "env.json").write_text(
        '{"SAGEMAKER_TS_BATCH_SIZE": 8, "TS_JOB_QUEUE_SIZE": 5, "A_KEY": "x"}'
    )
    (folder / "c").write_text("enable_envvars_config=true\n")
    spec = load_spec(write_spec(folder, serving={"baseline": baseline}))
    read = spec.baseline()
    assert read is not None and read.job_queue_size == 5
    assert read.batch_size == (None if "properties" in baseline else 8)
    assert spec.site(spec.installation()).secrets == {"A_KEY": "x"}


def test_baseline_refuses_a_section_without_a_file(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"serving\.baseline: needs `properties`, `environment`"):
        load_spec(write_spec(folder, serving={"baseline": {}}))


def test_limits_apply_to_site_and_space(folder: Path) -> None:
    limits = {"limits": {"cpus": 1.5, "memory_mb": 1000}}
    spec = load_spec(write_spec(folder, serving=limits))
    assert spec.serving.limits.limits() == Limits(1.5, 1000 << 20)
    space = spec.build_space(8)
    assert space.defaults["workers"] == 2
    assert space.defaults["mkl_threads"] == 8, "torch does not respect the quota"
    assert {d.name: d.high for d in space.dimensions}["workers"] == 4


def test_build_space_uses_quota_of_this_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "available_cores", lambda: 3)
    monkeypatch.setattr(schema, "affinity_cores", lambda: 96)
    spec = load_spec(write_spec(folder))
    space = spec.build_space()
    assert (space.cores, space.threads) == (3, 96)
    unlimited = load_spec(write_spec(folder, serving={"limits": {"cpus": 8}}))
    assert unlimited.build_space().cores == 3


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "example.org",
        "http://",
        "http:///path",
        "http://a b/",
        "http://user:secret@example.org/",
        "https://example.org/#top",
        "http://example.org:99999/",
        "http://[::1/",
        "file:///etc/passwd",
        "http://example.org/\r\nX: 1",
        "http://ex\u00e4mple.org/",
    ],
)
def test_spec_refuses_what_is_no_http_url(folder: Path, url: str) -> None:
    for sections in ({"notify": [{"url": url}]}, {"output": {"mlflow": url}}):
        with pytest.raises(SpecError, match=r"must be an http:// or https:// URL") as caught:
            load_spec(write_spec(folder, **sections))
        assert "secret" not in str(caught.value), "the URL may contain one"


def test_spec_reads_webhooks(folder: Path) -> None:
    hook = {"url": "https://hooks.example.org:8443/a?b=c", "on": ["stopped"]}
    spec = load_spec(write_spec(folder, notify=[hook, {"url": "http://127.0.0.1:1/"}]))
    assert [n.on for n in spec.notify] == [["stopped"], ["finished", "failed"]]
    for invalid in ([{"url": "http://a/", "on": ["done"]}], [{"url": "http://a/", "on": []}], {}):
        with pytest.raises(SpecError, match="notify"):
            load_spec(write_spec(folder, notify=invalid))
