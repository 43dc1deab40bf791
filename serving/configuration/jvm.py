"""The JVM arguments in the property `vmargs` and in variables."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from serving.configuration.environment import REDACTED, is_secret
from serving.errors import ConfigError

#: The variable with more arguments for the command java, before those of its command line.
JVM_VARIABLE = "JDK_JAVA_OPTIONS"
#: Variables with arguments that the JVM prints when it starts.
_PRINTED_VARIABLES = ("JAVA_TOOL_OPTIONS", JVM_VARIABLE, "_JAVA_OPTIONS")
#: A word of such a variable; quotation marks hold blanks together.
_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+""")

#: Options whose value may be the next word.
_TWO_WORDS = (
    *("--add-opens", "--add-exports", "--add-modules", "--add-reads", "--limit-modules"),
    *("--enable-native-access", "--module-path", "--upgrade-module-path", "--patch-module", "-p"),
    *("--class-path", "-classpath", "-cp"),
)
#: Short names, which take no value behind an equals sign, and the long one, which does.
_LONG_NAMES = {"-classpath": "--class-path", "-cp": "--class-path", "-p": "--module-path"}
#: The module is part of an option that may be repeated with another one.
_JVM_ARGUMENT = re.compile(
    r"(-X(?:m[xsn]|ss))(.+)"
    r"|(--(?:add-[a-z]+|enable-native-access|patch-module)=[^=]+|[-@][^=]+)(?:=(.*))?",
    re.DOTALL,
)


def parse_jvm(vmargs: str) -> dict[str, str]:
    """Return the JVM arguments in the property `vmargs`, by flag.

    The torchserve command splits at white space; quotation marks are part of an argument.
    Source: ts/model_server.py of 0.12.0.

    Raises:
        ConfigError: a word is no argument; the JVM would not start.
    """
    arguments: dict[str, str] = {}
    words = vmargs.split()
    if words and words[-1].endswith("\\"):
        raise ConfigError(
            "vmargs ends in a backslash: the command torchserve does not read continued lines, "
            "and Java does not start with the backslash; write vmargs on one line"
        )
    remaining = iter(words)
    for argument in remaining:
        if argument in _TWO_WORDS:
            name = _LONG_NAMES.get(argument, argument)
            argument = f"{name}={next(remaining, '')}"
        match = _JVM_ARGUMENT.fullmatch(argument)
        if match is None:
            variable = "; the command torchserve fills in no variables" if "$$" in argument else ""
            raise ConfigError(f"vmargs: {argument!r} is not a JVM argument{variable}")
        flag, value = (match[1], match[2]) if match[1] else (match[3], match[4] or "")
        arguments.pop(flag, None)  # The last one counts, and its place.
        arguments[flag] = value
    return arguments


def take_secrets(arguments: dict[str, str]) -> dict[str, str]:
    """Remove the arguments that are secrets, and return them."""
    found = [flag for flag, text in arguments.items() if _is_secret(flag, text)]
    return {flag: arguments.pop(flag) for flag in found}


def format_variable(arguments: Mapping[str, str]) -> str:
    """Return arguments as the value of `JDK_JAVA_OPTIONS`."""
    words = [f"{flag}={text}" for flag, text in arguments.items()]
    return " ".join(map(_quoted, words))


def redact_arguments(vmargs: str) -> str:
    """Return the property `vmargs` with the values of secrets replaced."""

    def redacted(match: re.Match[str]) -> str:
        flag, equals, text = match[0].partition("=")
        return f"{flag}={REDACTED}" if equals and _is_secret(flag, text) else match[0]

    return re.sub(r"\S+", redacted, vmargs)


def with_secrets(
    variables: Mapping[str, str], secrets: Mapping[str, str], folder: Path
) -> dict[str, str]:
    """Return variables and secrets for a server; see `hide_secrets`.

    Secret JVM arguments are added to those in the variables.
    """
    hidden = hide_secrets(secrets, folder)
    if JVM_VARIABLE in hidden:
        hidden[JVM_VARIABLE] = f"{variables.get(JVM_VARIABLE, '')} {hidden[JVM_VARIABLE]}".strip()
    return {**variables, **hidden}


def without_arguments(variable: str, flags: Collection[str]) -> str:
    """Return the value of `JDK_JAVA_OPTIONS` without the arguments of these flags."""
    words = _WORD.findall(variable)
    return " ".join(word for word in words if _unquoted(word).partition("=")[0] not in flags)


def hide_secrets(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return variables whose secret JVM arguments are in files, which the JVM does not print.

    Args:
        variables: those with a secret.
        folder: for the files, which only their owner can read.
    """
    hidden = dict(variables)
    for name in _PRINTED_VARIABLES:
        if name not in variables:
            continue
        words = _WORD.findall(variables[name])
        secret = [word for word in words if _is_secret(*_unquoted(word).partition("=")[::2])]
        secret = secret or words  # The user listed the variable as a secret.
        path = folder / f"{name}.txt"
        path.touch(mode=0o600)
        others = [word for word in words if word not in secret]
        if name == JVM_VARIABLE:
            # The command line beside it may name the only VMOptionsFile that Java accepts.
            path.write_text(" ".join(map(_escaped, secret)))
            hidden[name] = " ".join([*others, f"@{path}"])
        else:
            path.write_text(" ".join(secret))
            hidden[name] = " ".join([*others, f"-XX:VMOptionsFile={path}"])
    return hidden


def _is_secret(flag: str, text: str) -> bool:
    return is_secret(flag, text) or is_secret(flag, f"{flag}={text}")


def _quoted(word: str) -> str:
    """Return a word in the quotation marks of a variable, which has no escapes."""
    if '"' not in word:
        return f'"{word}"'
    return "".join(
        f"'{part}'" if '"' in part else f'"{part}"' for part in re.findall(r"""[^"]+|[^']+""", word)
    )


def _unquoted(word: str) -> str:
    return re.sub(r"""(["'])(.*?)\1""", r"\2", word, flags=re.DOTALL)


def _escaped(word: str) -> str:
    """Return a word of a variable in the form of Java's argument files."""
    text = re.sub(r'(["\\])', r"\\\1", _unquoted(word))
    return f'"{text}"'
