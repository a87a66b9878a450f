"""Decide the default `align` of edges, by the scheduled entries that they descend from.

If all upstreams of an entry without a schedule descend from one and the same scheduled entry, its
edges get `align="same"`: tonight's `load` waits for tonight's `clean` and `enrich`, whatever
happened last night. All other edges get `align="latest"`.

Each call joins the open transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import select

from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, chunks

if TYPE_CHECKING:
    from beatstore.definition.edges import After
    from beatstore.types import Align

__all__ = ["DOWN", "NAMED_EDGES", "Lineage"]

DOWN = ENTRY.alias("down")
_UP = ENTRY.alias("up")

#: All edges, by the names of both ends; `DOWN` narrows them. It is built once.
NAMED_EDGES = (
    select(DOWN.c.name.label("down"), _UP.c.name.label("up"))
    .join_from(DEPENDENCY, DOWN, DOWN.c.id == DEPENDENCY.c.downstream_id)
    .join(_UP, _UP.c.id == DEPENDENCY.c.upstream_id)
)


class Lineage:
    """Decides the alignment of edges that are about to be written.

    Args:
        tx: the open transaction.
        known: entries that are written together or known already, by name: their kind and the
            names of their upstreams, or None for the stored upstreams.
    """

    def __init__(
        self, tx: Transaction, known: Mapping[str, tuple[str, Iterable[str] | None]] | None = None
    ) -> None:
        self._tx = tx
        self._known = {
            name: (kind, None if ups is None else list(ups))
            for name, (kind, ups) in (known or {}).items()
        }

    def aligned(
        self, name: str, kind: str, asked: Sequence[After], there: Sequence[After] = ()
    ) -> tuple[After, ...]:
        """Return edges with an alignment each; an edge that exists already keeps its own.

        Args:
            name: the name of the downstream.
            kind: the kind of its schedule.
            asked: all its edges, some without an alignment.
            there: the stored edges.
        """
        if all(one.align is not None for one in asked):
            return tuple(asked)
        stored = {one.name: one.align for one in there}
        decided: Align | None = None
        found: list[After] = []
        for one in asked:
            align = one.align or stored.get(one.name)
            if align is None:
                decided = decided or self._default(name, kind, asked)
                align = "latest" if one.name == name else decided
            found.append(replace(one, align=align))
        return tuple(found)

    def _default(self, name: str, kind: str, asked: Sequence[After]) -> Align:
        if kind != "after":
            return "latest"
        roots: set[str] = set()
        seen = {name}
        ahead = {one.name for one in asked} - seen
        while ahead and len(roots) < 2:  # noqa: PLR2004  (one root gives "same", two don't)
            seen |= ahead
            above: set[str] = set()
            for some in chunks(sorted(ahead)):
                self._learn(some)
                for one in some:
                    up_kind, ups = self._known.get(one, ("after", []))
                    if up_kind == "after":
                        above.update(ups or ())
                    else:
                        roots.add(one)
                if len(roots) > 1:
                    break
            ahead = above - seen
        return "same" if len(roots) == 1 else "latest"

    def _learn(self, names: Iterable[str]) -> None:
        """Read the kinds of entries, and the upstreams of those without a schedule."""
        unknown = [name for name in names if name not in self._known]
        if unknown:
            rows = select(ENTRY.c.name, ENTRY.c.kind).where(ENTRY.c.name.in_(unknown))
            self._known |= {row.name: (row.kind, None) for row in self._tx.execute(rows)}
        open_ended = [name for name in names if self._known.get(name, ("", []))[0] == "after"]
        open_ended = [name for name in open_ended if self._known[name][1] is None]
        if not open_ended:
            return
        ups: dict[str, list[str]] = {name: [] for name in open_ended}
        for edge in self._tx.execute(NAMED_EDGES.where(DOWN.c.name.in_(open_ended))):
            ups[edge.down].append(edge.up)
        self._known |= {name: ("after", found) for name, found in ups.items()}
