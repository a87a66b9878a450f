"""The ways to mount the dashboard, each in the real framework.

    with mounted("flask", dashboard) as browser:
        assert browser.get("/beat/entries").status_code == 200

`MOUNTS` names them, with the prefix and the class of what `authorize` is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from beatstore.web import Dashboard

__all__ = ["HOST", "MOUNTS", "mounted"]

HOST = "http://testserver"

Application = Any


def below(prefix: str, application: Application) -> Application:
    """Return a WSGI application that has another one below a prefix."""
    from werkzeug.exceptions import NotFound
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    return DispatcherMiddleware(NotFound(), {prefix: application})


def alone(dashboard: Dashboard, _: ExitStack) -> Application:
    return dashboard


def dispatched(dashboard: Dashboard, _: ExitStack) -> Application:
    return below("/the ops/b%t", dashboard)


def proxied(dashboard: Dashboard, _: ExitStack) -> Application:
    """Return it as it is run behind a proxy that cuts the prefix off."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    fixed = ProxyFix(dashboard, x_prefix=1)
    return lambda environ, start: fixed({**environ, "HTTP_X_FORWARDED_PREFIX": "/tools"}, start)


def flask(dashboard: Dashboard, _: ExitStack) -> Application:
    from flask import Flask

    from beatstore.web.flask import blueprint

    app = Flask("app")
    app.register_blueprint(blueprint(dashboard), url_prefix="/beat")
    return app


def flask_root(dashboard: Dashboard, _: ExitStack) -> Application:
    from flask import Flask

    from beatstore.web.flask import blueprint

    app = Flask("app", static_folder=None)
    app.register_blueprint(blueprint(dashboard), url_prefix="/")
    return app


def flask_nested(dashboard: Dashboard, _: ExitStack) -> Application:
    """Return a blueprint inside another one, whose path has a value, below a SCRIPT_NAME."""
    from flask import Blueprint, Flask

    from beatstore.web.flask import blueprint

    app, admin = Flask("app"), Blueprint("admin", "admin")
    admin.register_blueprint(blueprint(dashboard), url_prefix="/beat")
    app.register_blueprint(admin, url_prefix="/<team>/admin")
    return below("/app", app)


def fastapi(dashboard: Dashboard, _: ExitStack) -> Application:
    from a2wsgi import WSGIMiddleware
    from fastapi import FastAPI

    app = FastAPI()
    app.mount("/beat", WSGIMiddleware(dashboard))  # type: ignore[arg-type]
    return app


def starlette_in_mounts(dashboard: Dashboard, _: ExitStack) -> Application:
    from a2wsgi import WSGIMiddleware
    from starlette.applications import Starlette
    from starlette.routing import Mount

    inner = Mount("/beat", app=WSGIMiddleware(dashboard))  # type: ignore[arg-type]
    return Starlette(routes=[Mount("/admin", routes=[inner])])


def staff(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Tell Django who asks, as its own middleware would."""

    def middleware(request: Any) -> Any:
        request.user = SimpleNamespace(is_active=True, is_staff=True)
        return answer(request)

    return middleware


def django(dashboard: Dashboard, stack: ExitStack, kind: str = "wsgi") -> Application:
    """Return Django's own handler, of a project with one view for its staff."""
    from django.conf import settings
    from django.utils.functional import empty

    # Django has one project in a process; this one ends with the test.
    before, settings._wrapped = settings._wrapped, empty
    stack.callback(setattr, settings, "_wrapped", before)
    middleware = [
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "tests.support.mounts.staff",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ]
    settings.configure(
        ALLOWED_HOSTS=["testserver"], MIDDLEWARE=middleware, FORCE_SCRIPT_NAME="/site"
    )
    from django.contrib.admin.views.decorators import staff_member_required
    from django.urls import re_path

    from beatstore.web.django import view

    page = staff_member_required(view(dashboard))
    settings.ROOT_URLCONF = (re_path(r"^ops/beat/(?P<path>.*)$", page),)
    handlers = import_module(f"django.core.handlers.{kind}")
    return getattr(handlers, f"{kind.upper()}Handler")()


def django_asgi(dashboard: Dashboard, stack: ExitStack) -> Application:
    return django(dashboard, stack, "asgi")


@dataclass(frozen=True)
class Mount:
    """A way to mount a dashboard.

    Attributes:
        make: takes the dashboard and returns the application.
        link: the prefix as it is in links.
        needs: a package that it needs.
        request: the class of what `authorize` is given, as "module:name".
        asgi: whether the application is one of ASGI.
        cut: the part of the prefix that is taken off the path before the application.
        root_path: the part of the prefix that a server of ASGI tells the application of.
    """

    make: Callable[[Dashboard, ExitStack], Application]
    link: str
    needs: str = "werkzeug"
    request: str = "werkzeug.wrappers:Request"
    asgi: bool = False
    cut: str = ""
    root_path: str = ""


_FLASK: Any = {"needs": "flask", "request": "flask:Request"}
_DJANGO: Any = {"needs": "django", "cut": "/site"}

MOUNTS = {
    "wsgi": Mount(alone, ""),
    "dispatcher": Mount(dispatched, "/the%20ops/b%25t"),
    "proxy": Mount(proxied, "/tools", cut="/tools"),
    "flask": Mount(flask, "/beat", **_FLASK),
    "flask at the root": Mount(flask_root, "", **_FLASK),
    "flask, nested": Mount(flask_nested, "/app/etl/admin/beat", **_FLASK),
    "fastapi": Mount(fastapi, "/api/beat", needs="a2wsgi", asgi=True, root_path="/api"),
    "starlette, nested": Mount(starlette_in_mounts, "/admin/beat", needs="a2wsgi", asgi=True),
    "django": Mount(
        django, "/site/ops/beat", request="django.core.handlers.wsgi:WSGIRequest", **_DJANGO
    ),
    "django, asgi": Mount(
        django_asgi,
        "/site/ops/beat",
        request="django.core.handlers.asgi:ASGIRequest",
        asgi=True,
        **_DJANGO,
    ),
}


class ASGI(httpx.BaseTransport):
    """Sends requests to an application of ASGI, each in an event loop of its own."""

    def __init__(self, transport: httpx.ASGITransport) -> None:
        self.transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and read the whole answer."""

        async def answer() -> httpx.Response:
            found = await self.transport.handle_async_request(request)
            content = await found.aread()
            return httpx.Response(found.status_code, headers=found.headers, content=content)

        return asyncio.run(answer())


@contextmanager
def mounted(name: str, dashboard: Dashboard) -> Iterator[httpx.Client]:
    """Mount a dashboard, and hand out a client for it; what is missing skips the test."""
    mount = MOUNTS[name]
    pytest.importorskip(mount.needs, reason="of the dependency groups `browser` and `peers`")
    with ExitStack() as stack:
        application = mount.make(dashboard, stack)
        transport = (
            ASGI(httpx.ASGITransport(application, root_path=mount.root_path))
            if mount.asgi
            else httpx.WSGITransport(application)
        )
        yield stack.enter_context(httpx.Client(transport=transport, base_url=HOST))
