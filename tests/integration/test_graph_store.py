"""The graph as it is read from the tables, on every database."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from beatstore import Store
from beatstore.errors import EntryNotFoundError, InvalidEntryError
from beatstore.models import DependencyModel, EntryModel
from beatstore.rules.graph import Edge, Graph, Node
from tests.support.written import HOUR, NOON, alter, write

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


def build(store: Store, *edges: str, **columns: Any) -> None:
    """Add the edges "up>down" with their entries."""
    names = sorted({name for edge in edges for name in edge.split(">")})
    ids = {name: store.add(name, f"tasks.{name}", 3600, tags=[name[0]]).id for name in names}
    rows = [
        {"upstream_id": ids[up], "downstream_id": ids[down], **columns}
        for up, down in (edge.split(">") for edge in edges)
    ]
    write(store, DependencyModel, *rows)


def names(graph: Graph) -> list[str]:
    """Return the names of all nodes."""
    return [node.name for node in graph.nodes]


def arrows(graph: Graph) -> list[str]:
    """Return all edges, as in `build`."""
    return [f"{edge.upstream}>{edge.downstream}" for edge in graph.edges]


def test_the_whole_graph_is_what_has_edges(store: Store) -> None:
    """Every entry with an edge and every edge, in the order of names; no lonely entry."""
    store.add("alone", "t", 60)
    build(store, "d>e", "a>b", "a>c")
    graph = store.graph()
    assert names(graph) == ["a", "b", "c", "d", "e"]
    assert arrows(graph) == ["a>b", "a>c", "d>e"]
    assert graph.nodes[0] == Node("a", "active", "tasks.a", NOON + HOUR)
    assert store.graph() == graph


def test_an_empty_store_has_an_empty_graph(store: Store) -> None:
    """Nothing to draw is no error."""
    assert store.graph() == Graph()
    assert store.graph(tag="x") == Graph()


def test_a_part_of_the_graph_is_what_leads_to_an_entry_and_from_it(store: Store) -> None:
    """Both directions at any distance, with the edges among them, and not what is beside it."""
    build(store, "a>b", "b>c", "c>d", "a>d", "b>x", "y>d", "m>n", "d>d")
    graph = store.graph(name="c")
    assert names(graph) == ["a", "b", "c", "d"]
    assert arrows(graph) == ["a>b", "a>d", "b>c", "c>d", "d>d"]
    store.add("alone", "t", 60)
    assert names(store.graph(name="alone")) == ["alone"]
    with pytest.raises(EntryNotFoundError):
        store.graph(name="nobody")


def test_the_entries_of_a_tag_come_with_the_other_ends_of_their_edges(store: Store) -> None:
    """An edge that leaves the tag is drawn with both its ends; a lonely entry is shown too."""
    build(store, "m1>n1", "n1>n2", "n2>o1", "x>y")
    store.add("alone", "t", 60, tags=["n"])
    graph = store.graph(tag="n")
    assert names(graph) == ["alone", "m1", "n1", "n2", "o1"]
    assert arrows(graph) == ["m1>n1", "n1>n2", "n2>o1"]
    with pytest.raises(InvalidEntryError, match="tag"):
        store.graph(name="n1", tag="n")


def test_a_cycle_by_hand_is_drawn_like_the_rest(store: Store) -> None:
    """Reading goes round no more than once, and the graph names the cycle."""
    build(store, "a>b", "b>c", "c>a")
    assert arrows(store.graph(name="b")) == ["a>b", "b>c", "c>a"]
    assert store.graph().cycle() == ["a", "b", "c"]


def test_edges_and_nodes_say_all_there_is(store: Store) -> None:
    """What an edge asks for, and what an entry waits for."""
    build(
        store,
        "a>b",
        **{"on": "done", "first_free": True, "align": "same"},
        **{"on_upstream_failure": "skip", "timeout_s": 60.0},
    )
    reason = "waits for 'a' to end"
    alter(store, "b", pending_since=NOON, pending_reason=reason, blocked_by=1, wake_at=None)
    store.pause("a")
    graph = store.graph()
    assert graph.edges == (Edge("a", "b", "done", True, "same", "skip", 60.0),)
    assert [(node.state, node.waits_because) for node in graph.nodes] == [
        ("paused", None),
        ("active", reason),
    ]


def test_a_part_is_read_by_levels(store: Store) -> None:
    """A thousand entries side by side are read in a handful of statements."""
    rows = [
        {"name": f"e{number:04}", "task": "t", "kind": "every", "spec": "60"}
        for number in range(2000)
    ]
    write(store, EntryModel, *rows)
    store.add("hub", "t", 60)
    with store.database.session() as session:
        ids = {entry.name: entry.id for entry in session.query(EntryModel)}
    hub = ids.pop("hub")
    write(
        store,
        DependencyModel,
        *({"upstream_id": hub, "downstream_id": one} for one in ids.values()),
    )
    seen: list[str] = []
    event.listen(store.database.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    assert len(store.graph(name="e0001").edges) == 1
    assert len(seen) < 10
    seen.clear()
    assert len(store.graph(name="hub").edges) == 2000
    assert len(seen) < 20
