"""The dashboard is the same wherever it is mounted: in each framework, at each prefix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import httpx
import pytest
from werkzeug.exceptions import HTTPException
from werkzeug.utils import redirect

from beatstore import Every, Store
from beatstore.web import Actor, Dashboard
from tests.support.mounts import HOST, MOUNTS, mounted

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

each_mount = pytest.mark.parametrize("name", MOUNTS)

#: What a browser sends with a form of the page that it shows.
OWN = {"Origin": HOST, "Sec-Fetch-Site": "same-origin"}

PAUSE = {"name": "nightly", "action": "pause"}


@pytest.fixture(autouse=True)
def nightly(store: Store) -> None:
    store.add("nightly", "t.x", Every(60))


class Rights:
    """What `authorize` does in a test, and what it was given."""

    def __init__(self) -> None:
        self.actor: Actor | None = Actor("anna", can_write=True)
        self.given: list[tuple[type, Any]] = []

    def __call__(self, request: Any) -> Actor | None:
        self.given.append((request.__class__, request.headers.get("X-Team")))
        return self.actor


@pytest.fixture
def rights() -> Rights:
    return Rights()


@pytest.fixture
def browser(name: str, store: Store, rights: Rights) -> Iterator[httpx.Client]:
    with mounted(name, Dashboard(store, authorize=rights)) as client:
        yield client


def at(name: str, path: str) -> str:
    """Return a path of the dashboard, as the application gets it."""
    return MOUNTS[name].link.removeprefix(MOUNTS[name].cut) + path


def links(page: str) -> set[str]:
    """Return where a page leads to, what it loads and where its forms go."""
    return set(re.findall(r'(?:href|src|action)="([^"#][^"]*)"', page))


@each_mount
def test_every_link_leads_below_the_prefix(name: str, browser: httpx.Client) -> None:
    """Pages, style sheets and forms have the prefix, once and without a double slash."""
    page = browser.get(at(name, "/entries"))
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    found = links(page.text)
    assert {MOUNTS[name].link + path for path in ("/", "/entries", "/runs", "/zone")} <= found
    assert MOUNTS[name].link + "/entry?name=nightly" in found
    for link in found:
        assert link.startswith(f"{MOUNTS[name].link}/"), link
        assert "//" not in link


@each_mount
def test_the_links_of_a_page_work(name: str, browser: httpx.Client) -> None:
    """Whatever a page loads is there, with its type."""
    page = browser.get(at(name, "/entries")).text
    files = [link for link in links(page) if "/static/" in link]
    assert len(files) >= 3
    for link in files:
        answer = browser.get(link.removeprefix(MOUNTS[name].cut))
        assert answer.status_code == 200, link
        if link.endswith(".css"):
            assert answer.headers["Content-Type"] == "text/css; charset=utf-8"
            assert "color-scheme" in answer.text


@each_mount
def test_a_file_is_sent_once(name: str, browser: httpx.Client) -> None:
    """A browser that has a file is told so."""
    first = browser.get(at(name, "/static/style.css"))
    again = browser.get(
        at(name, "/static/style.css"), headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@each_mount
def test_the_prefix_without_a_slash(name: str, browser: httpx.Client) -> None:
    """The address that people type leads to the first page."""
    answer = browser.get(at(name, "") or "/")
    if answer.is_redirect:
        assert httpx.URL(answer.headers["Location"]).raw_path.decode() in (
            *(f"{MOUNTS[name].link}/", at(name, "/")),
        )
    else:
        assert f'href="{MOUNTS[name].link}/entries"' in answer.text


@each_mount
def test_a_form_is_answered_by_the_next_page(
    name: str, browser: httpx.Client, store: Store
) -> None:
    """A change is made once, under the actor's name, and the redirect has the prefix."""
    answer = browser.post(at(name, "/entry/act"), data=PAUSE, headers=OWN)
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"{MOUNTS[name].link}/entry?name=nightly&done=pause"
    change = store.audit("nightly")[0]
    assert (change.actor, change.action) == ("anna", "pause")


@each_mount
def test_texts_of_every_script_arrive(name: str, browser: httpx.Client, store: Store) -> None:
    """Names and fields are UTF-8 in the address and in a form."""
    store.add("Übung ☂ & ?", "t.x", Every(60))
    form = {"name": "Übung ☂ & ?", "action": "remove"}
    assert "Übung ☂ &amp; ?" in browser.post(at(name, "/entry/act"), data=form, headers=OWN).text
    shown = browser.get(at(name, "/entries"), params={"name": "Übung ☂"}).text
    assert "Übung ☂ &amp; ?" in shown
    assert "nightly" not in shown


@each_mount
def test_cookies_are_kept(name: str, browser: httpx.Client) -> None:
    """The reader's time zone is in a cookie, for the dashboard's own paths."""
    answer = browser.post(at(name, "/zone"), data={"zone": "Asia/Tokyo"}, headers=OWN)
    cookie = answer.headers["Set-Cookie"].strip()
    assert re.match('beatstore_zone="?Asia/Tokyo"?;', cookie)
    assert "HttpOnly" in cookie
    # Without a slash at its end, or it would not be sent to the prefix itself.
    assert re.search(rf"Path={re.escape(MOUNTS[name].link or '/')}(;|$)", cookie)
    page = browser.get(at(name, "/runs"), headers={"Cookie": cookie.partition(";")[0]}).text
    assert 'value="Asia/Tokyo"' in page


@each_mount
def test_other_sites_can_send_no_form(name: str, browser: httpx.Client, store: Store) -> None:
    """The check of the sender holds, also where the framework's own is switched off."""
    for sender in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = browser.post(at(name, "/entry/act"), data=PAUSE, headers=sender)
        assert answer.status_code == 403
        assert "Another site" in answer.text
    assert store.get("nightly").state == "active"


@each_mount
def test_headers_are_there_once(name: str, browser: httpx.Client) -> None:
    """Every answer has the dashboard's headers; the framework adds none of the same name."""
    answers = {"/entries": 200, "/nowhere": 404, "/run?id=x": 400, "/static/style.css": 200}
    for path, status in answers.items():
        answer = browser.get(at(name, path))
        assert answer.status_code == status
        for header in (
            *("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"),
            *("Cross-Origin-Opener-Policy", "Cache-Control", "Content-Type", "Content-Length"),
        ):
            assert len(answer.headers.get_list(header)) == 1, header
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@each_mount
def test_authorize_is_given_the_request_of_the_framework(
    name: str, browser: httpx.Client, rights: Rights
) -> None:
    """It can ask all that a view can: headers, session, user."""
    browser.get(at(name, "/entries"), headers={"X-Team": "etl"})
    module, _, kind = MOUNTS[name].request.partition(":")
    assert rights.given == [(getattr(import_module(module), kind), "etl")]


@each_mount
def test_its_refusal_holds(name: str, browser: httpx.Client, rights: Rights, store: Store) -> None:
    """Whoever is refused sees and changes nothing; who may not write only reads."""
    rights.actor = None
    page = browser.get(at(name, "/entries"))
    assert page.status_code == 403
    assert "nightly" not in page.text
    assert browser.post(at(name, "/entry/act"), data=PAUSE, headers=OWN).status_code == 403
    rights.actor = Actor("bob")
    assert browser.get(at(name, "/entries")).status_code == 200
    assert browser.post(at(name, "/entry/act"), data=PAUSE, headers=OWN).status_code == 403
    assert store.get("nightly").state == "active"


@each_mount
def test_it_may_send_people_to_sign_in(name: str, store: Store) -> None:
    """`authorize` may raise a redirect, with cookies."""

    def authorize(_: Any) -> None:
        answer = redirect("/login")
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "2")
        raise HTTPException(response=answer)

    with mounted(name, Dashboard(store, authorize=authorize)) as browser:
        answer = browser.get(at(name, "/entries"))
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login")
    found = [one.strip().partition(";")[0] for one in answer.headers.get_list("Set-Cookie")]
    assert found == ["a=1", "b=2"]


@each_mount
def test_mounted_pages_only_read(name: str, store: Store) -> None:
    """Without `authorize` nobody can write."""
    with mounted(name, Dashboard(store)) as browser:
        assert browser.get(at(name, "/entries")).status_code == 200
        assert browser.post(at(name, "/entry/act"), data=PAUSE, headers=OWN).status_code == 403
    assert store.get("nightly").state == "active"


@each_mount
def test_a_form_has_a_largest_size(name: str, browser: httpx.Client, store: Store) -> None:
    """Megabytes in a form are refused before they are read."""
    form = {**PAUSE, "reason": "x" * 1_000_000}
    assert browser.post(at(name, "/entry/act"), data=form, headers=OWN).status_code == 413
    assert store.get("nightly").state == "active"


@each_mount
def test_a_form_in_chunks(name: str, browser: httpx.Client, store: Store) -> None:
    """It is read, or refused with the reason; it is never taken for an empty one."""
    request = browser.build_request("POST", at(name, "/entry/act"), data=PAUSE, headers=OWN)
    del request.headers["Content-Length"]
    request.headers["Transfer-Encoding"] = "chunked"
    answer = browser.send(request)
    assert answer.status_code in (303, 411), answer.text
    assert store.get("nightly").state == ("paused" if answer.status_code == 303 else "active")
    assert answer.status_code == 303 or "without its length" in answer.text


@each_mount
def test_odd_paths_lead_nowhere_else(name: str, browser: httpx.Client) -> None:
    """No path makes the dashboard send a reader to another host."""
    for path in ("//evil.example/", "/entries//bulk", "/entries/"):
        answer = browser.get(HOST + at(name, path))
        if answer.is_redirect:
            there = httpx.URL(HOST).join(answer.headers["Location"])
            assert there.host == "testserver"
        else:
            assert answer.status_code == 404


# -- what only one framework has -----------------------------------------------------------


def test_flask_asks_before_each_request(store: Store) -> None:
    """Functions of `before_request`, of the application and the blueprint, come first."""
    pytest.importorskip("flask", reason="of the dependency group `browser`")
    from flask import Flask, Response, abort, g, request

    from beatstore.web.flask import blueprint

    app = Flask("app")
    pages = blueprint(Dashboard(store, authorize=lambda _: Actor(g.user)), name="schedules")

    @app.before_request
    def load_user() -> None:
        g.user = request.headers.get("X-User")
        assert request.form is not None  # whoever reads the form first takes nothing away

    @pages.before_request
    def login_required() -> Response | None:
        return None if g.user else abort(401)

    app.register_blueprint(pages, url_prefix="/beat")
    browser = app.test_client()
    assert browser.get("/beat/entries").status_code == 401
    page = browser.get("/beat/entries", headers={"X-User": "anna"})
    assert "anna" in page.text


def test_a_form_that_flask_has_read(store: Store) -> None:
    """A function of `before_request` may read the form first."""
    pytest.importorskip("flask", reason="of the dependency group `browser`")
    from flask import Flask, request

    from beatstore.web.flask import blueprint

    app = Flask("app")
    writer = Dashboard(store, authorize=lambda _: Actor("anna", can_write=True))
    app.register_blueprint(blueprint(writer), url_prefix="/beat")
    app.before_request(lambda: request.form and None)
    assert app.test_client().post("/beat/entry/act", data=PAUSE).status_code == 303
    assert store.get("nightly").state == "paused"


def test_starlette_leaves_its_scope(store: Store) -> None:
    """`authorize` finds what middleware has put into the scope: the user, the session."""

    def authorize(request: Any) -> Actor:
        return Actor(request.environ["asgi.scope"]["endpoint"].__class__.__name__)

    with mounted("fastapi", Dashboard(store, authorize=authorize)) as browser:
        assert "WSGIMiddleware" in browser.get(at("fastapi", "/entries")).text
