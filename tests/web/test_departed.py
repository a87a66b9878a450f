"""Forms and buttons of an entry that somebody else has renamed or removed meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import Client

from beatstore import Cron, Every, Store
from beatstore.definition import edits
from beatstore.web import Actor, Dashboard
from beatstore.web.pages.actions import ACTIONS
from tests.support.edit_form import Form, opened, said, sent

pytestmark = pytest.mark.quick_on("sqlite")


def test_a_renamed_entry_keeps_what_was_typed(browser: Client, store: Store) -> None:
    """The form says who renamed it and to what, and leads to it; nothing is saved."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    form = opened(browser, "nightly")
    store.by("maria").change("nightly", new_name="load")
    store.by("ben").change("load", new_name="nightly load")
    for save in (False, True):
        response = sent(browser, form, save=save, description="typed before", spec="0 5 * * *")
        assert response.status_code == (400 if save else 200)
        page = said(response)
        assert "'load' was renamed to 'nightly load' at" in page
        assert ", by ben." in page
        assert '<a href="/entry/edit?name=nightly+load">Open it as it is now</a>' in page
        kept = Form(response.text).fields
        assert (kept["description"], kept["spec"]) == ("typed before", "0 5 * * *")
        assert (kept["name"], kept["new_name"]) == ("nightly load", "nightly load")
    # What was typed is still not saved over what is there now, and no name is taken back.
    assert "changed this entry meanwhile" in said(sent(browser, kept))
    assert "Changed: description, schedule." in said(sent(browser, kept, save=False))
    assert store.get("nightly load").version == 3
    named = Form(sent(browser, form, new_name="mine").text).fields
    assert named["new_name"] == "mine"
    response = browser.get("/entry/edit?name=nightly")
    assert (response.status_code, response.location) == (303, "/entry/edit?name=nightly+load")


def test_another_entry_that_has_the_name_now_is_not_overwritten(
    browser: Client, store: Store
) -> None:
    """Though it has the same version as the one that the form showed."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    form = opened(browser, "nightly")
    store.change("nightly", new_name="load")
    other = store.add("nightly", "t.other", Every(60))
    assert str(other.version) == form["version"]
    response = sent(browser, form, description="typed before")
    assert response.status_code == 400
    assert "Another one has its name now" in said(response)
    assert "typed before" in said(response)
    assert store.get("nightly") == other


def test_a_removed_entry_keeps_what_was_typed(browser: Client, store: Store) -> None:
    """The form says who removed it, and can add it anew."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    form = opened(browser, "nightly")
    store.by("maria", "moved").remove("nightly")
    response = sent(browser, form, description="typed before")
    assert response.status_code == 400
    assert ", by maria: 'moved'. Check and save this to add it anew." in said(response)
    kept = Form(response.text).fields
    assert kept["entry_name"] == "nightly"
    assert sent(browser, kept).status_code == 303
    assert store.get("nightly").description == "typed before"
    assert browser.get("/entry/edit?name=nobody").status_code == 404
    assert sent(browser, {**form, "name": "nobody"}).status_code == 404


def test_who_may_not_add_is_told_what_became_of_the_entry(store: Store) -> None:
    """Whoever may only change entries sees who removed it."""
    rights = Actor("eva", True, lambda action, _: action == "change")
    browser = Client(Dashboard(store, authorize=lambda _: rights))
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    form = opened(browser, "nightly")
    store.by("maria").remove("nightly")
    response = sent(browser, form)
    assert response.status_code == 404
    assert ", by maria." in said(response)


def test_an_entry_is_renamed_while_it_is_saved(
    browser: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same if somebody is quicker by a moment; an upstream that is gone is another case."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    form = opened(browser, "nightly")
    check = edits.check

    def renamed(*given: Any) -> Any:
        monkeypatch.undo()
        store.by("maria").change("nightly", new_name="load")
        return check(*given)

    monkeypatch.setattr(edits, "check", renamed)
    response = sent(browser, form, description="typed before")
    assert response.status_code == 400
    assert "'nightly' was renamed to 'load' at" in said(response)
    assert Form(response.text).fields["description"] == "typed before"
    assert "no entry is named 'nobody'" in said(
        sent(browser, opened(browser, "load"), after="nobody")
    )


@pytest.mark.parametrize("action", ACTIONS)
def test_a_button_does_nothing_to_an_entry_that_was_renamed(
    browser: Client, store: Store, action: str
) -> None:
    """It leads to the entry, whose page says so, since that may not be the right one any more."""
    store.add("nightly", "t.x", Every(60), paused=action == "resume")
    store.change("nightly", new_name="load")
    before = store.get("load")
    data = {"name": "nightly", "action": action, "sure": "1"}
    page = browser.post("/entry/act", data=data, follow_redirects=True)
    assert page.request.path == "/entry"
    assert page.request.args["name"] == "load"
    assert "Nothing was done: the entry was renamed meanwhile." in said(page)
    assert (store.get("load"), len(store.runs())) == (before, 0)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_button_of_an_entry_that_was_removed(browser: Client, store: Store, action: str) -> None:
    """The page says who removed it."""
    store.add("nightly", "t.x", Every(60))
    store.by("maria").remove("nightly")
    page = browser.post("/entry/act", data={"name": "nightly", "action": action, "sure": "1"})
    assert page.status_code == 404
    assert "'nightly' was removed at" in said(page)
    assert ", by maria." in said(page)
    assert browser.post("/entry/act", data={"name": "nobody", "action": action}).status_code == 404


def test_a_name_that_another_entry_has_now_is_not_mistaken(browser: Client, store: Store) -> None:
    """The entry is followed, and not the names that it had."""
    store.add("first", "t.x", Every(60))
    store.change("first", new_name="second")
    store.change("second", new_name="third")
    store.add("other", "t.x", Every(60))
    store.change("other", new_name="second")
    assert browser.get("/entry?name=first").location == "/entry?name=third"
    store.by("maria").remove("third")
    page = browser.get("/entry?name=first")
    assert page.status_code == 404
    assert "'third' was removed at" in said(page)
