"""The style sheet, the icon and htmx."""

from __future__ import annotations

from importlib.resources import files
from mimetypes import guess_type

from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from beatstore.version import __version__
from beatstore.web.call import Call

__all__ = ["static"]

_FILES = {one.name: one for one in files("beatstore.web").joinpath("static").iterdir()}


def static(call: Call, name: str) -> Response:
    """Return a file; pages ask for it by the version, so that no browser shows an old one."""
    found = _FILES.get(name)
    if found is None:
        raise NotFound("There is no such file.")
    response = Response(found.read_bytes(), mimetype=guess_type(name)[0])
    response.cache_control.public = True
    response.cache_control.max_age = 3600
    response.set_etag(f"{__version__}-{name}")
    return response.make_conditional(call.request)
