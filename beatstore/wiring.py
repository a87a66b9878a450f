"""What the setting `broker_url` names, looked at when beat starts, before anything is connected.

A broker that does not answer is waited for. A URL that nothing can ever be reached by is no
outage: an unknown scheme, a client library that is not installed, a port that is no number.

On failure: `ConfigError`, which names the URL without its password, and what to write or
install instead. What may be a mistake is only warned of.
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

#: Options that kombu takes of any transport, beside those that its channels know.
_OF_KOMBU = (
    *("client_properties", "confirm_publish", "confirm_timeout", "connect_timeout", "errback"),
    *("global_keyprefix", "interval_max", "interval_start", "interval_step", "login_method"),
    *("master_name", "max_retries", "polling_interval", "region", "predefined_queues"),
    *("sentinel_kwargs", "read_timeout", "write_timeout", "visibility_timeout"),
)

#: How many letters, of all, two names have to share for one to be taken for the other.
_ALIKE = 0.75


def check_broker_url(app: Celery) -> None:
    """Refuse broker URLs, also those of a failover list, that can't be used by this process.

    Raises:
        ConfigError: one can't.
    """
    for url in _urls(app):
        scheme = _scheme(url)
        try:
            _transport(app, url)
        except (LookupError, ValueError) as error:
            raise _refusal(url, *_expected(url, error)) from error
        except Exception as error:
            # An ImportError, or what a module of kombu's makes of what it could not import.
            wanted = f"a broker whose client library is installed ({type(error).__name__}: {error})"
            raise _refusal(url, wanted, f'pip install "kombu[{_extra(scheme)}]"') from error


def warn_of_options(app: Celery) -> None:
    """Log which of `broker_transport_options` look like others misspelt, and have no effect.

    Only where kombu ignores what it does not know, and only what is close to a known name:
    a transport of somebody's own may know more.
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
    """Make a transport, which imports its client library; nothing is connected by that."""
    return Connection(url, transport_options=app.conf.broker_transport_options).transport


def _scheme(url: str) -> str:
    return url.partition("://")[0] if "://" in url else "amqp"


def _urls(app: Celery) -> Iterator[str]:
    """Yield each URL that beat may send to."""
    given: Any = app.conf.broker_write_url
    for one in [given] if isinstance(given, str) else given or ():
        yield from (url for url in str(one).split(";") if url)


def _expected(url: str, error: Exception) -> tuple[str, str]:
    """Return what is expected of a URL, and what to write."""
    scheme = _scheme(url)
    if scheme not in TRANSPORT_ALIASES and isinstance(error, LookupError):
        known = sorted({alias.lower() for alias in TRANSPORT_ALIASES if alias})
        return (
            f"a broker transport that kombu supports: {', '.join(known)}",
            f"{nearest(scheme, known)}://…",
        )
    if "@" in url:  # the error may show a part of the password
        write = "redis://:password@localhost:6379/0, the password quoted by urllib.parse.quote"
        return "a broker URL that can be parsed", write
    return f"a broker URL that can be parsed ({error})", "redis://localhost:6379/0"


def _extra(scheme: str) -> str:
    """Return the extra of kombu's package that brings what a scheme needs."""
    first = scheme.partition("+")[0]
    return {"rediss": "redis", "sentinel": "redis", "sqla": "sqlalchemy"}.get(first, first)


def _refusal(url: str, expected: str, write: str) -> ConfigError:
    return ConfigError("broker_url", re.sub(r"://.*@", "://**@", url), expected, write)
