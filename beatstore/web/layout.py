"""The graph of dependencies, laid out in layers from left to right. Pure.

Each entry stands one layer to the right of its last upstream (the longest path), edges over
several layers run through places that keep their way free, and the order in each layer comes from
a few sweeps of the mean place of the neighbours: the method of Sugiyama, Tagawa and Toda (1981).
An edge that would close a cycle is drawn backwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from beatstore.rules.graph import Edge, Graph, Node

__all__ = ["Box", "Line", "Picture", "layout"]

#: The size of a box and of the gaps between boxes, in units of the drawing.
BOX_WIDTH, BOX_HEIGHT = 190, 34
_GAP_X, _GAP_Y = 52, 14

#: How often the order of the layers is improved.
_SWEEPS = 6

#: The longest name that fits into a box, in characters.
_FITS = 26


@dataclass(frozen=True, slots=True)
class Box:
    """An entry in the drawing; `x` and `y` are its upper left corner."""

    node: Node
    x: int
    y: int

    @property
    def label(self) -> str:
        """Its name, cut to what fits."""
        name = self.node.name
        return name if len(name) <= _FITS else f"{name[: _FITS - 1]}…"


@dataclass(frozen=True, slots=True)
class Line:
    """An edge in the drawing: `path` is the `d` of an SVG path."""

    edge: Edge
    path: str
    back: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """The drawing, with its size."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: int
    height: int


def layout(graph: Graph) -> Picture:
    """Return where each entry and each edge of a graph is drawn."""
    nodes = {node.name: node for node in graph.nodes}
    edges = [edge for edge in graph.edges if edge.upstream in nodes and edge.downstream in nodes]
    back = _back_edges(nodes, edges)
    forward = [(one.upstream, one.downstream) for one in edges if _key(one) not in back]
    layer = _layers(nodes, forward)
    chains = {pair: _chain(pair, layer) for pair in forward}
    rows = _ordered(nodes, layer, chains.values())
    place = {
        name: (column, row) for column, names in enumerate(rows) for row, name in enumerate(names)
    }
    boxes = tuple(Box(node, *_corner(*place[name])) for name, node in nodes.items())
    lines = tuple(
        Line(edge, _path(_points(edge, chains, place)), _key(edge) in back) for edge in edges
    )
    width = len(rows) * (BOX_WIDTH + _GAP_X) - _GAP_X if rows else 0
    height = max((len(row) for row in rows), default=0) * (BOX_HEIGHT + _GAP_Y)
    return Picture(boxes, lines, max(width, 0), height)


def _key(edge: Edge) -> tuple[str, str]:
    return edge.upstream, edge.downstream


def _back_edges(nodes: Iterable[str], edges: Iterable[Edge]) -> set[tuple[str, str]]:
    """Return the edges that lead back to an entry on the way to themselves."""
    after: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        after[edge.upstream].append(edge.downstream)
    back: set[tuple[str, str]] = set()
    done: set[str] = set()
    for start in nodes:
        if start in done:
            continue
        path = {start: iter(after[start])}
        while path:
            here, ahead = next(reversed(path.items()))
            for name in ahead:
                if name in path:
                    back.add((here, name))
                elif name not in done:
                    path[name] = iter(after[name])
                    break
            else:
                done.add(here)
                path.popitem()
    return back


def _layers(nodes: Iterable[str], pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return the length of the longest path to each entry."""
    waits: dict[str, int] = dict.fromkeys(nodes, 0)
    after: dict[str, list[str]] = defaultdict(list)
    for upstream, downstream in pairs:
        waits[downstream] += 1
        after[upstream].append(downstream)
    layer = dict.fromkeys(waits, 0)
    ready = [name for name, count in waits.items() if not count]
    for name in ready:  # grows while it is read
        for downstream in after[name]:
            layer[downstream] = max(layer[downstream], layer[name] + 1)
            waits[downstream] -= 1
            if not waits[downstream]:
                ready.append(downstream)
    return layer


def _chain(pair: tuple[str, str], layer: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the places of an edge, one a layer; those between have a name of their own."""
    upstream, downstream = pair
    between = range(layer[upstream] + 1, layer[downstream])
    middle = [(f"\0{upstream}\0{downstream}\0{number}", number) for number in between]
    return [(upstream, layer[upstream]), *middle, (downstream, layer[downstream])]


def _ordered(
    nodes: Iterable[str],
    layer: Mapping[str, int],
    chains: Iterable[Sequence[tuple[str, int]]],
) -> list[list[str]]:
    """Return the layers, each in an order with few crossings."""
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name in nodes:
        rows[layer[name]].append(name)
    left: dict[str, list[str]] = defaultdict(list)
    right: dict[str, list[str]] = defaultdict(list)
    for chain in chains:
        for name, number in chain[1:-1]:
            rows[number].append(name)
        for (one, _), (other, _) in pairwise(chain):
            right[one].append(other)
            left[other].append(one)
    for sweep in range(_SWEEPS):
        if sweep % 2:
            for number in range(len(rows) - 2, -1, -1):
                _sort(rows[number], rows[number + 1], right)
        else:
            for number in range(1, len(rows)):
                _sort(rows[number], rows[number - 1], left)
    return rows


def _sort(row: list[str], beside: Sequence[str], neighbours: Mapping[str, list[str]]) -> None:
    """Sort a layer by the mean place of each name's neighbours in the layer beside it."""
    at = {name: number for number, name in enumerate(beside)}
    own = {name: number for number, name in enumerate(row)}

    def mean(name: str) -> float:
        found = [at[one] for one in neighbours.get(name, ()) if one in at]
        return sum(found) / len(found) if found else float(own[name])

    row.sort(key=lambda name: (mean(name), own[name]))


def _corner(column: int, row: int) -> tuple[int, int]:
    return column * (BOX_WIDTH + _GAP_X), row * (BOX_HEIGHT + _GAP_Y)


def _points(
    edge: Edge,
    chains: Mapping[tuple[str, str], Sequence[tuple[str, int]]],
    place: Mapping[str, tuple[int, int]],
) -> list[tuple[int, int]]:
    """Return the points of an edge, from the right side of a box to the left side of another."""
    names = [name for name, _ in chains.get(_key(edge), ((edge.upstream, 0), (edge.downstream, 0)))]
    points: list[tuple[int, int]] = []
    for number, name in enumerate(names):
        x, y = _corner(*place[name])
        middle = y + BOX_HEIGHT // 2
        if number > 0:
            points.append((x, middle))
        if number < len(names) - 1:
            points.append((x + BOX_WIDTH, middle))
    return points


def _path(points: Sequence[tuple[int, int]]) -> str:
    """Return a smooth line through the points: level in the boxes, and a curve in each gap."""
    (x, y), *rest = points
    parts = [f"M{x} {y}"]
    for number, (to_x, to_y) in enumerate(rest):
        if number % 2:
            parts.append(f"H{to_x}")
        else:
            half = (x + to_x) // 2
            parts.append(f"C{half} {y} {half} {to_y} {to_x} {to_y}")
        x, y = to_x, to_y
    return "".join(parts)
