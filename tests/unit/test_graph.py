"""Cycles, and the graph as text."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from beatstore.rules.graph import Edge, Graph, Node, find_cycle
from tests.support.cost import Cost

UTC = timezone.utc


# -- cycles ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ([], None),
        ([("a", "b"), ("b", "c"), ("a", "c")], None),
        ([("a", "a")], ["a"]),
        ([("a", "b"), ("b", "a")], ["a", "b"]),
        ([("x", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "y")], ["a", "b", "c"]),
        ([("a", "b"), ("c", "d"), ("d", "c")], ["c", "d"]),
        ([("a", "b"), ("a", "b")], None),
    ],
)
def test_a_cycle_is_found_and_its_members_are_in_order(
    edges: list[tuple[str, str]], cycle: list[str] | None
) -> None:
    """Each member is upstream of the next; what merely leads there is not among them."""
    assert find_cycle(edges) == cycle


@pytest.mark.parametrize("shape", ["chain", "fan out", "fan in", "layers"])
def test_a_large_graph_takes_no_recursion_and_little_work(shape: str) -> None:
    """100,000 edges, in one line or side by side, and with the cycle closed by the last."""
    count = 100_000
    edges = {
        "chain": [(number, number + 1) for number in range(count)],
        "fan out": [(0, number) for number in range(1, count)],
        "fan in": [(number, count) for number in range(count)],
        "layers": [
            (layer * 100 + upper, layer * 100 + 100 + lower)
            for layer in range(10)
            for upper in range(100)
            for lower in range(100)
        ],
    }[shape]
    with Cost() as cost:
        assert find_cycle(edges) is None
        upstream, downstream = edges[-1]
        found = find_cycle([*edges, (downstream, upstream if shape != "chain" else 0)])
    # A third of a second on a quiet machine.
    assert cost.seconds < 3
    assert found is not None
    assert {upstream, downstream} <= set(found)


def test_edges_whose_first_run_is_free_close_no_cycle() -> None:
    """The graph's own check leaves them out, as the one at linking does."""
    nodes = [Node("a"), Node("b")]
    back = Edge("b", "a", first_free=True)
    assert Graph.of(nodes, [Edge("a", "b"), back]).cycle() is None
    assert Graph.of(nodes, [Edge("a", "b"), Edge("b", "a")]).cycle() == ["a", "b"]


# -- text ------------------------------------------------------------------------------


SCENE = Graph.of(
    [
        Node("load", "active", "etl.load", None, "waits for 'extract'"),
        Node("extract", "active", "etl.extract", datetime(2026, 1, 16, 2, tzinfo=UTC)),
        Node('say "hi" [x] #1; \\n', "paused", "t"),
    ],
    [
        Edge("load", "extract", first_free=True, on="done"),
        Edge("extract", "load"),
        Edge('say "hi" [x] #1; \\n', "load", align="same", timeout_s=60.0),
        Edge("load", "nobody", on_upstream_failure="skip"),
    ],
)


def test_the_graph_is_written_as_mermaid() -> None:
    """Names are quoted and coded, an edge says what is not the default, a free one is dashed."""
    assert SCENE.mermaid().splitlines() == [
        "flowchart LR",
        '  n0["extract<br/>2026-01-16 02#58;00#58;00 UTC"]:::active',
        '  n1["load<br/>waits#58; waits for #39;extract#39;"]:::waiting',
        '  n2["say #34;hi#34; #91;x#93; #35;1#59; #92;n<br/>paused"]:::paused',
        "  n0 --> n1",
        '  n1 -.->|"done#44; first run free"| n0',
        '  n2 -->|"same due time#44; timeout 60 s"| n1',
        "  classDef active fill:#e8f5e9,stroke:#2e7d32,color:#212121",
        "  classDef paused fill:#eceff1,stroke:#78909c,color:#212121",
        "  classDef waiting fill:#fff8e1,stroke:#f9a825,color:#212121",
    ]


def test_the_graph_is_written_as_dot() -> None:
    """The same graph, for Graphviz; what an entry sends is its tooltip."""
    assert SCENE.dot().splitlines() == [
        "digraph beatstore {",
        "  rankdir=LR",
        '  node [shape=box style="rounded,filled"]',
        r'  n0 [label="extract\n2026-01-16 02:00:00 UTC" '
        'fillcolor="#e8f5e9" color="#2e7d32" tooltip="etl.extract"]',
        r"""  n1 [label="load\nwaits: waits for 'extract'" """
        'fillcolor="#fff8e1" color="#f9a825" tooltip="etl.load"]',
        r'  n2 [label="say \"hi\" [x] #1; \\n\npaused" '
        'fillcolor="#eceff1" color="#78909c" tooltip="t"]',
        "  n0 -> n1",
        '  n1 -> n0 [label="done, first run free" style=dashed]',
        '  n2 -> n1 [label="same due time, timeout 60 s"]',
        "}",
    ]


def test_an_empty_graph_is_text_too() -> None:
    """No entries are no error."""
    assert Graph().mermaid() == "flowchart LR\n"
    assert Graph().dot().splitlines()[-1] == "}"
    assert Graph().cycle() is None


def test_a_state_that_nobody_knows_is_shown_as_broken() -> None:
    """A row written by hand can hold any word for a state, and it can't break out of its label."""
    graph = Graph.of([Node("a", 'x"]\nclick')], [])
    assert graph.mermaid().splitlines()[1] == '  n0["a<br/>x#34;#93;#10;click"]:::broken'
    assert r'label="a\nx\"]\nclick"' in graph.dot()


def test_labels_say_what_is_not_the_default() -> None:
    """An ordinary edge has no label."""
    assert Edge("a", "b").label == ""
    assert Edge("a", "b", on="failure", on_upstream_failure="skip").label == (
        "failure, skip on failure"
    )
