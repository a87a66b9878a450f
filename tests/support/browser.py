"""A real browser, and what it must not find on any page of the dashboard.

The browser is Chromium or Chrome: the program that `BEATSTORE_TEST_BROWSER` names, one on the
PATH, or the one that `playwright install chromium` has put into its place.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.absent import Unavailable
from tests.support.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page
    from playwright.sync_api._generated import LocatorAssertions

__all__ = ["PATIENCE", "Watch", "expect", "open_browser", "violations"]

#: Milliseconds after which something that does not appear is missing, on a busy machine too.
PATIENCE = 30_000

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

#: Tells the test about everything that the policy of a page has forbidden.
_REPORT = """
addEventListener("securitypolicyviolation", event => window.reportViolation(
    `${event.violatedDirective} forbids ${event.blockedURI || "inline"} ${event.sample}`));
"""

#: What axe looks at. Its rule about the size of targets, new in WCAG 2.2, has to be asked for.
_AXE: dict[str, Any] = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    },
    "rules": {"target-size": {"enabled": True}},
    "resultTypes": ["violations"],
}


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the browser.

    Raises:
        Unavailable: there is none, or it does not start.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise Unavailable(f"{error}; pip install playwright") from error
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=_program(playwright.chromium.executable_path),
                args=["--no-sandbox"] if os.geteuid() == 0 else [],
            )
        except Error as error:
            raise Unavailable(error) from error
        yield browser
        browser.close()


def _program(of_playwright: str) -> str:
    named = os.environ.get("BEATSTORE_TEST_BROWSER")
    found = [named] if named else [*map(shutil.which, _PROGRAMS), of_playwright]
    for program in found:
        if program and Path(program).exists():
            return program
    raise Unavailable(
        "no Chromium; install one, name it in BEATSTORE_TEST_BROWSER, "
        "or run `playwright install chromium`"
    )


def expect(what: Locator, message: str | None = None) -> LocatorAssertions:
    """Return Playwright's assertions about a part of a page, which wait until they hold.

    A click returns before the next page is there, so a test that reads a page at once may read
    the one before it.
    """
    from playwright import sync_api

    sync_api.expect.set_options(timeout=PATIENCE)
    return sync_api.expect(what, message)


class Watch:
    """What went wrong on the pages of a browser's context, from its first request on.

    Attributes:
        problems: each in a sentence: an error or a warning in the console, an exception of a
            script, something that the policy forbade, a request to another host, a failed
            request, an answer that the test did not expect.
    """

    def __init__(self, context: BrowserContext, site: Site) -> None:
        self.problems: list[str] = []
        self._site = site
        self._refused: Counter[int] = Counter()
        self._expected: Counter[int] = Counter()
        context.expose_binding("reportViolation", lambda _, text: self.problems.append(text))
        context.add_init_script(_REPORT)
        context.on("console", lambda message: self._console(message.type, message.text))
        context.on("weberror", lambda error: self.problems.append(f"script: {error.error}"))
        context.on("request", lambda request: self._request(request.url))
        context.on("requestfailed", lambda request: self._failed(request.url, request.failure))
        context.on("response", lambda answer: self._response(answer.status, answer.url))

    @contextmanager
    def refused(self, status: int) -> Iterator[None]:
        """Expect one answer with a status of 400 or more."""
        before = self._refused[status]
        self._expected[status] += 1
        yield
        self._expected[status] -= 1
        assert self._refused[status] == before + 1, f"there was no answer of {status}"

    def _console(self, kind: str, text: str) -> None:
        # Chromium writes about each answer of 400 or more; `_response` has looked at that.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource: the"):
            self.problems.append(f"console: {kind}: {text}")

    def _request(self, url: str) -> None:
        if not url.startswith((f"{self._site.url}/", "data:")):
            self.problems.append(f"asked another host or path: {url}")

    def _failed(self, url: str, failure: str | None) -> None:
        # The picture on the tab is loaded after the page, and given up when the next page comes.
        # Scripts do not follow a redirect to the page that asks who somebody is.
        given_up = "/icon.svg?" in url or url == self._site.sign_in
        if not (given_up and failure == "net::ERR_ABORTED"):
            self.problems.append(f"failed: {url}: {failure}")

    def _response(self, status: int, url: str) -> None:
        if status >= 400:
            self._refused[status] += 1
            if not self._expected[status]:
                self.problems.append(f"{status}: {url}")


def violations(page: Page) -> str:
    """Return what axe-core finds on a page; "" if it finds nothing.

    Args:
        page: of a context with `bypass_csp`, since axe is a script of its own.
    """
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options=_AXE)
    return found.generate_report() if found.violations_count else ""
