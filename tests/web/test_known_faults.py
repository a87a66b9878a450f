"""What the pages of other schedulers and queues have got wrong, as their users report.

That a reader can change nothing, that several entries are not changed without a question, that a
form can't be sent from another site: `test_safety.py`. That a time is read as it is meant, that two
tabs do not overwrite each other: `test_edit.py`. Contrast, and what is live: `tests/e2e/web`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from werkzeug.test import Client

from beatstore import Cron, Declared, Every, Store
from beatstore.models import RunModel
from beatstore.web import Dashboard
from tests.support.busy import EXTRACT, fill
from tests.support.written import run, write

pytestmark = pytest.mark.quick_on("sqlite")

PAGES = ["/", "/entries", f"/entry?name={EXTRACT}", "/runs", "/upcoming", "/graph", "/audit"]

BIG = 9007199254740993


class Elements(HTMLParser):
    """The elements of a page, each with its attributes and the text in it."""

    _EMPTY = frozenset(("input", "link", "meta", "br", "rect", "path", "line", "circle"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        one = (tag, {name: value or "" for name, value in attrs}, list[str]())
        self.all.append(one)
        if tag not in self._EMPTY:
            self._open.append(one)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for _, _, text in self._open:
            text.append(data)


def elements(browser: Client, path: str, *tags: str) -> list[tuple[dict[str, str], str]]:
    """Return the attributes and the text of each element of a page with one of these tags."""
    response = browser.get(path)
    assert response.status_code == 200, unescape(response.text)
    found = Elements(response.text).all
    return [(given, "".join(text)) for tag, given, text in found if tag in tags]


@contextmanager
def quick(seconds: float) -> Iterator[None]:
    """Fail if what is done takes this process longer than that."""
    began = time.process_time()
    yield
    took = time.process_time() - began
    assert took < seconds, f"it took {took:.2f} s"


@pytest.mark.parametrize("path", ["/entry?name=a", "/run?id=1", "/entry/edit?name=a", "/audit"])
def test_large_whole_numbers_are_not_rounded(browser: Client, store: Store, path: str) -> None:
    """An id above 2**53 in an argument is shown digit by digit."""
    store.add("a", "t.x", Every(60), args=[BIG], kwargs={"id": BIG * 10**6 + 1})
    store.trigger("a")
    number = store.runs("a")[0].id
    page = unescape(browser.get(path.replace("id=1", f"id={number}")).text)
    assert str(BIG) in page
    assert str(BIG * 10**6 + 1) in page


@pytest.mark.parametrize("root", ["", "/", "/ops", "/ops/", "/ops/beat"])
def test_no_link_has_two_slashes(store: Store, root: str) -> None:
    """Whatever prefix the dashboard is mounted at, and however that is written."""
    fill(store)
    browser = Client(Dashboard(store))
    for path in PAGES:
        response = browser.get(path, environ_overrides={"SCRIPT_NAME": root.rstrip("/")})
        found = Elements(response.text).all
        links = [
            given[name]
            for _, given, _ in found
            for name in ("href", "src", "action", "hx-get", "hx-post")
            if given.get(name, "#")[0] != "#"
        ]
        assert links
        for link in links:
            assert "//" not in urlsplit(link).path, link
            assert link.startswith(f"{root.rstrip('/')}/"), link


@pytest.mark.parametrize("accept", ["*/*", "application/json", "image/png", ""])
def test_whatever_a_client_accepts_gets_the_page(browser: Client, accept: str) -> None:
    """Link checkers, probes and proxies that ask for anything get HTML."""
    response = browser.get("/", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.mimetype == "text/html"


@pytest.mark.parametrize("path", ["/entries?name=a&tag=b", f"/runs?name={EXTRACT}&since=03:00"])
def test_filters_are_in_the_address_and_nowhere_else(
    browser: Client, store: Store, path: str
) -> None:
    """The form sends them itself, so that a slow answer to an earlier one changes no later one."""
    fill(store)
    (form,) = [given for given, _ in elements(browser, path, "form") if given.get("role")]
    assert form["method"] == "get"
    assert not [name for name in form if name.startswith("hx-")]
    inputs = elements(browser, path, "input")
    fields = {given["name"]: given.get("value") for given, _ in inputs if "name" in given}
    for name, value in parse_qsl(urlsplit(path).query):
        assert fields[name] == value


def test_the_next_page_keeps_the_filters(browser: Client, store: Store) -> None:
    """The link has all of them, and where the page goes on."""
    for number in range(60):
        store.add(f"etl.{number}", "t.x", Every(60), tags=["a"])
    links = elements(browser, "/entries?name=etl&tag=a&state=active", "a")
    (link,) = [given["href"] for given, text in links if text == "Next page"]
    kept = dict(parse_qsl(urlsplit(link).query))
    assert kept.pop("after")
    assert kept == {"name": "etl", "tag": "a", "state": "active"}


def test_everything_typed_outlives_a_failed_save(browser: Client, store: Store) -> None:
    """One wrong field costs nothing of what stands in the others."""
    store.add("up", "t.x", Every(60))
    typed = {
        "entry_name": "nightly",
        "task": "etl.extract",
        "kind": "every",
        "spec": "soon",
        "timezone": "Europe/Berlin",
        "kwargs": '{"day": 1}',
        "tags": "etl\nnight",
        "after": "up:on=done",
        "misfire": "skip",
        "overlap": "wait",
        "description": "Reads <all> of it",
        "reason": "as agreed",
    }
    response = browser.post("/entries/add", data={**typed, "save": "1"})
    assert response.status_code == 400
    kept: dict[str, str] = {}
    name = ""
    for tag, given, text in Elements(response.text).all:
        name = given.get("name", name)
        if tag == "input" and "value" in given:
            kept[name] = given["value"]
        elif tag == "textarea":
            kept[name] = "".join(text)
        elif tag == "option" and "selected" in given:
            kept[name] = given["value"]
    assert {name: kept.get(name) for name in typed} == typed


def test_runs_of_one_instant_are_not_lost_between_pages(browser: Client, store: Store) -> None:
    """A hundred and twenty runs with the same due time are on three pages, each of them once."""
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    entries = [store.add(f"e{number}", "t.x", Every(60)) for number in range(120)]
    write(store, RunModel, *(run(entry, at) for entry in entries))
    seen: list[str] = []
    path: str | None = "/runs"
    while path:
        links = elements(browser, path, "a")
        seen += [text for given, text in links if given["href"].startswith("/entry?name=e")]
        path = next((given["href"] for given, text in links if text == "Next page"), None)
    assert sorted(seen) == sorted(entry.name for entry in entries)


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_a_button_says_what_it_does_and_toggles_nothing(
    browser: Client, store: Store, action: str
) -> None:
    """Two people who press the same button on two old pages get what both of them wanted."""
    store.add("a", "t.x", Every(60), paused=action == "resume")
    for _ in range(2):
        response = browser.post("/entry/act", data={"name": "a", "action": action})
        assert response.status_code == 303
    assert store.get("a").state == {"pause": "paused", "resume": "active"}[action]


@pytest.mark.parametrize(
    "spec",
    [
        "0-4000000000 * * * *",
        "*/1 0-99999999 * * *",
        "0 0 1-999999999 * *",
        ",".join(map(str, range(60))) + " * * * *",
        ",".join(["0-59"] * 10_000) + " * * * *",
        "* * * * * 0-59",
    ],
)
def test_a_cron_of_absurd_ranges_is_answered_at_once(browser: Client, spec: str) -> None:
    """It is described, or refused, without being written out."""
    form = {"entry_name": "a", "task": "t.x", "kind": "cron", "spec": spec}
    with quick(1.5):
        response = browser.post("/entries/add", data=form)
    assert response.status_code == 200
    assert len(response.data) < 200_000


def test_no_clipboard_is_needed(browser: Client) -> None:
    """Commands are text that is selected; browsers have a clipboard for scripts on HTTPS only."""
    for one in files("beatstore.web").joinpath("static").iterdir():
        assert b"clipboard" not in one.read_bytes()
    commands = [text for _, text in elements(browser, "/entries", "code")]
    assert any(text.startswith("beatstore add") for text in commands)


@pytest.mark.parametrize("path", PAGES)
def test_what_a_hint_says_stands_there_too(browser: Client, store: Store, path: str) -> None:
    """Touch screens and keyboards show no hint: each is on something that has a text of its own."""
    fill(store)
    hints = [(given, text) for given, text in elements(browser, path, "span", "li", "time", "a")]
    for given, text in hints:
        if "title" in given:
            assert text.strip(), given


def test_what_differs_from_the_code_is_a_text(browser: Client, store: Store) -> None:
    """The page of an edited entry names the fields, not only a hint on the word `edited`."""
    store.sync([Declared("nightly", "t.x", Cron("0 3 * * *"))], source="app")
    store.change("nightly", schedule=Cron("0 4 * * *"), description="Later")
    page = browser.get("/entry?name=nightly").text
    said = "".join(Elements(page.partition("<main")[2]).all[0][2]) or page
    assert "differs from its code in" in said
    assert "description" in said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.25, "0.25 s"), (59, "59 s"), (5400, "1 h 30 min"), (200_000, "2 d 7 h")],
)
def test_durations_are_not_in_seconds_only(
    browser: Client, store: Store, seconds: float, said: str
) -> None:
    """What takes an hour and a half is told in hours and minutes, wherever it is told."""
    entry = store.add("a", "t.x", Every(60))
    due = store.now() - timedelta(days=5)
    end = due + timedelta(seconds=seconds)
    columns: dict[str, Any] = {"sent_at": due, "started_at": due, "finished_at": end}
    write(store, RunModel, run(entry, due, state="succeeded", **columns))
    number = store.runs("a")[0].id
    for path in ("/entry?name=a", f"/run?id={number}", "/runs"):
        page = browser.get(path).text
        assert said in page
        assert f"{seconds:g} s" in said or f"{seconds:.3g} s" not in page


def test_eight_thousand_runs_take_no_time(browser: Client, store: Store) -> None:
    """Pages show the newest and count the rest by the day, however many there are."""
    entry = store.add("a", "t.x", Every(60))
    now = store.now()
    write(
        store,
        RunModel,
        *(
            run(entry, now - timedelta(minutes=number), state="failed", error=f"no disk {number}")
            for number in range(1, 8001)
        ),
    )
    for path in ("/entry?name=a", "/entries", "/runs", "/", "/upcoming"):
        browser.get(path)
        with quick(2.0):
            response = browser.get(path)
        assert response.status_code == 200
        assert len(response.data) < 200_000, path
