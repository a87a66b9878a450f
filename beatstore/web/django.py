"""The dashboard inside a Django project.

urlpatterns = [
    re_path(r"^beat/(?P<path>.*)$", staff_member_required(view(dashboard))),
]
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from django.http import HttpRequest, HttpResponse
from django.urls import get_script_prefix
from django.views.decorators.csrf import csrf_exempt
from werkzeug.wrappers import Request, Response

from beatstore.web.dashboard import Dashboard

__all__ = ["view"]


def view(dashboard: Dashboard) -> Callable[..., HttpResponse]:
    """Return a view with all pages of a dashboard, for Django under WSGI and under ASGI.

    The pattern of its path ends in a group `path`. `authorize` is called with Django's
    request. The view is exempt from Django's CSRF tokens, since the dashboard itself refuses
    forms of other sites.

    Args:
        dashboard: whose pages.
    """

    def page(request: HttpRequest, path: str = "", **_: object) -> HttpResponse:
        root = get_script_prefix().rstrip("/") + request.path_info.removesuffix(path)
        asked = _asked(request)
        return _told(dashboard.respond(asked, root=root, path=path, original=request), asked)

    exempt: Callable[..., HttpResponse] = csrf_exempt(page)
    return exempt


def _asked(request: HttpRequest) -> Request:
    """Return the request as Werkzeug has it.

    Django's settings decide which host and scheme it was sent to.
    """
    environ = {
        **{"SERVER_NAME": "", "SERVER_PORT": ""},
        **request.META,
        **{"HTTP_HOST": request.get_host(), "wsgi.url_scheme": request.scheme},
        **{"wsgi.input": BytesIO(request.body), "CONTENT_LENGTH": str(len(request.body))},
    }
    return Request(environ)


def _told(response: Response, asked: Request) -> HttpResponse:
    """Return a response as Django has it."""
    told = HttpResponse(response.get_app_iter(asked.environ), status=response.status_code)
    for name, value in response.get_wsgi_headers(asked.environ):
        if name == "Set-Cookie":
            told.cookies.load(value)
        else:
            told.headers[name] = value
    return told
