"""How many statements each page takes: a number that does not grow with what is stored."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from werkzeug.test import Client

from beatstore import After, Every, Store
from beatstore.web.dashboard import PAGES

#: The pages, and how many statements they take at most. The first page and that of an entry ask
#: `Store.status` and `Store.explain`, which look at many things; all others take 8 at most.
MOST = {
    "/": 22,
    "/entries": 8,
    "/entries?only=failing": 8,
    "/entries/add": 8,
    "/entry?name=load": 26,
    "/entry?name=load&at=03:00": 31,
    "/entry/edit?name=load": 8,
    "/run?id=1": 8,
    "/runs": 8,
    "/runs?name=load": 8,
    "/upcoming": 8,
    "/graph": 8,
    "/graph?name=load": 9,
    "/audit": 8,
    "/processes": 8,
}

#: Begins and ends a transaction.
_FRAME = ("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA QUERY_ONLY")


def statements(store: Store, browser: Client, path: str) -> list[str]:
    """Return the statements of a page but for those of its transaction."""
    seen: list[str] = []

    def note(*said: object) -> None:
        seen.append(str(said[2]))

    sa.event.listen(store.database.engine, "before_cursor_execute", note)
    try:
        assert browser.get(path).status_code == 200
    finally:
        sa.event.remove(store.database.engine, "before_cursor_execute", note)
    return [one for one in seen if not one.upper().startswith(_FRAME)]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("path", MOST)
def test_a_page_takes_few_statements(store: Store, browser: Client, path: str) -> None:
    """As many with fifty entries and their edges as with three."""
    store.add("extract", "t.x", Every(60), tags=["etl"])
    store.add("clean", "t.x", Every(60), after=[After("extract", on="done")])
    store.add("load", "t.x", Every(60), after=["clean"], tags=["etl"])
    store.trigger("load")
    few = statements(store, browser, path)
    assert len(few) <= MOST[path], few
    for number in range(47):
        store.add(f"more-{number}", "t.x", Every(60), after=["load"], tags=["etl"])
        store.trigger(f"more-{number}")
    assert len(statements(store, browser, path)) <= MOST[path]


def test_every_page_is_counted() -> None:
    """A new page has its number here; the catalogue of a database takes what it takes."""
    counted = {path.partition("?")[0] for path in MOST}
    asked = {path for path, _, methods in PAGES.values() if "GET" in methods}
    assert asked - counted == {"/static/<path:name>", "/database"}
