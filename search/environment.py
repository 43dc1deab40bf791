"""Context managers that change the process's environment variables and log levels."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence

#: Ray starts its workers at niceness 15, which a trial's TorchServe would inherit: beside any
#: other process it would be slower than in production.
RAY_NICENESS = {"RAY_worker_niceness": "0"}


@contextlib.contextmanager
def environment(variables: Mapping[str, str], override: bool = True) -> Iterator[None]:
    """Set environment variables in the context.

    Args:
        override: whether to change variables that are set already.
    """
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        if override or before[name] is None:
            os.environ[name] = value
    try:
        yield
    finally:
        for name, previous in before.items():
            if previous is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = previous


@contextlib.contextmanager
def log_level(names: Sequence[str], level: int) -> Iterator[None]:
    """Set the level of loggers in the context."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, previous in zip(loggers, before, strict=True):
            logger.setLevel(previous)
