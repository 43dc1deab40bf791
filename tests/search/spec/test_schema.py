"""What a specification derives from its sections."""

from pathlib import Path

import pytest
import yaml

from search.spec import schema
from search.spec.loading import load_spec
from serving.config import ServerConfig
from serving.limits import Limits
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
    assert note.endswith("about other models): NUM_WORKERS, secret")
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
