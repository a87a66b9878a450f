"""Nobody changes anything without being allowed to, and no other site can make them do it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from werkzeug.test import Client

from beatstore import Entry, Every, Store
from beatstore.web import Actor, Dashboard

pytestmark = pytest.mark.quick_on("sqlite")

ACTIONS = ["pause", "resume", "trigger", "cancel", "remove"]


def act(browser: Client, action: str, **headers: str) -> int:
    """Send a form, and return the status."""
    data = {"name": "nightly", "action": action, "sure": "1"}
    return browser.post("/entry/act", data=data, headers=headers).status_code


def state(store: Store) -> str:
    return store.get("nightly").state


@pytest.fixture(autouse=True)
def nightly(store: Store) -> None:
    store.add("nightly", "t.x", Every(60), tags=["etl"])


@pytest.mark.parametrize("action", ACTIONS)
def test_mounted_pages_only_read(store: Store, action: str) -> None:
    """Without `authorize` everybody can read and nobody can write."""
    browser = Client(Dashboard(store))
    assert browser.get("/entry?name=nightly").status_code == 200
    assert act(browser, action) == 403
    assert state(store) == "active"
    assert not store.runs("nightly")


@pytest.mark.parametrize("action", ["pause", "tag"])
def test_several_entries_ask_for_each(store: Store, action: str) -> None:
    """Whoever can only read is refused before and after the page that asks."""
    browser = Client(Dashboard(store, authorize=lambda _: Actor("bob")))
    data = {"entry": "nightly", "action": action, "tags": "x"}
    assert browser.post("/entries/bulk", data=data).status_code == 403
    assert browser.post("/entries/bulk", data={**data, "sure": "1"}).status_code == 403
    assert store.get("nightly").version == 1


def test_buttons_are_hidden_from_readers(store: Store) -> None:
    """What somebody may not do is not offered."""
    reader = Client(Dashboard(store)).get("/entry?name=nightly").text
    assert "/entry/act" not in reader
    assert "/entry/edit" not in reader


def test_nobody_sees_what_is_refused(store: Store) -> None:
    """`authorize` returns None: no page at all."""
    browser = Client(Dashboard(store, authorize=lambda _: None))
    response = browser.get("/entry?name=nightly")
    assert response.status_code == 403
    assert "t.x" not in response.text


def test_rights_may_depend_on_the_entry(store: Store) -> None:
    """`allows` is asked with the action and the entry with its tags, at every change."""
    store.add("other", "t.x", Every(60))

    def allows(action: str, entry: Entry | None) -> bool:
        return action == "pause" and entry is not None and "etl" in entry.tags

    browser = Client(Dashboard(store, authorize=lambda _: Actor("eva", True, allows)))
    assert act(browser, "trigger") == 403
    assert act(browser, "pause") == 303
    assert state(store) == "paused"
    both = {"entry": ["nightly", "other"], "action": "pause", "sure": "1"}
    browser.post("/entries/bulk", data=both)
    assert store.get("other").state == "active"


@pytest.mark.parametrize("sure", [{}, {"sure": "1"}])
def test_several_entries_change_together_or_not_at_all(store: Store, sure: dict[str, str]) -> None:
    """If one of them may not be changed, none is, and nobody is asked about it first."""
    store.add("other", "t.x", Every(60))
    rights = Actor("eva", True, lambda _, entry: entry is None or entry.name == "nightly")
    browser = Client(Dashboard(store, authorize=lambda _: rights))
    chosen = {"entry": ["nightly", "other"], "action": "pause", **sure}
    assert browser.post("/entries/bulk", data=chosen).status_code == 403
    assert store.get("nightly").state == "active"
    gone = {"entry": ["nightly", "gone"], "action": "pause", "sure": "1"}
    response = browser.post("/entries/bulk", data=gone)
    assert (response.status_code, "gone" in response.text) == (409, True)
    assert store.get("nightly").state == "paused"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://localhost"}, 303),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "https://admin.example.org", "Sec-Fetch-Site": "cross-site"}, 303),
        ({}, 303),
    ],
)
def test_other_sites_can_send_no_form(store: Store, headers: dict[str, str], status: int) -> None:
    """What the browser says of the sender decides; a client that says nothing is no browser."""
    dashboard = Dashboard(
        store,
        authorize=lambda _: Actor("anna", can_write=True),
        trusted_origins=["https://admin.example.org"],
    )
    assert act(Client(dashboard), "pause", **headers) == status
    assert state(store) == ("paused" if status == 303 else "active")


@pytest.mark.parametrize("path", ["/", "/entries", "/entry?name=nightly", "/nowhere"])
def test_every_page_has_its_headers(browser: Client, path: str) -> None:
    """A strict policy without `unsafe-*`, a nonce of its own, and nothing is kept."""
    first, second = browser.get(path), browser.get(path)
    policy = first.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert policy != second.headers["Content-Security-Policy"]
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert first.headers["Referrer-Policy"] == "same-origin"
    assert first.headers["Cache-Control"] == "no-store"


def test_no_page_asks_another_host(browser: Client) -> None:
    """Scripts, styles and pictures are the dashboard's own."""
    page = browser.get("/").text
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_a_change_is_a_form(store: Store, browser: Client, method: str) -> None:
    """A link, which anything may follow, changes nothing."""
    ask: Callable[..., object] = getattr(browser, method)
    response = ask("/entry/act?name=nightly&action=pause")
    assert response.status_code == 405  # type: ignore[attr-defined]
    assert state(store) == "active"


def test_what_cannot_be_undone_is_asked_first(store: Store, browser: Client) -> None:
    """Removing, cancelling and what is done to several entries has a page in between."""
    for path, data in (
        ("/entry/act", {"name": "nightly", "action": "remove"}),
        ("/entry/act", {"name": "nightly", "action": "cancel"}),
        ("/entries/bulk", {"entry": "nightly", "action": "pause"}),
    ):
        response = browser.post(path, data=data)
        assert response.status_code == 200
        assert "Reason" in response.text
    assert state(store) == "active"


def test_a_change_names_who_made_it_and_why(store: Store, browser: Client) -> None:
    """The audit gets the actor and the reason of the form."""
    data = {"entry": "nightly", "action": "pause", "sure": "1", "reason": "maintenance"}
    assert browser.post("/entries/bulk", data=data).status_code == 303
    change = store.audit("nightly")[0]
    assert (change.actor, change.action, change.reason) == ("anna", "pause", "maintenance")


def test_a_fault_is_logged_and_not_shown(
    store: Store, browser: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The page of an error that nobody foresaw holds nothing of it; the log has the traceback."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(Store, "status", fail)
    response = browser.get("/")
    assert response.status_code == 500
    assert "hunter2" not in response.text
    assert "hunter2" in caplog.text
