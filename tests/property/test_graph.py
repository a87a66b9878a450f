"""Cycles are found where the standard library finds them, and text reads back."""

from __future__ import annotations

import graphlib
import re

from hypothesis import given
from hypothesis import strategies as st

from beatstore.rules.graph import Edge, Graph, Node, find_cycle

NODES = st.integers(0, 12)
EDGES = st.lists(st.tuples(NODES, NODES), max_size=40)
NAMES = st.text(max_size=30)

_DOT_READ = {r"\n": "\n", r"\"": '"', "\\\\": "\\"}


@given(EDGES)
def test_a_cycle_is_found_exactly_where_there_is_one(edges: list[tuple[int, int]]) -> None:
    """It agrees with graphlib, and what it returns is a cycle of the given edges."""
    upstreams: dict[int, set[int]] = {}
    for upstream, downstream in edges:
        upstreams.setdefault(downstream, set()).add(upstream)
    cycle = find_cycle(edges)
    try:
        graphlib.TopologicalSorter(upstreams).prepare()
    except graphlib.CycleError:
        assert cycle
        assert len(set(cycle)) == len(cycle)
        assert set(zip(cycle, [*cycle[1:], cycle[0]], strict=True)) <= set(edges)
    else:
        assert cycle is None


@given(st.lists(NAMES, unique=True, max_size=6), st.data())
def test_names_read_back_from_mermaid(names: list[str], data: st.DataObject) -> None:
    """Whatever stands in a name: one line for each node and edge, and the label is the name."""
    graph = _graph(names, data)
    lines = graph.mermaid().splitlines()
    assert len(lines) == 1 + len(names) + len(graph.edges) + bool(names)
    found = [re.fullmatch(r'  (n\d+)\["([\w ./#;-]*)"\]:::active', line) for line in lines]
    read = {match[1]: _unmermaid(match[2]) for match in found if match}
    assert sorted(read.values()) == sorted(names)
    edges = [re.fullmatch(r'  (n\d+) -->(?:\|"[^"|]*"\|)? (n\d+)', line) for line in lines]
    assert [(read[match[1]], read[match[2]]) for match in edges if match] == _ends(graph)


@given(st.lists(NAMES, unique=True, max_size=6), st.data())
def test_names_read_back_from_dot(names: list[str], data: st.DataObject) -> None:
    """The same for Graphviz, by its own rules for quoted text."""
    graph = _graph(names, data)
    lines = graph.dot().split("\n")
    found = [re.match(r'  (n\d+) \[label="((?:[^"\\]|\\.)*)" fillcolor', line) for line in lines]
    read = {match[1]: _undot(match[2]) for match in found if match}
    assert sorted(read.values()) == sorted(names)
    edges = [re.match(r"  (n\d+) -> (n\d+)", line) for line in lines]
    assert [(read[match[1]], read[match[2]]) for match in edges if match] == _ends(graph)


def _graph(names: list[str], data: st.DataObject) -> Graph:
    ends = st.tuples(st.sampled_from(names), st.sampled_from(names)) if names else st.nothing()
    edges = data.draw(st.lists(ends, unique=True, max_size=6)) if names else []
    return Graph.of(map(Node, names), [Edge(*pair) for pair in edges])


def _ends(graph: Graph) -> list[tuple[str, str]]:
    return [(edge.upstream, edge.downstream) for edge in graph.edges]


def _unmermaid(text: str) -> str:
    return re.sub(r"#(\d+);", lambda code: chr(int(code[1])), text)


def _undot(text: str) -> str:
    text = re.sub(r"\\.", lambda pair: _DOT_READ[pair[0]], text)
    return re.sub(r"&(?:amp|#(\d+));", lambda code: chr(int(code[1])) if code[1] else "&", text)
