from __future__ import annotations

from pathlib import Path

import pytest

from search.spec.config_file import read_config
from search.spec.serving_section import BaselineSection
from search.study.baseline_copy import copy_baseline
from serving.archive import Archive
from serving.configuration.deployment import Deployment
from tests.archives import make_archive

HTTPS = "inference_address=https://0.0.0.0:8443\nkeystore=/k.p12\nkeystore_type=PKCS12\n"


def read(section: BaselineSection, archive: Archive) -> Deployment:
    files = section.properties, archive, section.environment, section.secrets, section.original
    return read_config(*files)


@pytest.mark.parametrize(
    ("lines", "variables"),
    [
        ("vmargs=-Xmx1g -Da.password=hidden-1\nio_ratio=30\n", ""),
        ("vmargs=-Da.password=hidden-1\n", "JDK_JAVA_OPTIONS=-Xmx2g\n"),
        ("vmargs=-Da.password=hidden-1\n", "JDK_JAVA_OPTIONS=-Xmx2g\nHF_TOKEN=hidden-2\n"),
        ("vmargs=-Xmx1g -Da.password=hidden-1\nvmargs: -Da.password=hidden-2\n", "A_KEY=b\n"),
        ("keystore_pass=hidden-1\n# keystore_pass=hidden-2\n# a C:\\users\nkeystore_pass=x\n", ""),
        ("A_KEY=a\n# hf_hidden-1abcdef\n# old: keystore_pass=hidden-2\n", ""),
        ("#vmargs=-Da.password=hidden-1\nvmargs=-Db.pass=hidden-2\nvmargs=-Dc.pass=hidden-3\n", ""),
        ("vmargs\\u003d-Da.token=hidden-1\n\\u0076margs=-Da.token=hidden-2\nA_KEY=hidden-3\n", ""),
        ("A_KEY=a\n", "JAVA_TOOL_OPTIONS=-Dapi.key=hidden-1 -Xmx1g\n"),
        (
            "load_models=cats=https://me:hidden-1@host/echo.mar?sig=hidden-2\n"
            'models={"cats":{"1.0":{"minWorkers":4,"maxWorkers":4}}}\nA_KEY=a\n',
            "",
        ),
        ("vmargs=-Da.token=hidden-1 -Db=2\n", "HF_TOKEN=hidden-2\nX=1\n"),
        ("vmargs=-Da.token=hidden-1\n", "JDK_JAVA_OPTIONS=-Db.token=hidden-2\n"),
        ("vmargs=-javaagent:/a.jar=license_key=hidden-1\n", ""),
        ("allowed_urls=https://me:hidden-1$@host/.*\n", "HF_TOKEN=hidden-2\n"),
        (f"{HTTPS}keystore_pass=hidden-1$\n", ""),
        (f"{HTTPS}keystore_pass=hidden-1$\nvmargs=-Da.pwd=hidden-3\n", "HF_TOKEN=hidden-2\n"),
        (f"{HTTPS}keystore_pass=$$STORE_PASS$$\n", "STORE_PASS=hidden-2\n"),
        (f"{HTTPS}keystore_pass=$$STORE$$\n", "STORE=hidden-2\n"),
        ("allowed_urls=https://a:hidden-1@h/.*,$$XX$$\n", "XX=1\n"),
        ("allowed_urls=https://a:$$ORACLE$$@h/.*,$$XX$$\n", "XX=1\nORACLE=hidden-1\n"),
        (
            "load_models=$$MODEL_URL$$\njob_queue_size=$$A_KEY$$\n",
            "MODEL_URL=cats=https://me:hidden-1@h/echo.mar\nA_KEY=10\n",
        ),
        (
            "enable_envvars_config=true\njob_queue_size=9\n"
            'models={"cats":{"1.0":{"minWorkers":4,"maxWorkers":4}}}\n',
            "TS_LOAD_MODELS=cats=https://me:hidden-1@h/echo.mar\nHF_TOKEN=hidden-2\n",
        ),
        ("job_queue_size=9\n", "TS_LOAD_MODELS=https://me:hidden-1@h/echo.mar\n"),
        ("io_ratio=$$A_KEY$$\n", "A_KEY=30\n"),
        ('models={"echo":{"1.0":{"minWorkers":1,"apiToken":"hidden-1"}}}\n', ""),
        ("models={echo:{1.0:{batchSize:2,'a_key' : 'hidden-1', b: \"https://a:hidden@h\"}}}\n", ""),
        ('models={"echo":\\\n  {"1.0":{"my.pw":\\\n "hidden-1","batchSize":"2"}}}\n', ""),
        ("vmargs=-Dx=a:hf_hidden-1abcdef -Dauthorization=hidden-2\n", "MY_PW=hidden-3\n"),
    ],
)
def test_copy_baseline_leaves_secrets_where_they_are(
    tmp_path: Path, lines: str, variables: str
) -> None:
    archive = Archive.read(make_archive(tmp_path))
    (tmp_path / "config.properties").write_text(lines)
    if variables:
        (tmp_path / "environment").write_text(variables)
    files = BaselineSection(properties=tmp_path / "config.properties")
    in_use = read(files, archive)
    run = tmp_path / "run"
    run.mkdir()
    section = copy_baseline(files, in_use, run, in_use.key_pair)
    stored = "".join(path.read_text() for path in run.iterdir()) + str(section)
    assert "hidden" not in stored + repr(in_use.config) and "<secret>" in stored

    copied = BaselineSection(**{key: run / name for key, name in section.items()})
    again = read(copied, archive)
    assert (again.config, again.secrets) == (in_use.config, in_use.secrets)
    assert again.archive == in_use.archive
    if in_use.key_pair:
        assert again.key_pair is not None
        assert again.key_pair.variables() == in_use.key_pair.variables()

    (tmp_path / "config.properties").write_text("vmargs=changed\n")
    assert read(copied, archive).config == in_use.config

    (tmp_path / "config.properties").unlink()
    (tmp_path / "environment").unlink(missing_ok=True)
    without = BaselineSection(**{k: p for k, p in copied if p is not None and p.exists()})
    lost = read(without, archive)
    assert lost.config == in_use.config
    if in_use.secrets or in_use.key_pair:
        assert "<secret>" in repr(lost.secrets) + repr(lost.key_pair and lost.key_pair.password)
