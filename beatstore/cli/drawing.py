"""A graph drawn in characters for a terminal, one line per entry.

    ● extract
    ├─● audit
    ├─● clean
    │ ├─● load
    └─┴─● report

Each entry has a lane, which runs down to the last entry that waits for it, and branches
into each of those. An entry is below all its upstreams.

Pure. An edge of a cycle, or with `first_free`, can lead up the page. Such an edge is not
drawn but written in words.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from beatstore.rules.graph import Edge, Graph, Node

__all__ = ["Row", "drawn"]

#: With this many lanes, a new lane takes a free place on the left.
_WIDE = 12

_MARKS = {"paused": "‖", "finished": "✓", "missed": "○", "cancelled": "✗", "broken": "✗"}


@dataclass(frozen=True, slots=True)
class Row:
    """One entry in the drawing.

    Attributes:
        picture: its lanes and its mark.
        lanes: those that go on below it, to draw next to further lines of text.
        node: the entry.
        conditions: conditions of its edges, and edges that are not drawn.
    """

    picture: str
    lanes: str
    node: Node
    conditions: tuple[str, ...] = ()

    @property
    def entry(self) -> str:
        """The picture with the name, as it stands in the drawing."""
        return f"{self.picture} {self.node.name}"


def drawn(graph: Graph) -> list[Row]:
    """Return the rows of a drawing, upstreams first."""
    order = _ordered(graph)
    place = {name: at for at, name in enumerate(order)}
    ups: dict[str, list[Edge]] = {name: [] for name in order}
    for edge in graph.edges:
        ups[edge.downstream].append(edge)
    below = dict.fromkeys(order, 0)
    for edge in graph.edges:
        below[edge.upstream] += place[edge.upstream] < place[edge.downstream]
    nodes = {node.name: node for node in graph.nodes}
    lanes = _Lanes(below)
    rows = []
    for name in order:
        above = [edge for edge in ups[name] if place[edge.upstream] < place[name]]
        picture = lanes.row(name, [edge.upstream for edge in above], _mark(nodes[name]))
        rows.append(Row(picture, lanes.below, nodes[name], tuple(_conditions(ups[name], above))))
    return rows


def _ordered(graph: Graph) -> list[str]:
    """Return the names with upstreams first and related entries together."""
    waits = {node.name: 0 for node in graph.nodes}
    downs: dict[str, list[str]] = {name: [] for name in waits}
    for edge in graph.edges:
        if not edge.first_free and edge.upstream != edge.downstream:
            waits[edge.downstream] += 1
            downs[edge.upstream].append(edge.downstream)
    # The entries that became ready last come first, in the order of their names.
    ready = [(0, name) for name, count in waits.items() if not count]
    heapq.heapify(ready)
    order: list[str] = []
    seen: set[str] = set()
    step = 0
    while len(order) < len(waits):
        if not ready:  # a cycle, in rows written by hand: begin somewhere
            ready = [(0, min(name for name in waits if name not in seen))]
        name = heapq.heappop(ready)[1]
        if name in seen:
            continue
        seen.add(name)
        order.append(name)
        step -= 1
        for down in downs[name]:
            waits[down] -= 1
            if not waits[down] and down not in seen:
                heapq.heappush(ready, (step, down))
    return order


def _mark(node: Node) -> str:
    if node.state == "active":
        return "●" if node.waits_because is None else "◌"
    return _MARKS.get(node.state, "✗")


def _conditions(edges: list[Edge], above: list[Edge]) -> list[str]:
    conditions = []
    for edge in edges:
        if edge not in above:
            conditions.append(f"{edge.upstream} → {edge.label or 'a cycle'}")
        elif edge.label:
            conditions.append(f"{edge.upstream}: {edge.label}")
    return conditions


@dataclass(slots=True)
class _Lanes:
    """The upstream of each open lane; None for a free one."""

    left: dict[str, int]
    open: list[str | None] = field(default_factory=list)

    @property
    def below(self) -> str:
        """The open lanes, to draw next to further lines of text."""
        return "".join("  " if of is None else "│ " for of in self.open).rstrip()

    def row(self, name: str, upstreams: list[str], mark: str) -> str:
        """Draw an entry at the end of its upstreams' lanes, and open its own lane."""
        joined = {self.open.index(up): up for up in upstreams}
        at = self._place(joined)
        for up in upstreams:
            self.left[up] -= 1
        first, last = min([at, *joined]), max([at, *joined])
        cells = []
        for lane in range(max(len(self.open), at + 1)):
            within = first <= lane < last
            cells.append(self._cell(lane, at, joined, mark) + ("─" if within else " "))
        for lane, up in joined.items():
            if not self.left[up]:
                self.open[lane] = None
        self._open(at, name)
        return "".join(cells).rstrip()

    def _place(self, joined: dict[int, str]) -> int:
        """Return the lane of an entry: right of its upstreams, or a free one."""
        free = [lane for lane, of in enumerate(self.open) if of is None]
        right = [lane for lane in free if lane > max(joined, default=-1)]
        if right:
            return right[0]
        return free[0] if free and len(self.open) >= _WIDE else len(self.open)

    def _cell(self, lane: int, at: int, joined: dict[int, str], mark: str) -> str:
        if lane == at:
            return mark
        of = self.open[lane]
        first, last = min([at, *joined]), max([at, *joined])
        if lane not in joined:
            if of is not None:
                return "│"
            return "─" if first < lane < last else " "
        goes_on = self.left[joined[lane]] > 0
        if lane == first:
            return "├" if goes_on else "└"
        if lane == last:
            return "┤" if goes_on else "┘"
        return "┼" if goes_on else "┴"

    def _open(self, at: int, name: str) -> None:
        if at == len(self.open):
            self.open.append(None)
        self.open[at] = name if self.left[name] else None
        while self.open and self.open[-1] is None:
            self.open.pop()
