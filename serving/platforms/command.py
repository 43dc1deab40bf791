"""The command of a container or unit: the options of `torchserve`, also in a shell's script."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_SHELLS = ("ash", "bash", "dash", "sh", "zsh")
_REFERENCE = re.compile(
    r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::?-(?P<default>[^{}]*))?\})"
)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_REDIRECTION = re.compile(r"[0-9]*(?:<|>>?)(.*)", re.DOTALL)
_OPERATORS = ";&|()\n"
#: These end without a server.
_OTHER_OPTIONS = {"--stop", "--version", "-v", "--help", "-h"}


@dataclass(frozen=True)
class Command:
    """A command that runs TorchServe.

    Attributes:
        options: the words after `torchserve`.
        variables: those that the command sets for it.
    """

    options: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


def find_command(words: Sequence[str], environment: Mapping[str, str]) -> Command | None:
    """Return the command `torchserve` in the words of a container's command; None without one.

    Args:
        environment: variables to which a shell's script may refer.

    Raises:
        ValueError: the script has a quote without an end.
    """
    script = _script(words)
    if script is None:
        return _simple_command(words, {})
    exported, variables = dict[str, str](), dict(environment)
    named: Command | None = None
    for raw in _simple_commands(script):
        command = expand_words(raw, variables)
        while command and (command[0] in ("!", "do", "else", "exec", "if", "nohup", "then", "{")):
            command = command[1:]
        if command[:1] == ["export"]:
            exported |= dict(_assignments(command[1:]))
        variables |= dict(_assignments(command[command[:1] == ["export"] :]))
        # An exported variable that gets another value stays exported.
        exported |= {
            name: variables[name]
            for name in exported.keys() | environment.keys()
            if variables[name] != environment.get(name)
        }
        found = _simple_command(command, exported)
        if found is not None and not _OTHER_OPTIONS & {*found.options}:
            if any(option.startswith("-") for option in found.options):
                return found
            # It may be the name of a folder, as in `mkdir /opt/torchserve`.
            named = named or found
    return named


def expand_words(words: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Fill in variables; the value of a word that is a variable may be several words.

    >>> expand_words(["a", "$B", "c$B"], {"B": "1 2"})
    ['a', '1', '2', 'c1 2']
    """
    expanded: list[str] = []
    for word in words:
        text = expand(word, variables)
        is_variable = text != word and _REFERENCE.fullmatch(word) is not None
        expanded += text.split() if is_variable else [text]
    return expanded


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Fill in `$NAME`, `${NAME}` and `${NAME:-default}`; a name that is not known is left.

    >>> expand("$A/${B}/${C:-d}", {"A": "1"})
    '1/${B}/d'
    """

    def value(found: re.Match[str]) -> str:
        text = variables.get(found["plain"] or found["name"])
        if text is None:
            return found[0] if found["default"] is None else found["default"]
        return text

    return _REFERENCE.sub(value, text)


def _script(words: Sequence[str]) -> str | None:
    """Return the script in `sh -c SCRIPT`; None without one."""
    for index, word in enumerate(words):
        if word.rsplit("/", 1)[-1] in _SHELLS:
            options = [*words[index + 1 :]]
            while options and options[0].startswith("-"):
                is_script = not options[0].startswith("--") and "c" in options[0]
                options = options[1:]
                if is_script:
                    while options and options[0].startswith(("-", "+")):
                        options = options[2 if options[0][1:] in ("o", "O") else 1 :]
                    return next(iter(options), None)
    return None


def _simple_commands(script: str) -> Iterator[list[str]]:
    text = re.sub(r"^[ \t]*#.*$", "", script.replace("\r\n", "\n"), flags=re.MULTILINE)
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=_OPERATORS)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in lexer:
        if set(word) <= set(_OPERATORS):
            yield words
            words = []
        else:
            words.append(word)
    yield words


def _assignments(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the leading words NAME=value."""
    for word in words:
        if (match := _ASSIGNMENT.fullmatch(word)) is None:
            return
        yield match[1], match[2]


def _simple_command(words: Sequence[str], variables: Mapping[str, str]) -> Command | None:
    for index, word in enumerate(words):
        if word.rsplit("/", 1)[-1] == "torchserve":
            before = words[:index]
            given = before[1:] if before and before[0].rsplit("/", 1)[-1] == "env" else before
            options = tuple(_without_redirections(words[index + 1 :]))
            return Command(options, {**variables, **dict(_assignments(given))})
    return None


def _without_redirections(words: Sequence[str]) -> Iterator[str]:
    is_target = False
    for word in words:
        if is_target:
            is_target = False
        elif match := _REDIRECTION.fullmatch(word):
            is_target = not match[1]
        elif word.startswith("#"):
            return
        else:
            yield word
