"""The dependency graph: cycles, and the graph as Mermaid and DOT text. Pure.

Invariants:
    * No recursion; the time is linear in the number of edges.
    * Equal graphs give equal text. A name may contain any character: it appears in the text only
      as a quoted label, never as an identifier.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

__all__ = ["Edge", "Graph", "Node", "find_cycle"]

N = TypeVar("N", bound=Hashable)

#: Fill and border of a node in each state, and of one that waits.
_COLOURS = {
    "active": ("#e8f5e9", "#2e7d32"),
    "waiting": ("#fff8e1", "#f9a825"),
    "paused": ("#eceff1", "#78909c"),
    "finished": ("#e3f2fd", "#1565c0"),
    "missed": ("#fbe9e7", "#d84315"),
    "cancelled": ("#f5f5f5", "#9e9e9e"),
    "broken": ("#ffebee", "#c62828"),
}

#: What a Mermaid label must write as a code: all but letters, digits, single blanks and marks
#: between two letters, such as the dot of "etl.load".
_MERMAID = re.compile(r"(?<=\w)([./-])(?=\w)|[^\w ]|(?<!\S) | (?!\S)")

#: What a DOT label must escape.
_DOT = re.compile(r'[\x00-\x1f\x7f"&\\]')
_DOT_WRITTEN = {"\n": r"\n", '"': r"\"", "&": "&amp;", "\\": r"\\"}


def find_cycle(edges: Iterable[tuple[N, N]]) -> list[N] | None:
    """Return the members of a cycle, each upstream of the next, or None.

    Args:
        edges: pairs of upstream and downstream, without those that may close a cycle
            (`first_free`).
    """
    downstreams: dict[N, list[N]] = {}
    for upstream, downstream in edges:
        downstreams.setdefault(upstream, []).append(downstream)
    done: set[N] = set()
    for start, first in downstreams.items():
        if start in done:
            continue
        path: dict[N, Iterator[N]] = {start: iter(first)}
        while path:
            here, ahead = next(reversed(path.items()))
            for node in ahead:
                if node in path:
                    members = list(path)
                    return members[members.index(node) :]
                if node not in done:
                    path[node] = iter(downstreams.get(node, ()))
                    break
            else:
                done.add(here)
                path.popitem()  # `del` would leave a gap that the next iteration skips
    return None


@dataclass(frozen=True, slots=True)
class Node:
    """An entry in the graph.

    Attributes:
        name: name of the entry.
        state: its state: `active`, `paused`, `broken`, …
        task: name of its task.
        next_due_at: its next due time; None for an entry without a schedule.
        waits_because: why a due occurrence waits; None if none does.
    """

    name: str
    state: str = "active"
    task: str = ""
    next_due_at: datetime | None = None
    waits_because: str | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """`downstream` runs after `upstream`; `beatstore.After` documents the other fields."""

    upstream: str
    downstream: str
    on: str = "success"
    first_free: bool = False
    align: str = "latest"
    on_upstream_failure: str = "wait"
    timeout_s: float | None = None

    @property
    def label(self) -> str:
        """The fields that differ from their defaults, in words; "" if none does."""
        words = [
            self.on if self.on != "success" else "",
            "first run free" if self.first_free else "",
            "same due time" if self.align == "same" else "",
            "skip on failure" if self.on_upstream_failure == "skip" else "",
            f"timeout {self.timeout_s:g} s" if self.timeout_s is not None else "",
        ]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Graph:
    """Entries and the edges between them, as data and as text for renderers.

    Attributes:
        nodes: the entries, sorted by name.
        edges: the edges, sorted by upstream, then downstream.
    """

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()

    @classmethod
    def of(cls, nodes: Iterable[Node], edges: Iterable[Edge]) -> Graph:
        """Return the sorted graph of these nodes, without edges to other nodes."""
        ordered = tuple(sorted(nodes, key=lambda node: node.name))
        names = {node.name for node in ordered}
        inside = [edge for edge in edges if edge.upstream in names and edge.downstream in names]
        return cls(
            ordered, tuple(sorted(inside, key=lambda edge: (edge.upstream, edge.downstream)))
        )

    def cycle(self) -> list[str] | None:
        """Return the names on a cycle, in order, or None; `first_free` edges may close one."""
        bound = ((edge.upstream, edge.downstream) for edge in self.edges if not edge.first_free)
        return find_cycle(bound)

    def mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart.

        Renderers fail above 500 edges unless `maxEdges` is set; for larger graphs, select a
        part by name or tag, or use `dot()`.
        """
        lines = ["flowchart LR"]
        ids = self._ids()
        for node in self.nodes:
            label = "<br/>".join(_MERMAID.sub(_code, line) for line in _lines(node))
            lines.append(f'  {ids[node.name]}["{label}"]:::{_colour(node)}')
        for edge in self.edges:
            label = f'|"{_MERMAID.sub(_code, edge.label)}"|' if edge.label else ""
            arrow = "-.->" if edge.first_free else "-->"
            lines.append(f"  {ids[edge.upstream]} {arrow}{label} {ids[edge.downstream]}")
        for state in sorted({_colour(node) for node in self.nodes}):
            fill, stroke = _COLOURS.get(state, _COLOURS["cancelled"])
            lines.append(f"  classDef {state} fill:{fill},stroke:{stroke},color:#212121")
        return "\n".join(lines) + "\n"

    def dot(self) -> str:
        """Return the graph in Graphviz' language."""
        lines = ["digraph beatstore {", "  rankdir=LR", '  node [shape=box style="rounded,filled"]']
        ids = self._ids()
        for node in self.nodes:
            fill, stroke = _COLOURS.get(_colour(node), _COLOURS["cancelled"])
            label = r"\n".join(_dot(line) for line in _lines(node))
            style = f'fillcolor="{fill}" color="{stroke}" tooltip="{_dot(node.task)}"'
            lines.append(f'  {ids[node.name]} [label="{label}" {style}]')
        for edge in self.edges:
            given = [f'label="{_dot(edge.label)}"'] if edge.label else []
            given += ["style=dashed"] if edge.first_free else []
            style = f" [{' '.join(given)}]" if given else ""
            lines.append(f"  {ids[edge.upstream]} -> {ids[edge.downstream]}{style}")
        return "\n".join([*lines, "}"]) + "\n"

    def _ids(self) -> dict[str, str]:
        return {node.name: f"n{number}" for number, node in enumerate(self.nodes)}


def _lines(node: Node) -> list[str]:
    """Return the lines of a node: its name and its status."""
    if node.waits_because is not None and node.state == "active":
        return [node.name, f"waits: {node.waits_because}"]
    if node.state != "active":
        return [node.name, node.state]
    if isinstance(node.next_due_at, datetime):
        return [node.name, f"{node.next_due_at:%Y-%m-%d %H:%M:%S} UTC"]
    return [node.name]


def _colour(node: Node) -> str:
    if node.state == "active":
        return "active" if node.waits_because is None else "waiting"
    return node.state if node.state in _COLOURS else "broken"


def _code(match: re.Match[str]) -> str:
    return match[1] or f"#{ord(match[0])};"


def _dot(text: str) -> str:
    return _DOT.sub(lambda found: _DOT_WRITTEN.get(found[0]) or f"&#{ord(found[0])};", text)
