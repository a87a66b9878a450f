"""Texts and arguments without passwords, tokens and other secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["HIDDEN", "hide", "is_secret", "passwords", "redact"]

#: What is shown instead of a secret.
HIDDEN = "***"

#: A password in any URL inside a text.
_IN_URL = re.compile(r"(?<=://)([^\s/:@'\"]*):[^\s'\"]*@(?=[^\s@])")

#: A password among the parameters of a URL or of a connection.
_IN_QUERY = re.compile(r"(?i)\b((?:ssl)?passw(?:or)?d|passphrase)(['\"]?\s*[=:]\s*)([^\s&,;)]+)")

#: A name whose value is a secret, such as "db_password", "apiKey" or "X-Auth-Token".
_SECRET = re.compile(
    r"(?i)passw|passphrase|pwd|secret|token|api.?key|access.?key|private.?key|credential"
    r"|authori[sz]ation|cookie|session.?id|^auth$"
)

#: How deep arguments are searched; below that, they are shown as one mark.
_DEPTH = 32


def is_secret(name: object) -> bool:
    """Return whether the name of an argument says that its value is a secret."""
    return isinstance(name, str) and _SECRET.search(name) is not None


def redact(value: Any, depth: int = _DEPTH) -> Any:
    """Return JSON data with every value hidden whose name says that it is a secret.

    Passwords in URLs are hidden in all texts.
    """
    if isinstance(value, str):
        return hide(value)
    if depth == 0 and isinstance(value, Mapping | list | tuple):
        return "…"
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if is_secret(key) else redact(item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item, depth - 1) for item in value]
    return value


def hide(text: str, secrets: Iterable[str] = ()) -> str:
    """Return text without passwords: those of URLs in it, and the given ones."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _IN_URL.sub(r"\1:***@", text)
    return _IN_QUERY.sub(r"\1\2***", text)


def passwords(query: str) -> set[str]:
    """Return the passwords among the parameters of a URL."""
    return {match[3] for match in _IN_QUERY.finditer(query)}
