"""The picture of the graph: layers from left to right, every edge forwards, nothing on top."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from beatstore.rules.graph import Edge, Graph, Node
from beatstore.web.layout import BOX_HEIGHT, BOX_WIDTH, layout


def graph_of(*pairs: tuple[str, str], alone: tuple[str, ...] = ()) -> Graph:
    names = {*alone, *(name for pair in pairs for name in pair)}
    return Graph.of(
        [Node(name, "active", "t.x") for name in names], [Edge(*pair) for pair in pairs]
    )


def test_an_entry_stands_right_of_its_upstreams() -> None:
    """The layer is the longest path to it."""
    picture = layout(graph_of(("a", "b"), ("b", "d"), ("a", "d"), ("c", "d")))
    x = {box.node.name: box.x for box in picture.boxes}
    assert x["a"] == x["c"] == 0
    assert x["b"] == x["d"] / 2 > 0


def test_a_cycle_is_drawn() -> None:
    """The edge that closes it leads back; all others lead forwards."""
    picture = layout(graph_of(("a", "b"), ("b", "c"), ("c", "a")))
    assert [line.back for line in picture.lines].count(True) == 1


def test_a_long_edge_keeps_clear_of_the_boxes_between() -> None:
    """It runs through a place of its own in each layer."""
    picture = layout(graph_of(("a", "b"), ("b", "c"), ("a", "c")))
    boxes = {box.node.name: box for box in picture.boxes}
    (long,) = [
        line for line in picture.lines if (line.edge.upstream, line.edge.downstream) == ("a", "c")
    ]
    level = f"H{boxes['b'].x + BOX_WIDTH}"
    assert level in long.path
    assert f" {boxes['b'].y + BOX_HEIGHT // 2}{level}" not in long.path


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=80))
def test_any_graph_is_laid_out(pairs: list[tuple[int, int]]) -> None:
    """Each entry has a box, no two boxes touch, and a graph without a cycle has no edge back."""
    named = {(f"n{one}", f"n{other}") for one, other in pairs if one != other}
    picture = layout(graph_of(*named))
    places = {(box.x, box.y) for box in picture.boxes}
    assert len(places) == len(picture.boxes)
    assert len(picture.lines) == len(named)
    x = {box.node.name: box.x for box in picture.boxes}
    forward = [line for line in picture.lines if not line.back]
    assert all(x[line.edge.upstream] < x[line.edge.downstream] for line in forward)
    assert all(box.x + BOX_WIDTH <= picture.width for box in picture.boxes)


def test_a_full_picture_takes_no_time() -> None:
    """150 entries, the most that are drawn, with many edges."""
    pairs = [(f"n{one}", f"n{one + step}") for one in range(140) for step in (1, 3, 7, 10)]
    began = time.process_time()
    layout(graph_of(*pairs))
    assert time.process_time() - began < 0.5


def test_nothing_gives_an_empty_picture() -> None:
    """A graph without entries has no size."""
    assert layout(Graph()).boxes == ()
