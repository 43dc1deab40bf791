"""Where the study of a run is stored: opening, checking and copying a storage."""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from search.environment import log_level
from search.errors import SpecError, SpecProblem, first_line

#: Errors raised if the storage cannot be read or written.
STORAGE_ERRORS = (StorageInternalError,)
#: How long to wait for SQLite's lock, seconds.
_LOCK_TIMEOUT_S = 60.0
#: How long to wait for the server of a storage, seconds.
_CONNECT_S = 10


def check_storage(url: str) -> None:
    """Check that a storage can be used, before anything else starts.

    Raises:
        SpecError: its URL, its driver or its server does not permit it, in one sentence.
    """
    try:
        storage = open_storage(url)
        storage.remove_session()
        storage.engine.dispose()
    except Exception as error:  # Each driver has its own errors.
        raise SpecError([SpecProblem("output.storage", storage_problem(url, error))]) from None


def storage_problem(url: str, error: Exception) -> str:
    """Return why a storage cannot be used, and what to do, without the secrets in its URL.

    Shows its driver, host and database: a user, a password or the query may be secret.
    """
    try:
        parsed = make_url(url)
        place = URL.create(
            parsed.drivername, host=parsed.host, port=parsed.port, database=parsed.database
        )
        shown = place.render_as_string()
    except (ArgumentError, ValueError):
        return (
            "is not an SQLAlchemy URL; use postgresql://USER@HOST/DATABASE, or remove it for a "
            "file in the run folder"
        )
    remedy = "start its server and check the URL and the permissions"
    cause: BaseException = error
    while not isinstance(cause, ImportError | NoSuchModuleError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, NoSuchModuleError):
        remedy = "use sqlite, postgresql or mysql"
    elif isinstance(cause, ImportError):
        remedy = "install the driver, such as pip install 'psycopg[binary]' for postgresql+psycopg"
    reason = " ".join(first_line(str(cause).strip()).split()) or type(cause).__name__
    return f"{shown} cannot be used: {_redacted(reason, parsed)}; {remedy}"


def _redacted(text: str, url: URL) -> str:
    """Return a text without the password of a URL and the values of its query."""
    secrets = {str(url.password)} if url.password else set()
    for value in (v for values in url.normalized_query.values() for v in values):
        # A value may be a list of settings itself, as that of odbc_connect.
        parts = (part.partition("=")[2].strip(" {}") for part in value.split(";"))
        secrets |= {value, *parts}
    secrets |= {quoted(secret) for secret in secrets for quoted in (quote, quote_plus)}
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        # A short value, such as that of a timeout, may be a part of other words.
        whole = rf"(?<!\w){re.escape(secret)}(?!\w)" if secret.isalnum() else re.escape(secret)
        text = re.sub(whole, "***", text)
    return text


def stored_name(path: Path) -> str | None:
    """Return the name of the study with the most trials in an SQLite file; None without any."""
    studies: list[optuna.study.StudySummary] = []
    with contextlib.suppress(Exception), _reading(path) as source:
        studies = optuna.get_all_study_summaries(source)
    largest = max(studies, key=lambda study: study.n_trials, default=None)
    return largest.study_name if largest else None


def copy_to_memory(storage: str | Path, name: str) -> BaseStorage:
    """Return a copy of a study in memory; an empty storage if the study cannot be read.

    Args:
        storage: an SQLAlchemy URL, or the path of an SQLite file. Nothing is written to it.
    """
    copy = InMemoryStorage()
    # Damaged files and missing servers raise errors of many kinds.
    with contextlib.suppress(Exception), _reading(storage) as source:
        optuna.copy_study(from_study_name=name, from_storage=source, to_storage=copy)
    return copy


@contextlib.contextmanager
def _reading(storage: str | Path) -> Iterator[RDBStorage]:
    """Open a storage that is only read, and close it."""
    with log_level(["optuna"], logging.WARNING):
        source = open_storage(storage, read_only=True)
        try:
            yield source
        finally:
            source.remove_session()
            source.engine.dispose()


def open_storage(storage: str | Path, read_only: bool = False) -> RDBStorage:
    """Open a storage; create its tables unless it is read only."""
    if read_only and isinstance(storage, str) and storage.startswith("sqlite"):
        storage = Path(storage.partition(":///")[2].partition("?")[0])
    if isinstance(storage, str):
        is_sqlite = storage.startswith("sqlite")
        arguments = {"timeout": _LOCK_TIMEOUT_S} if is_sqlite else {"connect_timeout": _CONNECT_S}
        options: dict[str, Any] = {"connect_args": arguments}
        if not is_sqlite:
            # A server may have been restarted since the last query.
            options["pool_pre_ping"] = True
        return RDBStorage(storage, engine_kwargs=options, skip_table_creation=read_only)
    # The path may contain characters that have a meaning in a URL.
    uri = f"{storage.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, timeout=_LOCK_TIMEOUT_S, check_same_thread=False, uri=True)

    return RDBStorage(
        "sqlite:///study", engine_kwargs={"creator": connect}, skip_table_creation=read_only
    )
