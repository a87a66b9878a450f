"""The dashboard as an application: its routes, its security headers and its error pages.

On failure: a page says what happened in one sentence. What nobody foresaw is logged with its
traceback, and the page only says so.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from werkzeug.datastructures import Headers
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    HTTPException,
    LengthRequired,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
)
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.wrappers import Request, Response

from beatstore.config import link_templates
from beatstore.errors import (
    BeatstoreError,
    DeniedError,
    EntryNotFoundError,
    SchemaError,
    UnavailableError,
)
from beatstore.rules.states import FINAL, SENDS_NOTHING
from beatstore.store import Store
from beatstore.text.secrets import hide, redact
from beatstore.web import filters
from beatstore.web.access import ANONYMOUS, Authorize
from beatstore.web.call import Call
from beatstore.web.safety import from_another_site, protect

__all__ = ["LONGEST_FORM", "Dashboard"]

logger = logging.getLogger(__name__)

#: Each page: its path, the "module:function" in `beatstore.web.pages`, and its methods.
PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "today": ("/", "today:today", ("GET",)),
    "entries": ("/entries", "entries:entries", ("GET",)),
    "bulk": ("/entries/bulk", "actions:bulk", ("POST",)),
    "add": ("/entries/add", "edit:add", ("GET", "POST")),
    "entry": ("/entry", "entry:entry", ("GET",)),
    "edit": ("/entry/edit", "edit:edit", ("GET", "POST")),
    "act": ("/entry/act", "actions:act", ("POST",)),
    "run": ("/run", "run:run", ("GET",)),
    "act_on_run": ("/run/act", "actions:act_on_run", ("POST",)),
    "runs": ("/runs", "runs:runs", ("GET",)),
    "upcoming": ("/upcoming", "upcoming:upcoming", ("GET",)),
    "graph": ("/graph", "graph:graph", ("GET",)),
    "audit": ("/audit", "audit:audit", ("GET",)),
    "processes": ("/processes", "processes:processes", ("GET",)),
    "storage": ("/database", "storage:storage", ("GET",)),
    "zone": ("/zone", "zone:choose", ("POST",)),
    "static": ("/static/<path:name>", "static:static", ("GET",)),
}

#: The pages that renew themselves.
LIVE_PAGES = frozenset(("today", "graph"))

#: The largest form that is read, in bytes: as much as Werkzeug and Flask read by default.
LONGEST_FORM = 500_000


class Dashboard:
    """The pages of one store, as a WSGI application.

    Creating one does not connect to the database.

    Args:
        store: the store whose entries and runs are shown.
        authorize: takes the request (that of the framework that the dashboard is mounted in; by
            itself, Werkzeug's) and returns an `Actor`, or None to refuse it. Without it, whoever
            reaches the dashboard can read and nobody can write. It may raise an exception of
            `werkzeug.exceptions`, such as `Unauthorized`, or one whose `response` is a redirect.
        redact: takes the arguments of a task as JSON data and returns what is shown of them. By
            default values are hidden whose names say that they are secrets: `password`, `token`.
        links: templates of addresses in other systems, by the title of the link, such as
            `{"Flower": "https://flower.example.org/task/{task_id}"}`. They may name `task_id`,
            `entry`, `run_id`, `worker`, and `start` and `end` of the run in Unix milliseconds.
            None takes the setting `beatstore_web_links`.
        trusted_origins: further origins whose pages may send forms to this dashboard.
        timeout: the seconds that a statement of a page may take.

    Raises:
        ConfigError: a template of `links` names something else.
    """

    def __init__(
        self,
        store: Store,
        *,
        authorize: Authorize | None = None,
        redact: Callable[[Any], Any] = redact,
        links: Mapping[str, str] | None = None,
        trusted_origins: Collection[str] = (),
        timeout: float = 5.0,
    ) -> None:
        self.store = store
        self.authorize = authorize or (lambda _: ANONYMOUS)
        self.redact = redact
        self.links = store.settings.web_links if links is None else link_templates("links", links)
        self.trusted_origins = frozenset(trusted_origins)
        self.timeout = timeout
        self.templates = Environment(
            loader=PackageLoader("beatstore.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters.update(filters.FILTERS)
        self.templates.globals.update(FINAL=FINAL, SENDS_NOTHING=SENDS_NOTHING)
        self._map = Map(
            [
                Rule(path, endpoint=endpoint, methods=methods)
                for endpoint, (path, _, methods) in PAGES.items()
            ],
            merge_slashes=False,  # so that nothing is redirected, and links need no host
        )

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a WSGI request."""
        request = Request(environ)
        return self.respond(request)(environ, start_response)

    def respond(
        self,
        request: Request,
        *,
        root: str | None = None,
        path: str | None = None,
        original: object = None,
    ) -> Response:
        """Return the answer to a request.

        Args:
            request: the request.
            root: the prefix that the dashboard is mounted at, decoded; None for that of WSGI.
            path: the path below it; None for that of WSGI.
            original: the request as the framework has it, for `authorize`; None for `request`.
        """
        nonce = secrets.token_urlsafe(16)
        links = self._map.bind(
            "localhost",
            script_name=quote(request.root_path if root is None else root).rstrip("/") or "/",
            path_info="/" + (request.path if path is None else path).lstrip("/"),
            default_method=request.method,
        )
        call = Call(self, request, ANONYMOUS, links, nonce)
        try:
            response = self._answer(call, original or request)
        except Exception as error:  # noqa: BLE001  (a page says what happened)
            response = self._failed(call, error)
        return protect(response, nonce)

    def _answer(self, call: Call, original: object) -> Response:
        if from_another_site(call.request, self.trusted_origins):
            raise Forbidden("Another site sent this form. Open the dashboard and try again.")
        if _has_no_end(call.request):
            raise LengthRequired(
                "The form came without its length (in chunks), and this server does not say where "
                "it ends. Send it with a Content-Length."
            )
        if (call.request.content_length or 0) > LONGEST_FORM:
            raise RequestEntityTooLarge(f"A form may have {LONGEST_FORM:,} bytes.")
        if not call.links.path_info.startswith("/static/"):  # which a refusal needs, too
            actor = self.authorize(original)
            if actor is None:
                raise Forbidden("You may not see this dashboard.")
            call.actor = actor
        call.endpoint, values = _matched(call.links)
        module, _, function = PAGES[call.endpoint][1].partition(":")
        answer = getattr(import_module(f"beatstore.web.pages.{module}"), function)
        response: Response = answer(call, **values)
        return response

    def _failed(self, call: Call, error: Exception) -> Response:
        """Return the page about an error."""
        headers = Headers()
        if isinstance(error, HTTPException):
            if error.response is not None:  # a redirect of `authorize`
                return error.get_response(call.request.environ)
            headers.extend(error.get_headers())  # such as WWW-Authenticate
            headers.remove("Content-Type")
            status, said = error.code or 500, error.description or error.name
        elif isinstance(error, EntryNotFoundError):
            status, said = NotFound.code, str(error)
        elif isinstance(error, UnavailableError | SchemaError):
            status, said = ServiceUnavailable.code, str(error)
        elif isinstance(error, DeniedError):
            status, said = Forbidden.code, str(error)
        elif isinstance(error, BeatstoreError):
            status, said = BadRequest.code, str(error)
        else:
            logger.exception("%s %s failed", call.request.method, call.request.path)
            status, said = 500, "Something went wrong. The log of the dashboard says what."
        # Such a page comes back by itself after an outage.
        away = status == ServiceUnavailable.code
        again = away and call.request.method == "GET" and call.endpoint in LIVE_PAGES
        page = self.templates.get_template("error.html")
        text = page.render(call=call, status=status, said=hide(said), again=again)
        return Response(text, status=status, headers=headers, mimetype="text/html")


def _has_no_end(request: Request) -> bool:
    """Return whether a form has neither a length nor an end that the server marks.

    Werkzeug takes such a form for an empty one, lest it waits for ever for what follows. Servers
    that read chunks set `wsgi.input_terminated`; a2wsgi does not.
    """
    ends = request.content_length is not None or request.environ.get("wsgi.input_terminated")
    return request.method == "POST" and not ends


def _matched(links: MapAdapter) -> tuple[str, Mapping[str, Any]]:
    endpoint, values = links.match()
    assert isinstance(endpoint, str)
    return endpoint, values
