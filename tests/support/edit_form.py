"""The dashboard's form for an entry, filled in and sent as a browser does."""

from __future__ import annotations

from collections.abc import Mapping
from html import unescape
from html.parser import HTMLParser

from werkzeug.test import Client, TestResponse

__all__ = ["Form", "opened", "said", "sent"]


class Form(HTMLParser):
    """Reads the fields of the form for an entry, as a browser would send them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._inside = False
        self._select: str | None = None
        self._area: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name") or ""
        if tag == "form":
            self._inside = "edit" in (given.get("class") or "")
        elif not self._inside:
            return
        elif tag == "input":
            # An input has one line: browsers leave out the line breaks of its value.
            self.fields[name] = "".join((given.get("value") or "").splitlines())
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            if "selected" in given or self._select not in self.fields:
                self.fields[self._select] = given.get("value") or ""
        elif tag == "textarea":
            self._area = name
            self.fields[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = None
        elif tag == "textarea" and self._area is not None:
            lines = self.fields[self._area].removeprefix("\n")
            self.fields[self._area] = lines.replace("\n", "\r\n")  # as browsers send it
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self.fields[self._area] += data


def opened(browser: Client, name: str) -> dict[str, str]:
    """Return the fields of an entry's form."""
    response = browser.get("/entry/edit", query_string={"name": name})
    assert response.status_code == 200
    return Form(response.text).fields


def sent(
    browser: Client, form: Mapping[str, str], *, save: bool = True, **changed: str
) -> TestResponse:
    """Send an entry's form with some fields changed."""
    data = {**form, **changed, **({"save": "1"} if save else {})}
    return browser.post("/entry/edit" if "version" in form else "/entries/add", data=data)


def said(response: TestResponse) -> str:
    """Return a page without its escapes."""
    return unescape(response.text)
