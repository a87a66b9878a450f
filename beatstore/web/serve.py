"""The dashboard by itself: who is let in, under which names of hosts, and the server.

A `Login` is called with each request before anything is read. It returns the name of the person
who sent it, or raises an answer of Werkzeug's that refuses or asks. There are three: `Passwords`,
`Token`, and `Proxy`.

Invariants:
    * Passwords, tokens and the marks of sessions are compared in constant time.
    * No password is kept: the file holds hashes, and a password that was right is known again by
      a keyed hash, since those of the file take some 50 ms on purpose.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from hmac import compare_digest
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6
from socket import create_server as listening
from threading import Lock
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

from waitress.server import create_server
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, HTTPException, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.wrappers import Request, Response

from beatstore.store import Store
from beatstore.web.access import Actor
from beatstore.web.dashboard import LONGEST_FORM, Dashboard

__all__ = ["LOCAL_HOSTS", "Login", "Passwords", "Proxy", "Token", "alone", "is_local", "server"]

#: Takes a request and returns the name of its sender; raises an answer to refuse it.
Login: TypeAlias = Callable[[Request], str]

#: What a browser on this machine calls it.
LOCAL_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))

#: The parts of a hash of Werkzeug's: method, salt and digest.
_PARTS = 3


def alone(
    store: Store,
    login: Login,
    *,
    hosts: Collection[str] | None = None,
    read_only: bool = False,
) -> Dashboard:
    """Return a dashboard that lets in whom `login` knows.

    Args:
        store: whose entries are shown.
        login: says who sent a request.
        hosts: the names of this host that a request may ask for; None: any. A page of another
            site, whose name leads to this machine ("DNS rebinding"), asks for that name.
        read_only: whether nobody may change anything.
    """

    def authorize(request: Request) -> Actor:
        if hosts is not None and _host_of(request) not in hosts:
            said = "This is no host name of the dashboard: {!r}. `beatstore web --host` adds one."
            raise Forbidden(said.format(request.host[:100]))
        return Actor(login(request), can_write=not read_only)

    return Dashboard(store, authorize=authorize)


def server(dashboard: Dashboard, *, bind: str, port: int, behind_proxy: bool = False) -> Any:
    """Return a server of Waitress that listens; its `run()` serves until SystemExit is raised.

    Args:
        dashboard: what is served.
        bind: the address to listen at.
        port: its port; 0 takes a free one, which is `effective_port`.
        behind_proxy: whether X-Forwarded-Proto and X-Forwarded-Prefix count.

    Raises:
        OSError: the address is in use, or none of this machine.
    """
    application = ProxyFix(dashboard, x_for=0, x_prefix=1) if behind_proxy else dashboard
    family = AF_INET6 if ":" in bind else AF_INET
    return create_server(
        application,
        sockets=[listening((bind, port), family=family)],
        ident=None,
        max_request_body_size=LONGEST_FORM,
        clear_untrusted_proxy_headers=not behind_proxy,
    )


def is_local(bind: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return bind == "localhost" or ip_address(bind).is_loopback
    except ValueError:
        return False


def _host_of(request: Request) -> str | None:
    try:
        return urlsplit(f"//{request.host}").hostname
    except ValueError:
        return None


# -- who it is -----------------------------------------------------------------------------


class Passwords:
    """HTTP Basic: people with names and passwords.

    Args:
        hashes: the hash of each person's password, made by Werkzeug.

    Raises:
        ValueError: what stands there for a person is no such hash.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        for name, given in hashes.items():
            if not _is_hash(given):
                raise ValueError(f"what follows {name!r} is no hash of werkzeug.security")
        self._hashes = dict(hashes)
        self._nobody = generate_password_hash(secrets.token_hex())
        self._key = secrets.token_bytes()
        self._right: dict[str, bytes] = {}

    @classmethod
    def read(cls, file: Path) -> Passwords:
        """Read a file with a line `name:hash` for each person; `#` begins a comment.

        Raises:
            OSError: it can't be read.
            ValueError: a line is wrong, or there is none.
        """
        hashes = {}
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, given = (part.strip() for part in line.partition(":"))
            if not name or not colon or name in hashes:
                raise ValueError(f"line {number} is not name:hash, or has a name for a second time")
            hashes[name] = given
        if not hashes:
            raise ValueError("it has no line name:hash")
        return cls(hashes)

    def __call__(self, request: Request) -> str:
        """Return the name of who sent a request; ask for it if that is not known."""
        given = request.authorization
        if given is not None and given.type == "basic":
            name, password = given.username or "", given.password or ""
            if self._fits(name, password):
                return name
        asked = WWWAuthenticate("basic", {"realm": "beatstore", "charset": "UTF-8"})
        raise Unauthorized("Sign in with your name and password.", www_authenticate=asked)

    def _fits(self, name: str, password: str) -> bool:
        mark = blake2b(f"{name}:{password}".encode(), key=self._key).digest()
        if compare_digest(self._right.get(name, b""), mark):
            return True
        # An unknown name takes as long as a wrong password.
        if not check_password_hash(self._hashes.get(name, self._nobody), password):
            return False
        self._right[name] = mark
        return True


def _is_hash(given: str) -> bool:
    try:
        check_password_hash(given, "")
    except ValueError:
        return False
    return len(given.split("$")) == _PARTS


class Token:
    """A token that is good for one browser; that browser then has a cookie, until the end.

    Args:
        user: the name of whoever has the token.

    Attributes:
        token: to be given as the parameter `token` of the first address.
    """

    def __init__(self, user: str) -> None:
        self.user = user
        self.token = secrets.token_urlsafe()
        self._session = secrets.token_urlsafe()
        self._unused = True
        self._lock = Lock()

    def __call__(self, request: Request) -> str:
        """Return the user if the request has the cookie; give it to whoever has the token."""
        # Cookies know no ports, and another dashboard may run on this machine.
        cookie = f"beatstore_{request.environ['SERVER_PORT']}"
        known = _same(request.cookies.get(cookie), self._session)
        given = request.args.get("token") if request.method == "GET" else None
        if known and given is None:
            return self.user
        if not known and not self._taken(given):
            raise Forbidden(
                "Open the address that `beatstore web` printed at its start. It works once, in one "
                "browser; start it again for another one."
            )
        answer = Response(status=303, headers={"Location": f"{quote(request.root_path)}/"})
        answer.set_cookie(
            cookie, self._session, httponly=True, samesite="Strict", secure=request.is_secure
        )
        raise HTTPException(response=answer)

    def _taken(self, given: str | None) -> bool:
        """Use the token up, if it is the right one and was not used before."""
        with self._lock:
            fits = self._unused and _same(given, self.token)
            self._unused = self._unused and not fits
            return fits


class Proxy:
    """A proxy that has signed people in, and says who they are.

    Args:
        addresses: of the proxies: addresses or networks, such as "10.0.0.0/8". Nobody else is
            let in.
        header: the name of the header that holds the user's name.

    Raises:
        ValueError: an address is none.
    """

    def __init__(self, addresses: Sequence[str], header: str = "X-Forwarded-User") -> None:
        self.networks = [ip_network(address) for address in addresses]
        self.header = header

    def __call__(self, request: Request) -> str:
        """Return the name that the proxy gives."""
        try:
            peer = ip_address(request.remote_addr or "")
        except ValueError:
            raise Forbidden("Where this comes from is not known.") from None
        if not any(peer in network for network in self.networks):
            raise Forbidden(
                f"{peer} is no trusted proxy; `beatstore web --trusted-proxy` adds one."
            )
        # Headers are Latin-1 for WSGI, and UTF-8 for those who write them.
        name = request.headers.get(self.header, "").strip().encode("latin-1", "replace")
        if not name:
            raise Forbidden(f"The proxy names no user: it has to set the header {self.header}.")
        return name.decode(errors="replace")


def _same(given: str | None, wanted: str) -> bool:
    return given is not None and compare_digest(given.encode(), wanted.encode())
