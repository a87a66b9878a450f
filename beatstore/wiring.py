"""Check the setting `broker_url` when beat starts, before it connects.

Beat waits for a broker that does not answer. It refuses a URL that can never work: an unknown
scheme, a missing client library, a port or a Redis database that is not a number.

On failure: `ConfigError`, which shows the URL without its password, and what to write or
install instead. Likely mistakes in `broker_transport_options` are only logged.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES

from beatstore.errors import ConfigError
from beatstore.words import nearest

__all__ = ["check_broker_url", "warn_of_options"]

logger = logging.getLogger(__name__)

#: Options that kombu accepts for any transport, besides those that its channels define.
_OF_KOMBU = (
    *("client_properties", "confirm_publish", "confirm_timeout", "connect_timeout", "errback"),
    *("global_keyprefix", "interval_max", "interval_start", "interval_step", "login_method"),
    *("master_name", "max_retries", "polling_interval", "region", "predefined_queues"),
    *("sentinel_kwargs", "read_timeout", "write_timeout", "visibility_timeout"),
)

#: The start of the path of kombu's transports for Redis and its Sentinel.
_REDIS = "kombu.transport.redis:"

#: How similar two names must be (0 to 1) for one to be suggested for the other.
_ALIKE = 0.75


def check_broker_url(app: Celery) -> None:
    """Refuse broker URLs that this process can't use, including those of a failover list.

    Raises:
        ConfigError: a URL can't be used.
    """
    for url in _urls(app):
        scheme = _scheme(url)
        try:
            transport = _transport(app, url)
        except (LookupError, ValueError) as error:
            raise _refusal(url, *_expected(url, error)) from error
        except Exception as error:
            # An ImportError, or the error that a kombu module raises in its place.
            wanted = f"a broker whose client library is installed ({type(error).__name__}: {error})"
            raise _refusal(url, wanted, f'pip install "kombu[{_extra(scheme)}]"') from error
        if TRANSPORT_ALIASES.get(scheme, "").startswith(_REDIS):
            _check_redis_database(url, str(transport.client.virtual_host or ""))


def warn_of_options(app: Celery) -> None:
    """Log each name in `broker_transport_options` that looks like a misspelt option.

    Only transports that ignore unknown options are checked, and only names close to a known
    one are logged: a custom transport may know more options.
    """
    options = app.conf.broker_transport_options or {}
    for url in _urls(app) if options else ():
        channel = getattr(_transport(app, url), "Channel", None)
        of_channel = getattr(channel, "from_transport_options", None)
        if not of_channel:
            continue
        known = {*_OF_KOMBU, *of_channel, *(name for name in dir(channel) if name[0] != "_")}
        for name in options:
            meant = [] if name in known else get_close_matches(str(name), known, 1, _ALIKE)
            if meant:
                logger.warning(
                    "broker_transport_options: %r is not an option of %s and has no effect; "
                    "did you mean %r?",
                    *(name, _scheme(url), meant[0]),
                )


def _transport(app: Celery, url: str) -> Any:
    """Make a transport, which imports its client library but does not connect."""
    return Connection(url, transport_options=app.conf.broker_transport_options).transport


def _check_redis_database(url: str, given: str) -> None:
    """Refuse a Redis database that is not a number, which kombu would read only at each send."""
    number = given.removeprefix("/")
    if number and not (number.isascii() and number.isdecimal()):
        before, _, after = url.partition("://")
        host = after.rpartition("@")[2].partition("/")[0]
        raise _refusal(url, "a broker URL whose Redis database is a number", f"{before}://{host}/0")


def _scheme(url: str) -> str:
    return url.partition("://")[0] if "://" in url else "amqp"


def _urls(app: Celery) -> Iterator[str]:
    """Yield each URL that beat may send to."""
    given: Any = app.conf.broker_write_url
    for one in [given] if isinstance(given, str) else given or ():
        yield from (url for url in str(one).split(";") if url)


def _expected(url: str, error: Exception) -> tuple[str, str]:
    """Return what was expected of a URL, and what to write instead."""
    scheme = _scheme(url)
    if scheme not in TRANSPORT_ALIASES and isinstance(error, LookupError):
        known = sorted({alias.lower() for alias in TRANSPORT_ALIASES if alias})
        return (
            f"a broker transport that kombu supports: {', '.join(known)}",
            f"{nearest(scheme, known)}://…",
        )
    if "@" in url:  # the error may contain part of the password
        write = "redis://:password@localhost:6379/0, the password quoted by urllib.parse.quote"
        return "a broker URL that can be parsed", write
    return f"a broker URL that can be parsed ({error})", "redis://localhost:6379/0"


def _extra(scheme: str) -> str:
    """Return the extra of the kombu package that installs the client library of a scheme."""
    first = scheme.partition("+")[0]
    return {"rediss": "redis", "sentinel": "redis", "sqla": "sqlalchemy"}.get(first, first)


def _refusal(url: str, expected: str, write: str) -> ConfigError:
    return ConfigError("broker_url", re.sub(r"://.*@", "://**@", url), expected, write)
