"""Choose the time zone that times are shown in."""

from __future__ import annotations

from urllib.parse import urlsplit

from werkzeug.wrappers import Response

from beatstore.schedules import zone
from beatstore.web.call import ZONE_COOKIE, Call

__all__ = ["choose"]

_YEAR_S = 31_536_000


def choose(call: Call) -> Response:
    """Keep the reader's time zone in a cookie.

    Raises:
        ScheduleError: there is no such zone.
    """
    name = call.form().get("zone", "").strip()
    root = call.url("today")
    response = Response(status=303, headers={"Location": _came_from(call, root)})
    # Without the slash at the end: a mount at /beat is reached as /beat, too.
    path = root.rstrip("/") or "/"
    if name:
        name = zone(name).key
        response.set_cookie(
            ZONE_COOKIE,
            name,
            _YEAR_S,
            path=path,
            httponly=True,
            samesite="Lax",
            secure=call.request.is_secure,
        )
    else:
        response.delete_cookie(ZONE_COOKIE, path=path)
    return response


def _came_from(call: Call, root: str) -> str:
    """Return the page of this dashboard that the form was on; the first one, if it answered a form.

    Such a page has the address of the form, at which nothing can be read.
    """
    page = urlsplit(call.request.referrer or "")
    inside = page.path.startswith(root) or page.path == root.rstrip("/")
    if page.netloc != call.request.host or not inside:
        return root
    if not call.links.test(f"/{page.path.removeprefix(root.rstrip('/')).lstrip('/')}", "GET"):
        return root
    return f"{page.path}?{page.query}" if page.query else page.path
