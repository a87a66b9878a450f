"""Where a database is: the URL or Engine that the user gave, checked before it is used.

On failure: `ConfigError`, which says what to write instead and shows no password.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from beatstore.database.dialects import PostgreSQL, dialect_at, supports
from beatstore.errors import ConfigError

__all__ = ["checked", "same_database", "shown"]

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
            dialect_at(target.sync_engine.url).example_url,
        )
    url = target.url if isinstance(target, Engine) else _parsed(target)
    example = dialect_at(url, _hidden(target)).example_url
    try:
        dialect: Any = target.dialect if isinstance(target, Engine) else url.get_dialect()
    except NoSuchModuleError as error:
        raise ConfigError(
            "url", _hidden(target), f"a driver that SQLAlchemy knows ({error})", example
        ) from error
    if dialect.is_async:
        raise ConfigError(
            "url",
            _hidden(target),
            f"a driver that works without an event loop, which {dialect.driver} does not",
            example,
        )
    return url


def shown(url: URL) -> str:
    """Return a URL as text, with its password hidden, and those among its parameters."""
    secret = {key: "***" for key in url.query if key.lower() in _SECRET}
    text = url.update_query_dict(secret).render_as_string(hide_password=True)
    return text.replace("=%2A%2A%2A", "=***")


def same_database(one: URL, other: URL) -> bool:
    """Say whether two URLs name the same database, whatever the driver."""
    known = supports(one) and supports(other)
    return known and dialect_at(one).place(one) == dialect_at(other).place(other)


def _parsed(target: Any) -> URL:
    try:
        url = make_url(target)
        supports(url)
    except (ArgumentError, AttributeError, ValueError) as error:
        # SQLAlchemy 2.0 repeats the text in its errors, or a part, which may be a password.
        why = "" if _hidden(target) != target else f" ({error})"
        raise ConfigError(
            "url", _hidden(target), f"a database URL{why}", PostgreSQL.example_url
        ) from error
    return url


def _hidden(target: Any) -> Any:
    """Return what may be shown of it."""
    if isinstance(target, Engine):
        return shown(target.url)
    return "(hidden)" if not isinstance(target, str) or "@" in target else target
