"""A visit to every page of the dashboard, for what must hold on each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from beatstore.web.dashboard import PAGES
from tests.support.browser import Watch
from tests.support.busy import EXTRACT, LOAD, MAIL
from tests.support.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["tour"]


def tour(
    page: Page, site: Site, watch: Watch, *, mark: str = "", scripts: bool = True
) -> Iterator[str]:
    """Open every page of a dashboard that `busy.fill` has filled.

    Args:
        page: opens them, one after the other.
        site: the dashboard.
        watch: of the page.
        mark: what `fill` was given.
        scripts: whether the page's scripts run.

    Yields:
        What is open now, for the message of a failed assertion.
    """
    for address in _addresses(site, mark):
        page.goto(f"./{address}")
        yield f"./{address}"
    yield from _errors(page, watch)
    if site.actor.can_write:
        yield from _forms(page, site, watch, mark, scripts)


def _addresses(site: Site, mark: str) -> list[str]:
    """Return the addresses of all pages that can be asked for, some with parameters."""
    extract, load = quote(EXTRACT + mark, safe=""), quote(LOAD + mark, safe="")
    runs = site.store.runs(EXTRACT + mark, limit=1000)
    failed = next(run.id for run in runs if run.state == "failed")
    answered = {
        "today": ["."],
        "entries": ["entries", "entries?only=failing", "entries?name=nobody"],
        "add": ["entries/add"],
        "entry": [
            *(f"entry?name={name}" for name in (extract, load, f"sunset{quote(mark, safe='')}")),
            f"entry?name={extract}&at=03:00",
            f"entry?name={extract}&at=noon",
        ],
        "edit": [f"entry/edit?name={extract}"],
        "run": [f"run?id={failed}"],
        "runs": ["runs", f"runs?name={extract}&state=failed"],
        "upcoming": ["upcoming", "upcoming?tag=etl"],
        "graph": ["graph", f"graph?name={extract}"],
        "audit": ["audit", f"audit?name={extract}"],
        "processes": ["processes"],
        "storage": ["database"],
    }
    if not site.actor.can_write:
        del answered["add"], answered["edit"]
    pages = {name for name, (_, _, methods) in PAGES.items() if "GET" in methods}
    assert {*answered} >= pages - {"static", "add", "edit"}, "a page is missing on the tour"
    return [address for addresses in answered.values() for address in addresses]


def _errors(page: Page, watch: Watch) -> Iterator[str]:
    with watch.refused(404):
        page.goto("./nowhere")
    yield "the page of what is not there"
    with watch.refused(400):
        page.goto("./run?id=x")
    yield "the page of what can't be done"


def _forms(page: Page, site: Site, watch: Watch, mark: str, scripts: bool) -> Iterator[str]:
    """Go through the pages that answer a form."""
    page.goto(f"./entry?name={quote(MAIL + mark, safe='')}")
    page.get_by_role("button", name="Remove…").click()
    page.get_by_role("heading", name="Remove").wait_for()
    yield "the question before an entry is removed"
    page.goto(f"./entry/edit?name={quote(EXTRACT + mark, safe='')}")
    yield from _checked(page, "15 4 * * mon-fri", "What comes of it", scripts)
    yield from _checked(page, "0 25 * * *", "25", scripts)
    site.store.add("gone", "t.x", 60)
    page.goto("./entries?name=g")
    page.get_by_label("Choose gone").check()
    page.get_by_role("button", name="Pause…").click()
    page.get_by_role("heading", name="Pause").wait_for()
    yield "the question before entries are paused"
    site.store.remove("gone")
    with watch.refused(409):
        page.get_by_role("button", name="Pause").click()
        page.get_by_text("1 refused").wait_for()
    yield "the list of what could not be paused"


def _checked(page: Page, spec: str, answer: str, scripts: bool) -> Iterator[str]:
    """Write a schedule into the form, and look at what is said of it."""
    page.get_by_label("When").fill(spec)
    if not scripts:
        page.get_by_role("button", name="Check").click()
    page.locator("#preview", has_text=answer).wait_for()
    yield f"what comes of {spec}"
