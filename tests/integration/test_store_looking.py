"""Small questions to the store: names, tags of many, edges of one, and the time."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from beatstore import After, EntryNotFoundError, InvalidEntryError, ManualClock, Store
from beatstore.rules.graph import Edge

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


def test_names_come_page_by_page(store: Store) -> None:
    """Names are in order, chosen as entries are, and go on after a name."""
    for name in ("b", "a", "Z", "a2"):
        store.add(name, "t.a", "@daily", tags=["x"] if name.startswith("a") else [])
    store.pause("a2")
    assert store.names() == ["Z", "a", "a2", "b"]
    assert store.names(limit=2) == ["Z", "a"]
    assert store.names(limit=2, after="a") == ["a2", "b"]
    assert store.names(tag="x", state="paused") == ["a2"]
    assert store.names(name="a*") == ["a", "a2"]
    assert store.names(source="nobody") == []
    with pytest.raises(InvalidEntryError, match="limit"):
        store.names(limit=0)


def test_edges_of_one(store: Store) -> None:
    """The edges of an entry in both directions, and no others, are returned."""
    store.add("up", "t.a", "@daily")
    store.add("mid", "t.a", after=[After("up", on="done", timeout=5)])
    store.add("down", "t.a", after=["mid", "up"])
    store.link("mid", After("mid", on="done", first_free=True))
    assert store.edges("mid") == [
        Edge("mid", "down", align="same"),
        Edge("mid", "mid", on="done", first_free=True),
        Edge("up", "mid", on="done", align="same", timeout_s=5),
    ]
    assert [(edge.upstream, edge.downstream) for edge in store.edges("up")] == [
        ("up", "down"),
        ("up", "mid"),
    ]
    with pytest.raises(EntryNotFoundError):
        store.edges("nobody")


def test_the_time_is_the_databases(migrated_url: str, clock: ManualClock) -> None:
    """`now` is what the database's clock says, or the one the store was given."""
    store = Store(migrated_url, clock=clock)
    assert store.now() == NOON
    store.close()
    store = Store(migrated_url)
    first, second = store.now(), store.now()
    assert first.utcoffset() is not None
    assert first <= second
    store.close()
