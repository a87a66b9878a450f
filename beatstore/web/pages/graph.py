"""The dependencies as a picture, with the states of now."""

from __future__ import annotations

from werkzeug.wrappers import Response

from beatstore.rules.graph import Graph
from beatstore.web.call import Call
from beatstore.web.layout import layout

__all__ = ["graph"]

#: A larger graph is not drawn; a list leads to the neighbourhoods of its entries.
_MOST = 150


def graph(call: Call) -> Response:
    """Return the graph of all entries, of those with a tag, or around one entry."""
    name, tag = call.given("name"), call.given("tag")
    with call.reading() as session:
        found = call.store.graph(name=name, tag=None if name else tag, session=session)
        around = _around(found, name) if name and len(found.nodes) > _MOST else None
        drawn = around or found
        too_large = len(drawn.nodes) > _MOST
        return call.render(
            "graph.html",
            graph=drawn,
            total=len(found.nodes),
            around=around is not None,
            picture=None if too_large else layout(drawn),
            busiest=_busiest(found) if too_large else [],
        )


def _around(graph: Graph, name: str) -> Graph:
    """Return an entry with as many of its nearest upstreams and downstreams as can be drawn."""
    beside: dict[str, set[str]] = {}
    for edge in graph.edges:
        beside.setdefault(edge.upstream, set()).add(edge.downstream)
        beside.setdefault(edge.downstream, set()).add(edge.upstream)
    nearest, known = [name], {name}
    for one in nearest:  # grows while it is read
        new = sorted(beside.get(one, set()) - known)
        nearest += new
        known.update(new)
        if len(nearest) >= _MOST:
            break
    chosen = set(nearest[:_MOST])
    return Graph.of([node for node in graph.nodes if node.name in chosen], graph.edges)


def _busiest(graph: Graph) -> list[tuple[str, int]]:
    """Return the entries with the most edges."""
    counts: dict[str, int] = {}
    for edge in graph.edges:
        for name in (edge.upstream, edge.downstream):
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:30]
