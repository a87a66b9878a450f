"""The dashboard inside a Flask application.

app.register_blueprint(blueprint(dashboard), url_prefix="/beat")
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request
from werkzeug.wrappers import Response

from beatstore.web.dashboard import Dashboard

__all__ = ["blueprint"]


def blueprint(dashboard: Dashboard, name: str = "beatstore") -> Blueprint:
    """Return a blueprint with all pages of a dashboard.

    Pages are answered inside Flask's request context, after the application's and the
    blueprint's own `before_request` functions. `authorize` is called with `flask.request`. If
    Flask-WTF protects the application, exempt the blueprint: forms of the dashboard have no token,
    since the dashboard itself refuses those of other sites.

    Args:
        dashboard: whose pages.
        name: of the blueprint; two in one application need two names.
    """
    found = Blueprint(name, __name__)

    @found.route("/", methods=("GET", "POST"))
    @found.route("/<path:path>", methods=("GET", "POST"))
    def page(path: str = "", **_: Any) -> Response:  # a prefix may have values of its own
        root = request.root_path + request.path.removesuffix(path)
        return dashboard.respond(request, root=root, path=path)

    return found
