"""What is done to several entries at once: what is said of it, and where it leads back to."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import parse_qsl, urlsplit

import pytest
from werkzeug.test import Client

from beatstore import Entry, Every, Store
from beatstore.web import Actor, Dashboard

pytestmark = pytest.mark.quick_on("sqlite")


def test_the_page_says_how_many_were_changed(browser: Client, store: Store) -> None:
    """If one of three is refused, two are done, and the page says both numbers."""
    for name in ("a", "b"):
        store.add(name, "t.x", Every(60))
    form = {"action": "pause", "entry": ["a", "gone", "b"], "sure": "1"}
    response = browser.post("/entries/bulk", data=form)
    assert response.status_code == 409
    assert "Pause: 2 done, 1 refused." in unescape(response.text)


#: What the list of entries was filtered by, and where it went on.
LIST = {"name": "a", "state": "active", "tag": "etl", "source": "api", "after": "a0"}


def hidden(page: str) -> dict[str, str]:
    """Return the hidden fields of a page that tell which list it belongs to."""
    found = re.findall(r'type="hidden" name="(list_\w+)" value="([^"]*)"', page)
    return {name: unescape(value) for name, value in found}


@pytest.mark.parametrize("names", [["a1", "a2"], ["a1", "gone"]])
def test_the_list_is_as_it_was_afterwards(browser: Client, store: Store, names: list[str]) -> None:
    """The filters and the page outlive the question and the change, and are in the way back."""
    for name in ("a0", "a1", "a2"):
        store.add(name, "t.x", Every(60), tags=["etl"])
    page = browser.get("/entries", query_string=LIST).text
    form = {**hidden(page), "action": "pause", "entry": names}
    asked = browser.post("/entries/bulk", data=form).text
    assert hidden(asked) == hidden(page)
    done = browser.post("/entries/bulk", data={**form, **hidden(asked), "sure": "1"})
    (leads,) = re.findall(r'href="(/entries[?][^"]+)"', done.text) or [done.headers["Location"]]
    assert LIST.items() <= dict(parse_qsl(urlsplit(unescape(leads)).query)).items()
    (back,) = re.findall(r'class="button" href="([^"]+)"', asked)
    assert dict(parse_qsl(urlsplit(unescape(back)).query)) == LIST


def test_only_what_is_allowed_is_offered(store: Store) -> None:
    """The list has the boxes and the buttons that `allows` agrees to, and no other."""
    store.add("mine", "t.x", Every(60), tags=["etl"])
    store.add("other", "t.x", Every(60))

    def allows(action: str, entry: Entry | None) -> bool:
        return action in ("pause", "resume") and entry is not None and "etl" in entry.tags

    browser = Client(Dashboard(store, authorize=lambda _: Actor("bob", True, allows)))
    page = browser.get("/entries").text
    assert re.findall(r'name="action" value="(\w+)"', page) == ["pause", "resume"]
    assert re.findall(r'name="entry" value="(\w+)"', page) == ["mine"]
    assert "Add an entry" not in page
    assert "/entries/bulk" not in browser.get("/entries?name=other").text


def test_a_command_takes_any_name(browser: Client, store: Store) -> None:
    """What the page of an entry says to type is one word for the shell."""
    store.add("it's mine", "t.x", Every(60))
    page = unescape(browser.get("/entry", query_string={"name": "it's mine"}).text)
    assert """beatstore trigger 'it'"'"'s mine'""" in page


@pytest.mark.parametrize("root", ["", "/ops/beat"])
@pytest.mark.parametrize(
    ("on", "leads"),
    [
        ("/entries?name=a", "/entries?name=a"),
        ("/", "/"),
        ("/entries/bulk", "/"),
        ("/entry/act", "/"),
        ("/run/act", "/"),
        ("/zone", "/"),
        ("/nowhere", "/"),
    ],
)
def test_the_zone_is_chosen_on_any_page(browser: Client, root: str, on: str, leads: str) -> None:
    """The page of a question or an error has the address of a form, where nothing can be read."""
    headers = {"Referer": f"http://localhost{root}{on}"}
    environ = {"SCRIPT_NAME": root}
    chosen = {"zone": "Asia/Tokyo"}
    response = browser.post("/zone", data=chosen, headers=headers, environ_overrides=environ)
    assert response.headers["Location"] == root + leads
    path = response.headers["Location"].removeprefix(root)
    assert browser.get(path, environ_overrides=environ).status_code == 200
