"""What people change in the dashboard, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from beatstore import Cron, Entry, Every
from beatstore.web import Actor
from tests.support.browser import Watch, expect
from tests.support.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_the_first_entry_is_added_from_the_first_page(page: Page, site: Site) -> None:
    """An empty database leads to the form; the form shows what comes of it, and then saves it."""
    page.goto("./")
    page.get_by_role("link", name="Add an entry").click()
    page.get_by_label("Name", exact=True).fill("nightly")
    page.get_by_label("Task").fill("etl.extract")
    page.get_by_label("Timezone").fill("Europe/Berlin")
    page.get_by_label("When").fill("0 3 * * *")
    page.locator("#preview", has_text="every day at 03:00").wait_for()
    assert not site.store.entries()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Added.").wait_for()
    entry = site.store.get("nightly")
    assert (entry.task, entry.spec, entry.timezone) == ("etl.extract", "0 3 * * *", "Europe/Berlin")
    assert site.store.audit("nightly")[0].actor == "anna"


def test_an_edit_shows_the_next_ten_before_it_is_saved(page: Page, site: Site) -> None:
    """Due now stands beside due then; what was typed is still there, and the audit has both."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"))
    page.goto("./entry?name=nightly")
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Reason, for the audit").fill("after the backup")
    page.get_by_label("When").fill("30 4 * * *")
    rows = page.locator("#preview tbody tr")
    expect(rows).to_have_count(10)
    cells = [row.get_by_role("cell").all_inner_texts() for row in rows.all()]
    assert all("03:00" in now and "04:30" in then for now, then in cells)
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Changed.").wait_for()
    difference = page.get_by_role("row").filter(has_text="after the backup")
    expect(difference.locator("del")).to_have_text("0 3 * * *")
    expect(difference.locator("ins")).to_have_text("30 4 * * *")


def test_what_was_typed_outlives_a_refusal(page: Page, site: Site, watch: Watch) -> None:
    """Nobody loses the form since what they have typed so far is refused, or the answer fails."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"), tags=["etl"])

    def allows(_: str, entry: Entry | None) -> bool:
        return entry is not None and "etl" in entry.tags

    site.actor = Actor("eva", can_write=True, allows=allows)
    page.goto("./entry/edit?name=nightly")
    page.get_by_label("Reason, for the audit").fill("more of them")
    page.get_by_label("Tags").fill("et")
    page.locator("#preview", has_text="eva may not change 'nightly'").wait_for()
    page.get_by_label("Tags").fill("etl\nnight")
    page.locator("#preview", has_text="Changed: tags.").wait_for()
    with watch.refused(403):
        site.actor = Actor("rita")
        with page.expect_response("**/entry/edit"):
            page.get_by_label("When").fill("0 5 * * *")
        page.wait_for_timeout(500)
        expect(page.locator("#preview")).to_have_count(1)
    site.actor = Actor("eva", can_write=True, allows=allows)
    page.get_by_label("When").fill("0 6 * * *")
    page.locator("#preview", has_text="every day at 06:00").wait_for()
    expect(page.get_by_label("Reason, for the audit")).to_have_value("more of them")


def test_two_tabs_edit_the_same_entry(page: Page, site: Site, watch: Watch) -> None:
    """The second is told, nothing is overwritten, and what was typed in it is kept."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"))
    second = page.context.new_page()
    for tab in (page, second):
        tab.goto("./entry/edit?name=nightly")
    for tab, spec in ((page, "0 4 * * *"), (second, "0 5 * * *")):
        tab.get_by_label("Description").fill(f"at {spec}")
        tab.get_by_label("When").fill(spec)
        tab.get_by_text("Changed: description, schedule").wait_for()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Changed.").wait_for()
    with watch.refused(400):
        second.get_by_role("button", name="Save").click()
        second.get_by_text("changed this entry meanwhile").wait_for()
    expect(second.get_by_label("Description")).to_have_value("at 0 5 * * *")
    assert site.store.get("nightly").spec == "0 4 * * *"
    second.get_by_role("link", name="Open it as it is now").click()
    expect(second.get_by_label("When")).to_have_value("0 4 * * *")


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("prefix", ["/ops/beat"], indirect=True)
def test_three_entries_are_paused(new_page: Callable[..., Page], site: Site, scripts: bool) -> None:
    """A page asks first and takes a reason; the audit then has it for each, with and without JS."""
    for name in ("a", "b", "c", "d"):
        site.store.add(name, "t.x", Every(60))
    page = new_page(java_script_enabled=scripts)
    page.goto("./entries")
    for name in ("a", "b", "c"):
        page.get_by_label(f"Choose {name}").check()
    page.get_by_role("button", name="Pause…").click()
    page.get_by_role("heading", name="Pause 3 entries?").wait_for()
    assert {entry.state for entry in site.store.entries()} == {"active"}
    page.get_by_label("Reason, for the audit").fill("the disk is full")
    page.get_by_role("button", name="Pause all 3").click()
    page.get_by_text("Paused. 3 times.").wait_for()
    assert [entry.state for entry in site.store.entries()] == ["paused"] * 3 + ["active"]
    page.get_by_role("link", name="Audit").click()
    expect(page.get_by_text("the disk is full")).to_have_count(3)
    assert next(change.reason for change in site.store.audit("b")) == "the disk is full"


def test_an_entry_is_triggered(page: Page, site: Site) -> None:
    """The run is on the entry's page at once, and its own page is one click away."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"))
    page.goto("./entry?name=nightly")
    page.get_by_role("button", name="Run once now").click()
    page.get_by_text("Triggered: beat sends it at its next tick.").wait_for()
    (run,) = site.store.runs("nightly")
    page.get_by_role("table", name="Runs of nightly").get_by_role("link").first.click()
    page.get_by_role("heading", name=f"Run {run.id} of nightly").wait_for()
    expect(page.get_by_text(run.task_id)).to_be_visible()


def test_cancel_asks_first(page: Page, site: Site) -> None:
    """What can't be undone is done after a second press only, and there is a way back."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"))
    page.goto("./entry?name=nightly")
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("heading", name="Cancel nightly?").wait_for()
    page.get_by_role("link", name="Back").click()
    page.get_by_role("heading", name="nightly", exact=True).wait_for()
    assert site.store.get("nightly").state == "active"
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_text("Cancelled.").wait_for()
    assert site.store.get("nightly").state == "cancelled"


def test_a_forged_form_of_a_reader_is_refused(page: Page, site: Site, watch: Watch) -> None:
    """A form that the page did not offer, put together in the browser, changes nothing."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"))
    site.actor = Actor("rita")
    page.goto("./entry?name=nightly")
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    with watch.refused(403):
        page.evaluate(_FORGE, "./entry/act")
        page.get_by_text("rita may not pause 'nightly'").wait_for()
    assert site.store.get("nightly").state == "active"


def test_a_form_of_another_site_is_refused(page: Page, site: Site, watch: Watch) -> None:
    """A page of another origin can't send it, though the browser belongs to somebody who may."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"))
    page.goto("about:blank")
    with watch.refused(403):
        page.evaluate(_FORGE, f"{site.url}/entry/act")
        page.get_by_text("Another site sent this form").wait_for()
    assert site.store.get("nightly").state == "active"


#: Sends a form that pauses an entry.
_FORGE = """address => {
    const form = document.createElement("form");
    form.method = "post";
    form.action = address;
    for (const [name, value] of [["name", "nightly"], ["action", "pause"], ["sure", "1"]]) {
        const input = document.createElement("input");
        input.name = name;
        input.value = value;
        form.append(input);
    }
    document.body.append(form);
    form.submit();
}"""
