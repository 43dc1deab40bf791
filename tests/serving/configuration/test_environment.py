from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serving.configuration.config import format_environment
from serving.configuration.environment import changes_speed, is_secret, parse_environment, redacted
from serving.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1\n# comment\n\nexport B='x y'\n", {"A": "1", "B": "x y"}),
        ("\ufeffA=1\r\nB=\r\n", {"A": "1", "B": ""}),
        ('{"A": "1", "B": 2, "C": true}', {"A": "1", "B": "2", "C": "true"}),
        ('{"Image": "x", "Environment": {"A": "1"}}', {"A": "1"}),
        ("A=a=b\n", {"A": "a=b"}),
        ('[{"name": "A", "value": "1"}, {"name": "B", "value": 2}]', {"A": "1", "B": "2"}),
        ('[{"name": "Environment", "value": "live"}]', {"Environment": "live"}),
        ('[{"name": "A"}, {"name": "B", "value": null}]', {"A": "", "B": ""}),
        (
            '[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},'
            '{"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}, "value": null},'
            '{"name": "C", "value": "1", "valueFrom": null}]',
            {"A": "<secret>", "B": "<secret>", "C": "1"},
        ),
        ("my.app-name=1\nexport _B=2\n", {"my.app-name": "1", "_B": "2"}),
    ],
)
def test_parse_environment_reads_lines_and_json(text: str, variables: dict[str, str]) -> None:
    assert parse_environment(text) == variables


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "it's",
        '"',
        'it\'s "q" $HOME \\ `id`',
        "$HOME `id` $(id)",
        "\\'",
        "'",
        "#",
        "ünï cöde",
    ],
)
def test_format_environment_is_read_back_and_by_a_shell(tmp_path: Path, text: str) -> None:
    file = tmp_path / "environment"
    file.write_text(format_environment({"A": text}))
    assert parse_environment(file.read_text()) == {"A": text}
    script = f'. {file}; printf "%s" "$A"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout == text
    # Between single quotes, systemd and Docker Compose know no escapes.
    assert "'\\''" not in file.read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A=1\nB\n", "line 2 of the environment file is not NAME=value$"),
        ("PEM=x\nMIIEvQIBADANBgk+/a==\n", "line 2 of the environment file is not NAME=value$"),
        ("A = 1\n", "line 1 of the environment file is not NAME=value$"),
        ('{"A B": "1"}', "a variable without a valid name"),
        ('[{"value": "1"}]', "a variable without a valid name"),
        ('[{"name": ["A"], "value": "1"}]', "a variable without a valid name"),
        ('[{"name": "A", "value": [1]}]', "variable A must be a text or a number .got list"),
        ("[1]", "must be a list of objects with name and value"),
        ('{"A": }', "the environment file is not valid JSON"),
        ('{"A": null}', "variable A must be a text or a number .got NoneType"),
        ('{"PrimaryContainer": 5}', "must be a JSON object of variables"),
        ('{"Containers": 5}', "must be a JSON object of variables"),
        ('{"A": ' + 100_000 * "[", "the environment file is not valid JSON"),
        ('{"Environment": [1]}', "must be a JSON object of variables"),
    ],
)
def test_parse_environment_refuses_other_text(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_environment(text)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("HF_TOKEN", "x", True),
        ("aws_secret_access_key", "x", True),
        ("MYSQLPASSWORD", "x", True),
        ("keystore_pass", "x", True),
        ("TS_KEYSTORE_PASS", "x", True),
        ("HUB", "hf_abcdefghijklmnop", True),
        ("URL", "https://user:pw@host/", True),
        ("CONNECTION", "Server=h;Password=x;Database=d", True),
        ("STORAGE", "DefaultEndpointsProtocol=https;AccountKey=abc==", True),
        ("MODEL_URL", "https://host/model?X-Amz-Signature=abc", True),
        ("JDK_JAVA_OPTIONS", "-Xmx1g -Djavax.net.ssl.keyStorePassword=x", True),
        ("CERTIFICATES", "-----BEGIN PRIVATE KEY-----", True),
        ("ACCOUNT", '{\n"id": 1\n}', True),
        ("ALERTS", "https://hooks.slack.com/services/T/B/x", True),
        ("JDK_JAVA_OPTIONS", "-Xmx1g -Dapi.key=2", True),
        ("JDK_JAVA_OPTIONS", "-Xmx1g -Dmonkey=2", False),
        ("vmargs", "-Djavax.net.ssl.keyStorePassword=x", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("TS_TOKEN_EXPIRATION_TIME_MIN", "5", False),
        ("TS_PRIVATE_KEY_FILE", "/etc/key.pem", False),
        ("disable_token_authorization", "true", False),
        ("private_key_file", "/etc/key.pem", False),
        ("MONKEY", "x", False),
        ("AUTHORIZATION", "x", True),
        ("MY_PW", "x", True),
        ("SESSION_COOKIE", "x", True),
        ("HEADER", "Authorization: Bearer abcdefgh", True),
        ("X", "a:hf_abcdefghijklmnop", True),
        ("X", "/models/sk-learn-model", False),
        ("JDK_JAVA_OPTIONS", "-Dauthorization=x", True),
        ("COOKIECUTTER", "x", False),
        ("PWM", "x", False),
        ("URL", "http://host:8080/a@b", False),
    ],
)
def test_is_secret_looks_at_words_and_values(name: str, value: str, secret: bool) -> None:
    assert is_secret(name, value) is secret
    assert (redacted({name: value})[name] != value) is secret


def test_changes_speed_names_threads_and_allocation() -> None:
    assert changes_speed("OMP_WAIT_POLICY") and changes_speed("LD_PRELOAD")
    assert not changes_speed("MODEL_PATH") and not changes_speed("TRANSFORMERS_CACHE")
