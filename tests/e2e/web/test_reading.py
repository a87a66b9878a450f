"""How people find their way in the dashboard, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import pytest

from beatstore import After, Cron, Every
from beatstore.errors import UnavailableError
from beatstore.models import RunModel
from tests.support.browser import Watch, expect
from tests.support.busy import EXTRACT, LOAD, fill
from tests.support.site import Site
from tests.support.written import HOUR, MINUTE, run, write

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

#: What has the focus, in a word or two.
FOCUSED = """() => {
    const one = document.activeElement;
    return one.innerText || one.name || one.id || one.tagName;
}"""


def names(page: Page) -> Locator:
    """Find the names in the list of entries."""
    return page.get_by_role("rowheader").get_by_role("link")


@pytest.mark.parametrize("prefix", ["/ops/beat"], indirect=True)
def test_filters_and_pages_and_the_way_back(page: Page, site: Site) -> None:
    """120 entries are paged through by links, with the filter, and the back button goes back."""
    for number in range(120):
        site.store.add(f"etl.{number:03}", "t.x", Every(60), tags=["even"][number % 2 :])
    site.store.add("mail", "t.x", Every(60), tags=["even"])
    page.goto("./entries")
    page.get_by_label("Name contains").fill("etl")
    page.get_by_label("Tag", exact=True).fill("even")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/entries?*name=etl*")
    even = [f"etl.{number:03}" for number in range(0, 120, 2)]
    expect(names(page)).to_have_text(even[:50])
    page.get_by_role("link", name="Next page").click()
    page.wait_for_url("**/entries?*after=*")
    expect(names(page)).to_have_text(even[50:])
    expect(page.get_by_role("link", name="Next page")).to_have_count(0)
    page.go_back()
    expect(names(page)).to_have_text(even[:50])
    expect(page.get_by_label("Tag", exact=True)).to_have_value("even")
    page.reload()
    expect(names(page)).to_have_text(even[:50])


def test_what_happened_at_an_instant(page: Page, site: Site) -> None:
    """A time that is typed on the entry's page is explained there; what is no time says so."""
    entry = site.store.add("nightly", "etl.extract", Every(3600))
    at = site.store.now().replace(minute=0, second=0, microsecond=0) - HOUR
    write(site.store, RunModel, run(entry, at, state="failed", error="no disk", finished_at=at))
    page.goto("./entry?name=nightly")
    page.get_by_label("What happened at").fill(f"{at:%Y-%m-%d %H:%M}")
    page.get_by_role("button", name="Explain").click()
    page.locator("strong", has_text="failed").wait_for()
    expect(page.get_by_label("What happened at")).to_have_value(f"{at:%Y-%m-%d %H:%M}")
    page.get_by_label("What happened at").fill("at noon")
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("write 03:00").wait_for()


def test_a_box_of_the_graph_leads_to_its_entry(page: Page, site: Site) -> None:
    """The picture is made of links, and stands below as a table too."""
    fill(site.store)
    page.goto("./graph")
    page.locator("svg").get_by_role("link").filter(has_text=LOAD).click()
    page.get_by_role("heading", name=LOAD, exact=True).wait_for()
    page.go_back()
    page.get_by_text("The same as a table").click()
    page.get_by_role("table", name="Edges").get_by_role("link", name=EXTRACT).first.click()
    page.get_by_role("heading", name=EXTRACT, exact=True).wait_for()


def test_the_keyboard_is_enough(page: Page, site: Site) -> None:
    """The first stop skips the menu, every stop is seen, and a form is sent without a mouse."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"))
    page.goto("./entry?name=nightly")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    assert page.evaluate(FOCUSED) == "Skip to the content"
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    stops = []
    while (stop := page.evaluate(FOCUSED)) != "Explain":
        stops.append(stop)
        assert page.evaluate(_IS_SEEN), stop
        page.keyboard.press("Tab")
    assert stops == ["Pause", "Run once now", "Edit", "Cancel…", "Remove…", "at"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("9998-01-01 03:00")
    page.keyboard.press("Enter")
    page.get_by_text("future").wait_for()


#: Whether what has the focus has an outline around it, or one of its own.
_IS_SEEN = """() => {
    const style = getComputedStyle(document.activeElement);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
}"""


def test_nothing_moves_where_motion_is_unwanted(new_page: Callable[..., Page], site: Site) -> None:
    """No transition and no animation lasts, on an element of any page."""
    fill(site.store)
    for wanted, moves in (("reduce", False), ("no-preference", True)):
        page = new_page(reduced_motion=wanted)
        page.goto("./entries")
        assert page.evaluate(_MOVES) is moves


_MOVES = """() => [...document.querySelectorAll("*")].some(one => {
    const style = getComputedStyle(one);
    return [style.transitionDuration, style.animationDuration].some(
        lasts => lasts.split(",").some(each => parseFloat(each) > 0));
})"""


def test_dark_colours_follow_the_system(new_page: Callable[..., Page], site: Site) -> None:
    """There is no switch to find or to lose: the page is dark where the system is."""
    lights = []
    for scheme in ("light", "dark"):
        page = new_page(color_scheme=scheme)
        page.goto("./")
        lights.append(page.evaluate(_LIGHT))
    assert lights[0] > 240
    assert lights[1] < 40


#: How light the page is, from 0 to 255.
_LIGHT = """() => Math.max(...getComputedStyle(document.documentElement).backgroundColor
    .match(/[0-9]+/g).slice(0, 3).map(Number))"""


def test_the_first_page_keeps_itself_up_to_date(page: Page, site: Site) -> None:
    """After half a minute it shows what is new, and what had the focus still has it."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"))
    page.clock.install()
    page.goto("./")
    link = page.get_by_role("link", name="All beats and workers")
    link.focus()
    figure = page.get_by_role("region", name="Entries").locator(".figure")
    expect(figure).to_have_text("1")
    site.store.add("other", "etl.extract", Every(60))
    page.clock.run_for(31_000)
    expect(figure).to_have_text("2")
    assert page.evaluate(FOCUSED) == "All beats and workers"
    site.store.add("third", "etl.extract", Every(60))
    page.clock.run_for(31_000)
    expect(figure).to_have_text("3")
    assert page.evaluate(FOCUSED) == "All beats and workers"


@pytest.mark.parametrize("path", ["./", "./graph"])
def test_a_page_comes_back_after_an_outage(
    page: Page, site: Site, watch: Watch, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A page that renews itself says that the database is away, tries on, and is as before."""
    site.store.add("a", "t.x", Every(60))
    site.store.add("b", "t.x", after=["a"])
    page.clock.install()
    page.goto(path)
    heading = page.get_by_role("heading", level=1)
    before = heading.inner_text()
    with monkeypatch.context() as outage:
        outage.setattr(site.store, "reading", _no_answer)
        for _ in range(2):
            with watch.refused(503), page.expect_response(lambda answer: answer.status == 503):
                page.clock.run_for(31_000)
            expect(heading).to_have_text("The database can't be read")
            page.get_by_text("tries again every 30 seconds").wait_for()
    page.clock.run_for(31_000)
    expect(heading).to_have_text(before)
    site.store.add("c", "t.x", after=["a"])
    page.clock.run_for(31_000)
    new = "c: active" if "graph" in path else "3 active"
    expect(page.get_by_role("link", name=new, exact=True)).to_be_visible()


def _no_answer(timeout: float) -> NoReturn:
    raise UnavailableError("postgresql://: nobody answers")


def test_a_long_error_hides_no_count(page: Page, site: Site) -> None:
    """An error and a name without a blank are broken, so that what stands beside them is seen."""
    entry, now = site.store.add("n" * 255, "t.x", Every(60)), site.store.now()
    write(site.store, RunModel, run(entry, now - MINUTE, state="failed", error="e" * 500))
    page.goto("./")
    table = page.get_by_role("table", name="Failures by error").locator("..")
    assert table.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_whoever_was_signed_out_is_asked_to_sign_in(page: Page, site: Site) -> None:
    """A page that would renew itself leads to the page that asks; it does not become empty."""
    site.store.add("a", "t.x", Every(60))
    page.clock.install()
    page.goto("./")
    site.signed_out = True
    page.clock.run_for(31_000)
    page.wait_for_url(site.sign_in)
    site.signed_out = False
    page.goto("./entry/edit?name=a")
    page.get_by_label("When").fill("5m")
    save = page.get_by_role("button", name="Save")
    page.clock.run_for(1_000)
    expect(save).to_be_visible()
    site.signed_out = True
    page.get_by_label("Description").fill("typed meanwhile")
    with page.expect_response(lambda answer: answer.status == 302):
        page.clock.run_for(1_000)
    expect(save).to_be_visible()
    expect(page.get_by_label("Description")).to_have_value("typed meanwhile")


def test_a_picture_that_is_renewed_keeps_what_was_opened_and_typed(page: Page, site: Site) -> None:
    """The table below the graph stays open, and a half-written name stays written."""
    site.store.add("a", "t.x", Every(60))
    site.store.add("b", "t.x", Every(60), after=[After("a")])
    page.clock.install()
    page.goto("./graph")
    page.get_by_text("The same as a table").click()
    page.get_by_label("Around the entry").fill("hal")
    site.store.pause("b")
    page.clock.run_for(31_000)
    page.locator(".node.paused").wait_for()
    expect(page.get_by_role("table", name="Edges")).to_be_visible()
    expect(page.get_by_label("Around the entry")).to_have_value("hal")
    assert page.evaluate(FOCUSED) == "name"


@pytest.mark.parametrize("prefix", ["/ops/beat"], indirect=True)
def test_the_zone_of_the_reader_changes_all_times(page: Page, site: Site) -> None:
    """It is set once, on any page, which opens again; beside it stands the entry's own time."""
    site.store.add("nightly", "etl.extract", Cron("0 3 * * *"), timezone="Europe/Berlin")
    page.goto("./entry?name=nightly")
    page.get_by_label("Times in").fill("Asia/Tokyo")
    page.get_by_role("button", name="Set", exact=True).click()
    in_tokyo = re.compile(r"1[01]:00$")  # as Berlin has summer time or not
    due = page.get_by_role("region", name="Next due").locator("time").first
    expect(due).to_have_text(in_tokyo)
    expect(page.get_by_text("03:00 in Europe/Berlin")).to_have_count(10)
    page.goto("./entries")
    expect(page.get_by_label("Times in")).to_have_value("Asia/Tokyo")
    expect(page.locator("time").first).to_have_text(in_tokyo)
