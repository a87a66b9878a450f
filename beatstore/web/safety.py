"""Refuse requests that other sites send, and tell the browser what pages may do.

A request that changes something is refused if the browser says that another site sent it
(https://www.w3.org/TR/fetch-metadata/): by `Sec-Fetch-Site`, or, from browsers without that
header, by an `Origin` of another host. A client that sends neither is not a browser, so nobody
can have misled it.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from werkzeug.wrappers import Request, Response

__all__ = ["from_another_site", "protect"]

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))

#: Nothing but the dashboard's own files, and no inline style or script without the nonce.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'nonce-{nonce}'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types htmx",
    )
)


def from_another_site(request: Request, trusted: Collection[str]) -> bool:
    """Return whether another site's page sent a request that may change something.

    Args:
        request: the request.
        trusted: further origins ("https://admin.example.org") that may send such requests.
    """
    if request.method in _SAFE_METHODS:
        return False
    origin = request.headers.get("Origin")
    if origin is not None and origin in trusted:
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site != "same-origin"
    return origin is not None and urlsplit(origin).netloc != request.host


def protect(response: Response, nonce: str) -> Response:
    """Add the security headers to a page."""
    headers = {
        "Content-Security-Policy": _POLICY.format(nonce=nonce),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    return response
