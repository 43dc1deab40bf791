"""Words that the project does not use, with what to write instead."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: A pattern, and what to write instead.
REPLACED = {
    r"told|tells": "reports, records, shows, receives",
    r"says so|says nothing": "reports, notes; is inconclusive",
    r"mends?|mended": "fix, fixed, remedy",
    r"doubts?|doubtful": "warning",
    r"whoever": "the caller, the user, any …",
    r"so many|that many": "N, the number of …",
    r"by turns": "interleaved, alternating",
    r"came of it|came to": "result, outcome",
    r"parts? from one": "excludes 1, differs",
    r"of one's own|of its own|of their own": "own, custom, separate",
    r"gone for": "targeted, missing, removed",
    r"surer": "more conservative, with 95 % confidence",
    r"foreign cpu": "CPU used by other processes",
    r"common rate": "comparison rate",
    r"narrowing": "bracketing, rate search",
    r"time-outs?": "timeout",
    r"guide's points": "recommended starting points",
    r"on its way": "running, in progress",
    r"looks on": "observes",
    r"lies in|stands in": "is in",
    r"unlike hosts": "heterogeneous hosts",
    r"load process(es)?": "load generator process",
}
#: Identifiers that were replaced.
REPLACED_NAMES = (
    "says_nothing|told_value|parts_from_one|not_told_apart|only_one|is_told|unlike_hosts|"
    "foreign_cpu|common_rps|run_twice|ignored_before|ignored_after"
)
#: Uses that are right: the file, and the line's text.
ALLOWED = {
    ("tests/test_language.py", ""),
    # Old names, beside the new ones.
    ("CHANGELOG.md", "`"),
    ("search/formats.py", "#: "),
}
TEXT = {".py", ".md", ".yaml", ".yml", ".js", ".css", ".html", ".cfg", ".toml", ".sh", ".txt", ""}
NOT_OURS = ("LICENSE",)
#: A package file of npm.
VENDORED = "search/report/plotly/"
PATTERN = re.compile(
    rf"(?<![\w-])({'|'.join(REPLACED)})(?![\w-])|(?<!\w)({REPLACED_NAMES})(?!\w)", re.IGNORECASE
)


def tracked_files() -> list[Path]:
    """The text files of the project; those of the demo's corpus and the licence are not ours."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.split("\0") if name and name not in NOT_OURS]
    names = [name for name in names if not name.startswith(VENDORED)]
    return [ROOT / name for name in names if Path(name).suffix in TEXT and (ROOT / name).is_file()]


def found_in(text: str) -> list[tuple[int, str, str]]:
    """Each use of a replaced word: its line's number, the word, the line."""
    return [
        (number, match[0], line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        for match in PATTERN.finditer(line)
    ]


def test_language_has_no_replaced_words() -> None:
    files = tracked_files()
    if not files:
        pytest.skip("not a git checkout")
    uses = []
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        for number, word, line in found_in(path.read_text(errors="replace")):
            if not any(name == file and text in line for file, text in ALLOWED):
                uses.append(f"{name}:{number}: {word!r} in: {line[:90]}")
    assert not uses, "\n".join(uses)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("the study is told of it", "told"),
        ("Doubts: none", "Doubts"),
        ("says_nothing(result)", "says_nothing"),
        ("a time-out of 10 s", "time-out"),
        ("a timeout of 10 s; untold", None),
    ],
)
def test_language_check_finds_words(line: str, word: str | None) -> None:
    assert [found for _, found, _ in found_in(line)] == ([word] if word else [])
