"""The command of a container or unit: the options of `torchserve`, also in a shell's script."""

from __future__ import annotations

import itertools
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from serving.errors import ConfigError

_SHELLS = ("ash", "bash", "dash", "sh", "zsh")
_REFERENCE = re.compile(
    r"\$(?:(?P<plain>[A-Za-z_]\w*|[0-9@*])"
    r"|\{(?P<name>[A-Za-z_]\w*|[0-9]+|[@*])(?:(?P<colon>:?)[-=](?P<default>[^{}]*))?\})"
)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
#: The mark of a here-document.
_MARK = re.compile(r"(?<!<)<<(?!<)-?[ \t]*[\"']?([A-Za-z_]\w*)[\"']?")
_REDIRECTION = re.compile(r"[0-9]*(?:<|>>?)(.*)", re.DOTALL)
_OPERATORS = ";&|()\n"
#: In place of what only a shell knows: the output of a command, or a value set under a condition.
_UNKNOWN = "\0"
#: Parts of a script that a shell does not look into, and the start of a substitution.
_PART = re.compile(
    r"\\.|'[^']*'|(?P<quote>\")|`(?:\\.|[^`\\])*`|(?P<start>\$\()"
    r"|(?<![^\s;&|()])(?P<comment>#)[^\n]*|.",
    re.DOTALL,
)
#: An escaped character, text in quotes, or any other character.
_QUOTED = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"|.", re.DOTALL)
_TESTS = ("[", "[[", "test")
#: The change in the number of conditional blocks that a command is in, by its first word.
_BLOCKS = {
    **dict.fromkeys(("case", "for", "if", "select", "until", "while"), 1),
    **dict.fromkeys(("done", "esac", "fi"), -1),
}
_LEADING_WORDS = {
    *("!", "do", "elif", "else", "exec", "if", "nohup", "then", "until", "while", "{", "}"),
}
#: Programs and words before the command or the script that they run.
_WRAPPERS = {*_SHELLS, ".", "dumb-init", "env", "exec", "nohup", "source", "tini"}
_SHEBANG = re.compile(rf"#!.*\b(?:{'|'.join(_SHELLS)})\b")
#: A command is looked for in no more scripts, and in none with more characters.
_MAX_SCRIPTS, _MAX_FILES, _MAX_LENGTH = 20, 200, 100_000
#: Commands that only set variables; those of the second export them with `-x`.
_SETTERS, _DECLARATIONS = ("local", "readonly"), ("declare", "typeset")
#: The name of the option `-a` of `set`.
_ALL = "allexport"
#: Options of `torchserve` that take no value.
_FLAGS = {
    *("--disable-token", "--disable-token-auth", "--dt", "--enable-model-api", "--foreground"),
    *("--ncs", "--no-config-snapshots", "--start"),
}
#: Options with which it starts.
_OPTIONS = {
    *("--ts-config", "--model-store", "--workflow-store", "--models", "--log-config"),
    *("--cpp-log-config", "--plugins-path", "--ppath", *_FLAGS),
}
#: These end without a server.
_OTHER_OPTIONS = {"--stop", "--version", "-v", "--help", "-h"}


@dataclass(frozen=True)
class _Script:
    """The text of a shell's script, and its arguments; None if they are not known."""

    text: str
    arguments: Sequence[str] | None = ()


@dataclass(frozen=True)
class Command:
    """A command that runs TorchServe.

    Attributes:
        options: the words after `torchserve`.
        variables: those that the command sets for it.
        folder: the one that it changes to first, as `cd` names it; empty without one.
        before: the words of the commands that its script runs first.
        notes: what of the command is not known without running it, a sentence each.
    """

    options: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    notes: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = field(default=(), compare=False)


#: Returns the text of the file at a path, which may be relative to the working folder; None if the
#: files of the deployment do not have it.
ReadFile = Callable[[str], str | None]


def find_command(
    words: Sequence[str], environment: Mapping[str, str], read: ReadFile = lambda path: None
) -> Command | None:
    """Return the command `torchserve` in the words of a container's command; None without one.

    Args:
        environment: variables to which a shell's script may refer.
        read: returns scripts that the command starts by path.

    Raises:
        ConfigError: conditions decide with which options the script starts TorchServe.
        ValueError: the script has a quote without an end.
    """
    script = _script(words)
    if script is None and (command := _simple_command(words, {})) is not None:
        return command
    # A script that is only named need not be readable.
    is_named = script and any("torchserve" in text for text in (*words, *environment.values()))
    shell = _Shell(environment, _ScriptFiles(read))
    try:
        found = _chosen(list(shell.starts(script) if script else shell.starts_of(words)))
    except (ConfigError, ValueError):
        if is_named:
            raise
        return None
    if found is None or not (is_named or _is_sure(found)):
        return None
    return _known(found)


@dataclass
class _ScriptFiles:
    """The scripts that commands start by path.

    Attributes:
        read: returns the text of a file.
        scripts, files: the number of scripts, and of files of any kind, that may be read.
    """

    read: ReadFile
    scripts: int = _MAX_SCRIPTS
    files: int = _MAX_FILES

    def script(self, words: Sequence[str], folder: str) -> _Script | None:
        """Return the script that a command in a folder starts by path; None without one."""
        is_shell, previous = False, ""
        for index, word in enumerate(words):
            name = word.rsplit("/", 1)[-1]
            is_shell |= name in (*_SHELLS, ".", "source")
            is_option = word.startswith("-") or (is_shell and previous in ("-o", "-O"))
            previous = word
            if is_option or _ASSIGNMENT.fullmatch(word) or name in _WRAPPERS:
                continue
            is_path = is_shell or "/" in word or word.endswith(".sh")
            text = self._text(posixpath.join(folder, word)) if is_path else None
            is_script = text is not None and (is_shell or _SHEBANG.match(text))
            if text is None or not is_script or not self.scripts:
                return None
            self.scripts -= 1
            return _Script(text, words[index + 1 :]) if len(text) <= _MAX_LENGTH else None
        return None

    def _text(self, place: str) -> str | None:
        if _UNKNOWN in place or not self.files:
            return None
        self.files -= 1
        return self.read(place)


#: A start of TorchServe, and whether it depends on a condition.
_Start = tuple[Command, bool]


def _chosen(found: list[_Start]) -> Command | None:
    """Return the start of TorchServe that a script makes.

    Raises:
        ConfigError: conditions decide on its options.
    """
    certain = next((i for i, (_, is_conditional) in enumerate(found) if not is_conditional), None)
    possible = [command for command, _ in found[: None if certain is None else certain + 1]]
    if any(c.options != possible[0].options for c in possible):
        raise ConfigError(
            "the command starts torchserve with different options under conditions, which "
            "servetune does not evaluate; pass the config.properties in use"
        )
    return possible[0] if possible else None


def _is_sure(command: Command) -> bool:
    """Return whether the path of the file is known, and no option may be missing."""
    previous = ""
    for word in command.options:
        is_config = previous == "--ts-config" or word.startswith("--ts-config=")
        is_value = previous.startswith("-") and previous not in _FLAGS and "=" not in previous
        is_unknown = _UNKNOWN in word or _REFERENCE.search(word) is not None
        if is_unknown and (is_config or not (is_value or word.startswith("-"))):
            return False
        previous = word
    return True


@dataclass
class _Shell:
    """A shell, as far as the effects of its commands are known without running them.

    Attributes:
        environment: the variables that it begins with.
        folder: the one that it is in, if that is not the working folder.
        variables: those with their newest values.
        exported: the variables that it adds or changes for its commands.
        before: the commands that were run.
        arguments: of the script; None if they are not known.
        exports_all: whether each variable that is set is exported.
        is_shifted_in_branch: whether the arguments hold only until the end of a branch.
    """

    environment: Mapping[str, str]
    files: _ScriptFiles
    folder: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    exported: dict[str, str] = field(default_factory=dict)
    before: list[tuple[str, ...]] = field(default_factory=list)
    arguments: Sequence[str] | None = ()
    exports_all: bool = False
    is_shifted_in_branch: bool = False

    def starts(self, script: _Script, is_unsure: bool = False) -> Iterator[_Start]:
        """Yield each start of TorchServe in a script.

        Args:
            is_unsure: whether a condition decides if the script is run.

        Raises:
            ValueError: it has a quote without an end.
        """
        callers, self.arguments = self.arguments, script.arguments
        branch = 0
        for raw, is_conditional, branch_of_command in _simple_commands(script.text):
            if self.is_shifted_in_branch and branch_of_command != branch:
                self.arguments, self.is_shifted_in_branch = None, False
            branch = branch_of_command
            variables = {**self.environment, **self.variables, **_positional(self.arguments)}
            if command := expand_words(raw, variables):
                yield from self._run(command, is_conditional or is_unsure)
        self.arguments = callers

    def starts_of(self, command: Sequence[str], is_unsure: bool = False) -> list[_Start]:
        """Return the starts in the script that a command runs, in this shell or in another."""
        if (script := _script(command) or self.files.script(command, self.folder)) is None:
            return []
        is_sourced = command[0] in (".", "source")
        if is_sourced and not script.arguments:
            script = replace(script, arguments=self.arguments)
        inherited = {**self.exported, **self._given(command)}
        variables = {**self.environment, **inherited}
        shell = self if is_sourced else _Shell(variables, self.files, self.folder)
        try:
            found = list(shell.starts(script, is_unsure))
        except ValueError:
            return []  # Another program's script need not be readable.
        if is_sourced:
            return found
        if not found:
            self.before += shell.before
        return [(self._around(start, inherited), is_unsure) for start, is_unsure in found]

    def _around(self, start: Command, inherited: Mapping[str, str]) -> Command:
        """Return a start in another shell with what this one gives to it."""
        variables = {**inherited, **start.variables}
        return replace(start, variables=variables, before=(*self.before, *start.before))

    def _run(self, command: list[str], is_conditional: bool) -> Iterator[_Start]:
        first = command[0]
        if first in ("shift", "set"):
            self._change(command, is_conditional)
            return
        if first in ("export", *_SETTERS, *_DECLARATIONS):
            options = "".join(word for word in command[1:] if word.startswith("-"))
            is_export = first == "export" or (first in _DECLARATIONS and "x" in options)
            self._declare(command[1:], is_export, is_conditional)
            return
        given = self._given(command)
        if all(map(_ASSIGNMENT.fullmatch, command)):
            self._assign(given, is_conditional)
            return
        if first == "cd":
            target = _UNKNOWN if is_conditional else (command[1:] or ["~"])[-1]
            self.folder = posixpath.join(self.folder, target)
        if (found := _simple_command(command, {**self.exported, **given})) is not None:
            if not _OTHER_OPTIONS & {*found.options}:
                yield replace(found, folder=self.folder, before=tuple(self.before)), is_conditional
                return
        elif inner := self.starts_of(command, is_conditional):
            yield from inner
            return
        if first not in _TESTS:
            self.before.append(tuple(map(_shown, command)))

    def _change(self, command: Sequence[str], is_conditional: bool) -> None:
        """Run `shift` or `set`."""
        if command[0] == "shift":
            count = int(command[1]) if command[1:] and command[1].isdecimal() else 1
            if self.arguments is not None:
                self.arguments = self.arguments[count:]
            self.is_shifted_in_branch |= is_conditional
        for option, value in itertools.pairwise((*command, "")):
            sign, letters = option[:1], option[1:]
            is_all = sign in ("-", "+") and ("a" in letters or (letters == "o" and value == _ALL))
            if command[0] == "set" and is_all:
                self.exports_all = sign == "-"

    def _given(self, command: Sequence[str]) -> dict[str, str]:
        """Return the variables that a command begins with."""
        known = {**self.environment, **self.variables}
        return {
            name: f"{known.get(name, '')}{text}" if is_added else text
            for name, text, is_added in _assignments(command)
        }

    def _assign(self, given: Mapping[str, str], is_conditional: bool) -> None:
        values = dict.fromkeys(given, _UNKNOWN) if is_conditional else given
        if any(len(text) > _MAX_LENGTH for text in values.values()):
            raise ValueError("a variable is too long")
        self.variables |= values
        # An exported variable that gets another value stays exported.
        is_exported = {*self.exported, *self.environment}
        is_exported |= values.keys() if self.exports_all else set()
        self.exported |= {name: text for name, text in values.items() if name in is_exported}

    def _declare(self, words: Sequence[str], is_export: bool, is_conditional: bool) -> None:
        self._assign(self._given([word for word in words if "=" in word]), is_conditional)
        for name in (word.partition("=")[0] for word in words if is_export):
            if name in self.variables:
                self.exported[name] = self.variables[name]


def _known(command: Command) -> Command:
    """Return a command without the variables and options whose values are not known."""
    variables = {name: text for name, text in command.variables.items() if _UNKNOWN not in text}
    # An option begins each group, and its values follow.
    groups: list[list[str]] = []
    for word in command.options:
        if word.startswith("-") or not groups or groups[-1][0] in _FLAGS:
            groups.append([])
        groups[-1].append(word)
    unknown = [
        group
        for group in groups
        # The reader reports a file that it does not find.
        if _UNKNOWN in "".join(group) and not group[0].startswith("--ts-config")
    ]
    left_out = [
        *sorted(f"variable {name}" for name in command.variables.keys() - variables.keys()),
        *(f"option {_shown(group[0])}" for group in unknown),
    ]
    return Command(
        tuple(_shown(word) for group in groups if group not in unknown for word in group),
        variables | _config_variable(command.variables),
        _shown(command.folder),
        tuple(
            f"{what} of the command is not read: its value is the output of another command or "
            "depends on a condition, and servetune runs nothing"
            for what in left_out
        ),
        command.before,
    )


def _config_variable(variables: Mapping[str, str]) -> dict[str, str]:
    """Return TS_CONFIG_FILE as it is written, since it names the file to read."""
    name = "TS_CONFIG_FILE"
    return {name: _shown(variables[name])} if name in variables else {}


def _shown(text: str) -> str:
    return text.replace(_UNKNOWN, "$(…)")


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
        text, default = variables.get(found["plain"] or found["name"]), found["default"]
        if default is not None and (text is None or (found["colon"] and not text)):
            return default
        return found[0] if text is None else text

    return _REFERENCE.sub(value, text)


def _positional(arguments: Sequence[str] | None) -> dict[str, str]:
    """Return a script's variables for its arguments; those that are not given are empty."""
    names = "123456789"
    if arguments is None:
        return dict.fromkeys((*names, "@", "*"), _UNKNOWN)
    every = " ".join(arguments)
    values = itertools.zip_longest(names, arguments[: len(names)], fillvalue="")
    return {**dict(values), "@": every, "*": every}


def _script(words: Sequence[str]) -> _Script | None:
    """Return the script in `sh -c SCRIPT NAME ARGUMENT…`; None without one."""
    for index, word in enumerate(words):
        if word.rsplit("/", 1)[-1] in _SHELLS:
            options = [*words[index + 1 :]]
            while options and options[0].startswith("-"):
                is_script = not options[0].startswith("--") and "c" in options[0]
                options = options[1:]
                if is_script:
                    while options and options[0].startswith(("-", "+")):
                        options = options[2 if options[0][1:] in ("o", "O") else 1 :]
                    return _Script(options[0], options[2:]) if options else None
    return None


def _simple_commands(script: str) -> Iterator[tuple[list[str], bool, int]]:
    """Yield the words of each command in a script, whether it depends on a condition, and the
    number of its branch.
    """
    script = _without_documents(script.replace("\r\n", "\n"))
    text = _simplified(script).replace("\\\n", " ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=_OPERATORS)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    blocks, is_after_condition = 0, False
    braces, is_function, branch = 0, False, 0
    words: list[str] = []
    for word in (*lexer, "\n"):
        if not set(word) <= set(_OPERATORS):
            words.append(word)
            continue
        if word.startswith("()"):
            words, is_function = [], True
            continue
        first = next(iter(words), "")
        if first == "function" or (first == "{" and (is_function or braces)):
            braces, is_function = braces + 1, False
        braces -= first == "}" and braces > 0
        blocks = max(0, blocks + _BLOCKS.get(first, 0))
        branch += first in (*_BLOCKS, "elif", "else")
        while words and words[0] in _LEADING_WORDS:
            words = words[1:]
        # It is not known which functions are called.
        yield words, blocks > 0 or braces > 0 or is_after_condition, branch
        if "||" in word or ("&&" in word and words[:1] and words[0] in _TESTS):
            is_after_condition = True
        elif "&&" not in word:
            is_after_condition = False
        words = []


def _without_documents(script: str) -> str:
    """Return a script without the lines of its here-documents, which are no commands."""
    lines = iter(script.split("\n"))
    kept = []
    for line in lines:
        kept.append(_MARK.sub(" ", line))
        for mark in _MARK.findall(line):
            for text in lines:
                if text.strip() == mark:
                    break
    return "\n".join(kept)


def _simplified(script: str) -> str:
    """Return a script with a mark in place of each `$(…)`, `$((…))` and text in backticks.

    It has no comments: an apostrophe in one is no quotation mark.
    """
    parts: list[str] = []
    is_quoted, position = False, 0
    while match := _PART.match(script, position):
        part, position = match[0], match.end()
        if match["quote"]:
            is_quoted = not is_quoted
        elif is_quoted and part.startswith(("'", "#")):
            part, position = part[0], match.start() + 1
        elif match["comment"]:
            part = ""
        elif match["start"]:
            part, position = _UNKNOWN, _end_of_parenthesis(script, position)
        elif len(part) > 1 and part.startswith("`"):
            part = _UNKNOWN
        parts.append(part)
    return "".join(parts)


def _end_of_parenthesis(script: str, position: int) -> int:
    depth = 1
    while depth and (match := _QUOTED.match(script, position)):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        position = match.end()
    return position


def _assignments(words: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield the name and the text of each leading NAME=TEXT, also after `env`.

    The third value is whether the text is added to the value: NAME+=TEXT.
    """
    for word in words:
        if match := _ASSIGNMENT.fullmatch(word):
            yield match[1], match[3], bool(match[2])
        elif word.rsplit("/", 1)[-1] not in ("env", "exec", "nohup"):
            return


def _simple_command(words: Sequence[str], variables: Mapping[str, str]) -> Command | None:
    """Return the command `torchserve` in the words of a command; None without one."""
    for index, word in enumerate(words):
        if word.rsplit("/", 1)[-1] == "torchserve":
            before = words[:index]
            options = tuple(_without_redirections(words[index + 1 :]))
            # Otherwise it is the argument of another command, as in `pip install torchserve`.
            is_first = all(
                w.startswith("-") or w.rsplit("/", 1)[-1] in _WRAPPERS or _ASSIGNMENT.fullmatch(w)
                for w in before
            )
            if is_first or any(option.partition("=")[0] in _OPTIONS for option in options):
                given = {name: text for name, text, _ in _assignments(before)}
                return Command(options, {**variables, **given})
    return None


def _without_redirections(words: Sequence[str]) -> Iterator[str]:
    is_target = False
    for word in words:
        if is_target:
            is_target = False
        elif match := _REDIRECTION.fullmatch(word):
            is_target = not match[1]
        else:
            yield word
