"""What holds on every page of the dashboard, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import Watch, expect, violations
from tests.support.busy import fill
from tests.support.site import Site
from tests.support.tour import tour

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Text that leaves a mark if something takes it for markup, for a script or for a template.
MARKUP = "<img src=x onerror=executed=1><b>'\"</b>{{ 6*7 }}"

WIDTH = "document.documentElement.scrollWidth"

#: Words of up to 10 letters and digits that begin on one line and end on another.
BROKEN_WORDS = r"""() => {
  const broken = [], range = document.createRange();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    for (const { 0: word, index } of texts.currentNode.data.matchAll(/\S+/g)) {
      range.setStart(texts.currentNode, index);
      range.setEnd(texts.currentNode, index + word.length);
      const lines = new Set(Array.from(range.getClientRects(), one => Math.round(one.top)));
      if (/^\w{1,10}$/.test(word) && lines.size > 1) broken.push(word);
    }
  }
  return broken;
}"""


@pytest.mark.parametrize("prefix", ["", "/ops/beat"], indirect=True)
def test_every_page_opens(page: Page, site: Site, watch: Watch) -> None:
    """None reports anything or asks another host, at the root and below a prefix."""
    fill(site.store)
    for _ in tour(page, site, watch):
        assert "beatstore" in page.title()


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_every_page_opens_on_postgresql(page: Page, site: Site, watch: Watch) -> None:
    """The same, read from a server."""
    fill(site.store)
    for _ in tour(page, site, watch):
        assert "beatstore" in page.title()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(
    new_page: Callable[..., Page], site: Site, watches: list[Watch], scheme: str
) -> None:
    """axe-core finds no violation of WCAG 2.2 AA, in the light colours and in the dark ones."""
    fill(site.store)
    page = new_page(color_scheme=scheme, bypass_csp=True)
    found = {one: violations(page) for one in tour(page, site, watches[0])}
    assert {one: text for one, text in found.items() if text} == {}


def test_no_page_scrolls_sideways(
    new_page: Callable[..., Page], site: Site, watches: list[Watch]
) -> None:
    """A screen that is 320 px wide shows all in whole words; only tables and pictures scroll."""
    fill(site.store)
    page = new_page(viewport={"width": 320, "height": 640})
    found = {
        one: (page.evaluate(WIDTH), page.evaluate(BROKEN_WORDS))
        for one in tour(page, site, watches[0])
    }
    assert {one: width for one, (width, _) in found.items() if width > 320} == {}
    assert {one: words for one, (_, words) in found.items() if words} == {}


def test_every_page_works_without_scripts(
    new_page: Callable[..., Page], site: Site, watches: list[Watch]
) -> None:
    """Each page, each form and each answer to a form is there where JavaScript is off."""
    fill(site.store)
    page = new_page(java_script_enabled=False)
    for one in tour(page, site, watches[0], scripts=False):
        expect(page.get_by_role("heading", level=1), one).to_be_visible()


def test_markup_is_shown_and_not_executed(page: Page, site: Site, watch: Watch) -> None:
    """Names, tasks, tags, arguments, reasons and errors are text on every page."""
    fill(site.store, MARKUP)
    for one in tour(page, site, watch, mark=MARKUP):
        assert page.evaluate("window.executed") is None, one
        expect(page.locator("img, b"), one).to_have_count(0)
    page.goto("./entries")
    expect(page.get_by_text(f"etl.load{MARKUP}").first).to_be_visible()


def test_a_reader_sees_no_buttons(page: Page, site: Site, watch: Watch) -> None:
    """Whoever may only read is offered nothing that changes anything, on any page."""
    fill(site.store)
    site.actor = type(site.actor)("rita")
    for one in tour(page, site, watch):
        forms = page.locator("form[method=post]")
        offered = [forms.nth(at).get_attribute("action") for at in range(forms.count())]
        assert [one for one in offered if not str(one).endswith("/zone")] == [], one
