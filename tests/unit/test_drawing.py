"""A graph drawn in characters."""

from __future__ import annotations

import inspect
import itertools
import random
import textwrap

import pytest

from beatstore.cli import drawing
from beatstore.cli.drawing import drawn
from beatstore.rules.graph import Edge, Graph, Node


def graph(*edges: str, **states: str) -> Graph:
    """Return a graph of edges "up>down", and the states of some of its entries."""
    made = [Edge(*edge.split(">")) for edge in edges]
    names = {name for edge in made for name in (edge.upstream, edge.downstream)}
    return Graph.of([Node(name, states.get(name, "active")) for name in names], made)


def picture(*edges: str) -> list[str]:
    """Return the lines of a drawing."""
    return [row.entry for row in drawn(graph(*edges))]


def test_the_drawing_of_the_documentation() -> None:
    """The example at the head of the module is what is drawn."""
    given = ["extract>audit", "extract>clean", "clean>load", "clean>report", "extract>report"]
    doc = inspect.getdoc(drawing) or ""
    assert "\n".join(picture(*given)) in textwrap.dedent(doc.replace("\n    ", "\n"))


def test_a_diamond() -> None:
    """Two that wait for one, and one that waits for both."""
    assert picture("a>b", "a>c", "b>d", "c>d") == ["● a", "├─● b", "└─│─● c", "  └─┴─● d"]


def test_what_belongs_together_is_together() -> None:
    """Two graphs stand one below the other, and not mixed."""
    assert picture("a>b", "x>y") == ["● a", "└─● b", "● x", "└─● y"]


def test_a_long_chain_stays_narrow() -> None:
    """However deep a graph is, its drawing goes back to the left."""
    names = [f"n{number:03}" for number in range(100)]
    rows = drawn(graph(*(f"{up}>{down}" for up, down in itertools.pairwise(names))))
    assert [row.node.name for row in rows] == names
    assert max(len(row.picture) for row in rows) <= 30


def test_marks_tell_states_apart() -> None:
    """Each state has its mark, and one that waits has its own."""
    states = {"b": "paused", "c": "finished", "d": "missed", "e": "cancelled", "f": "broken"}
    made = graph(*(f"a>{name}" for name in "bcdefg"), **states)
    waits = Node("g", waits_because="waits for 'a'")
    made = Graph.of([*(node for node in made.nodes if node.name != "g"), waits], made.edges)
    marks = {row.node.name: row.picture[-1] for row in drawn(made)}
    assert marks == dict(zip("abcdefg", "●‖✓○✗✗◌", strict=True))


def test_labels_and_what_is_not_drawn_are_said() -> None:
    """What is asked of an upstream is said, and an edge that leads up the page too."""
    nodes = [Node("a"), Node("b")]
    edges = [
        Edge("a", "b", on="done"),
        Edge("b", "a", first_free=True),
        Edge("a", "a", "done", True),
    ]
    first, second = drawn(Graph.of(nodes, edges))
    assert first.conditions == ("a → done, first run free", "b → first run free")
    assert second.conditions == ("a: done",)


def test_a_cycle_is_drawn_all_the_same() -> None:
    """Rows written by hand may form a cycle; each entry is there once, and the edge is said."""
    rows = drawn(graph("a>b", "b>c", "c>a", "x>a"))
    assert sorted(row.node.name for row in rows) == ["a", "b", "c", "x"]
    assert ("c → a cycle",) in [row.conditions for row in rows]


def test_nothing_is_drawn_of_nothing() -> None:
    """An empty graph has no rows."""
    assert drawn(Graph()) == []


@pytest.mark.parametrize("seed", range(30))
def test_every_line_can_be_followed(seed: int) -> None:
    """Whatever the graph, following the lines from each entry finds its upstreams, no others."""
    rng = random.Random(seed)
    count = rng.randrange(2, 25)
    edges = {
        f"n{up:02}>n{down:02}"
        for up in range(count)
        for down in rng.sample(range(up + 1, count + 2), min(2, count + 1 - up))
    }
    assert followed([row.picture for row in drawn(graph(*edges))], graph(*edges)) == edges


def followed(pictures: list[str], made: Graph) -> set[str]:
    """Read the edges back off a drawing."""
    names = [row.node.name for row in drawn(made)]
    marks = set("●◌‖✓○✗")
    lanes: dict[int, str] = {}
    found = set()
    for name, line in zip(names, pictures, strict=True):
        at = next(column for column, char in enumerate(line) if char in marks)
        for column, char in enumerate(line):
            if char in "├└┼┴┤┘":
                found.add(f"{lanes[column]}>{name}")
                # From here to the entry, the line is not broken but by lanes.
                between = line[min(column, at) + 1 : max(column, at)]
                assert set(between) <= set("─│├└┼┴┤┘"), line
            if char in "└┴┘":
                del lanes[column]
        assert at not in lanes
        if any(edge.upstream == name for edge in made.edges):
            lanes[at] = name
    return found


def test_lanes_go_on_below_an_entry() -> None:
    """What is written below an entry stands beside the lines that go on, and breaks none."""
    lanes = [row.lanes for row in drawn(graph("a>b", "a>c", "b>d", "c>d"))]
    assert lanes == ["│", "│ │", "  │ │", ""]
