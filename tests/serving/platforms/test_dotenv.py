"""Reading the environment files of Docker Compose."""

from __future__ import annotations

import pytest

from serving.configuration.config import format_environment
from serving.errors import ConfigError
from serving.platforms.dotenv import parse_dotenv


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=4 # one per core", "4"),
        ("A=4\t# one", "4"),
        ("A= # none", ""),
        ("A=a#b", "a#b"),
        ("A='4 # x' # one", "4 # x"),
        ('A="4 # x"', "4 # x"),
        ("  export A = 4 ", "4"),
        ("A: 4", "4"),
        ("A=", ""),
        ("A", None),
        ("export A", None),
        ("B=4\nA=${B}", "4"),
        ("B=4\nA=x$B", "x4"),
        ("B=4\nA='${B}'", "${B}"),
        ('B=4\nA="${B} \\$B \\n"', "4 $B \n"),
        ("C=4\nA=${C}", "outside"),
        ("A=${D:-5}", "5"),
        ("A=${D}", "${D}"),
        ("A=a$$B", "a$B"),
        ("A='one\ntwo'\nB=1", "one\ntwo"),
        ("# B=1\r\n\r\nA=4\r\n", "4"),
        ("\ufeffA=4", "4"),
    ],
)
def test_parse_dotenv_reads_each_form(text: str, value: str | None) -> None:
    assert parse_dotenv(text, {"C": "outside"})["A"] == value


def test_parse_dotenv_leaves_raw_values() -> None:
    text = "A='4' # x\nB=$A\nC"
    assert parse_dotenv(text, {}, is_raw=True) == {"A": "'4' # x", "B": "$A", "C": None}


@pytest.mark.parametrize("line", ["a b", "=4", "4=A", "- A", "A B=4"])
def test_parse_dotenv_refuses_other_lines(line: str) -> None:
    with pytest.raises(ConfigError, match="line 2 of the environment file is not NAME=value"):
        parse_dotenv(f"A=1\n{line}\n", {})


@pytest.mark.parametrize("text", ["", "a b", "$A", 'it\'s $A `b` \\ "c"', "a#b", "a # b", "a\\nb"])
def test_parse_dotenv_reads_what_exports_write(text: str) -> None:
    assert parse_dotenv(format_environment({"A": text}), {}) == {"A": text}
