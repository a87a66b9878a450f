"""Where a database is: the URL or Engine that the user gave, checked before it is used.

On failure: `ConfigError`, which says what to write instead and shows no password.
"""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from beatstore.errors import ConfigError

__all__ = ["checked", "place", "shown"]

_KNOWN = {"sqlite", "postgresql", "mysql", "mariadb"}

#: What to write, by the kind of database.
_EXAMPLES = {
    "sqlite": "sqlite:////var/lib/app/beatstore.db",
    "mysql": "mysql+pymysql://user@host/database",
    "mariadb": "mariadb+pymysql://user@host/database",
}
_EXAMPLE = "postgresql+psycopg://user@host/database"

#: Parameters of a URL by which drivers take a password.
_SECRET = frozenset({"password", "passwd", "sslpassword", "ssl_key_password"})


def checked(target: Any) -> URL:
    """Return the URL of what the user gave, if beatstore can work with it.

    Args:
        target: a URL, as text or not, or an Engine.

    Raises:
        ConfigError: it is no URL, or of a database or driver that beatstore can't use.
    """
    if hasattr(target, "sync_engine"):
        raise ConfigError(
            "url",
            target,
            "a URL or an Engine, since beat and workers have no event loop for an AsyncEngine",
            _example(target.sync_engine.url),
        )
    url = target.url if isinstance(target, Engine) else _parsed(target)
    name = url.get_backend_name()
    if name not in _KNOWN:
        raise ConfigError(
            "url",
            _hidden(target),
            f"SQLite, PostgreSQL, MySQL or MariaDB, and {name!r} is none of them",
            _EXAMPLE,
        )
    try:
        dialect: Any = target.dialect if isinstance(target, Engine) else url.get_dialect()
    except NoSuchModuleError as error:
        raise ConfigError(
            "url", _hidden(target), f"a driver that SQLAlchemy knows ({error})", _example(url)
        ) from error
    if dialect.is_async:
        raise ConfigError(
            "url",
            _hidden(target),
            f"a driver that works without an event loop, which {dialect.driver} does not",
            _example(url),
        )
    return url


def shown(url: URL) -> str:
    """Return a URL as text, with its password hidden, and those among its parameters."""
    secret = {key: "***" for key in url.query if key.lower() in _SECRET}
    text = url.update_query_dict(secret).render_as_string(hide_password=True)
    return text.replace("=%2A%2A%2A", "=***")


def place(url: URL) -> tuple[str, str, int | None, str]:
    """Reduce a URL to what makes two of them the same database, whatever the driver."""
    kind = url.get_backend_name().replace("mariadb", "mysql")
    if kind == "sqlite":
        path = url.database or ""
        return (
            kind,
            "",
            None,
            os.path.abspath(path) if path not in ("", ":memory:") else str(id(url)),
        )
    ports = {"postgresql": 5432, "mysql": 3306}
    host = {"localhost": "127.0.0.1", "": "127.0.0.1"}.get(url.host or "", url.host or "")
    return kind, host, url.port or ports.get(kind), url.database or ""


def _parsed(target: Any) -> URL:
    try:
        url = make_url(target)
        url.get_backend_name()
    except (ArgumentError, AttributeError, ValueError) as error:
        # SQLAlchemy 2.0 repeats the text in its errors, or a part, which may be a password.
        why = "" if _hidden(target) != target else f" ({error})"
        raise ConfigError("url", _hidden(target), f"a database URL{why}", _EXAMPLE) from error
    return url


def _hidden(target: Any) -> Any:
    """Return what may be shown of it."""
    if isinstance(target, Engine):
        return shown(target.url)
    return "(hidden)" if not isinstance(target, str) or "@" in target else target


def _example(url: URL) -> str:
    return _EXAMPLES.get(url.get_backend_name(), _EXAMPLE)
