"""The JVM arguments in the property `vmargs`."""

from __future__ import annotations

import re

from serving.errors import ConfigError

#: Options whose value is the next word, and which may be repeated with another module.
_TWO_WORDS = (
    *("--add-opens", "--add-exports", "--add-modules", "--add-reads", "--limit-modules"),
    *("--enable-native-access", "--module-path", "--upgrade-module-path", "--patch-module", "-p"),
    *("--class-path", "-classpath", "-cp"),
)
_JVM_ARGUMENT = re.compile(
    r"(-X(?:m[xsn]|ss))(.+)|(--add-[a-z]+=[^=]+|[-@][^=]+)(?:=(.*))?", re.DOTALL
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
            argument = f"{argument}={next(remaining, '')}"
        match = _JVM_ARGUMENT.fullmatch(argument)
        if match is None:
            variable = "; the command torchserve fills in no variables" if "$$" in argument else ""
            raise ConfigError(f"vmargs: {argument!r} is not a JVM argument{variable}")
        flag, value = (match[1], match[2]) if match[1] else (match[3], match[4] or "")
        arguments.pop(flag, None)  # The last one counts, and its place.
        arguments[flag] = value
    return arguments
