"""The dashboard in a real browser.

site        a dashboard of the fixture `store`, served by waitress; below a prefix where the
            test is parametrized with one: `parametrize("prefix", ["/ops/beat"], indirect=True)`
new_page    opens a page in a context of its own; takes what `Browser.new_context` takes
page        one page
watch       what may go wrong on any of these pages; it must be nothing when the test ends

What a test reads of a page after a click, it asserts with `expect` of tests/support/browser.py,
which waits for the page that the click leads to.

The database is a file of SQLite unless the test names another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from beatstore import Store
from tests.support.absent import Unavailable, absent
from tests.support.browser import PATIENCE, Watch, open_browser
from tests.support.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Hand out a running browser."""
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(open_browser())
        except Unavailable as reason:
            absent("browser", reason)
        yield browser


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """Name the database; browsers do not see which one it is."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Name the path that the dashboard is mounted at; "" for the root."""
    return str(getattr(request, "param", ""))


@pytest.fixture
def site(store: Store, prefix: str) -> Iterator[Site]:
    """Serve the dashboard."""
    with Site(store, prefix) as served:
        yield served


@pytest.fixture
def watches() -> Iterator[list[Watch]]:
    """Hold every page to what no page may do."""
    made: list[Watch] = []
    yield made
    assert [problem for watch in made for problem in watch.problems] == []


@pytest.fixture
def new_page(chromium: Browser, site: Site, watches: list[Watch]) -> Iterator[Callable[..., Page]]:
    """Open pages; addresses are below the prefix, so that "./entries" is the list."""
    contexts = []

    def new(**options: Any) -> Page:
        context = chromium.new_context(base_url=f"{site.url}/", **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        watches.append(Watch(context, site))
        return context.new_page()

    yield new
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """Hand out a page."""
    return new_page()


@pytest.fixture
def watch(page: Page, watches: list[Watch]) -> Watch:
    """Hand out the watch of the fixture `page`, to say what it shall expect."""
    return watches[0]
