"""Decide the default `align` of edges, by the scheduled entries that they descend from.

If all upstreams of an entry without a schedule descend from one and the same scheduled entry, and
have its due times, its edges get `align="same"`: tonight's `load` waits for tonight's `clean` and
`enrich`, whatever happened last night. All other edges get `align="latest"`. So does an edge that
leads back to the entry: a run of the same due time would wait for itself.

Each call joins the open transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import select

from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, chunks

if TYPE_CHECKING:
    from beatstore.definition.edges import After
    from beatstore.types import Align

__all__ = ["DOWN", "NAMED_EDGES", "Lineage", "with_stored"]

DOWN = ENTRY.alias("down")
_UP = ENTRY.alias("up")

#: The upstreams of an entry: their names, and how the edges to them are aligned, if known.
_Ups = list[tuple[str, str | None]]

#: All edges, by the names of both ends; `DOWN` narrows them. It is built once.
NAMED_EDGES = (
    select(DOWN.c.name.label("down"), _UP.c.name.label("up"), DEPENDENCY.c.align)
    .join_from(DEPENDENCY, DOWN, DOWN.c.id == DEPENDENCY.c.downstream_id)
    .join(_UP, _UP.c.id == DEPENDENCY.c.upstream_id)
)


class Lineage:
    """Decides the alignment of edges that are about to be written.

    Args:
        tx: the open transaction.
        known: entries that are written together or known already, by name: their kind and their
            edges, some without an alignment, or None for the stored edges.
    """

    def __init__(
        self, tx: Transaction, known: Mapping[str, tuple[str, Iterable[After] | None]] | None = None
    ) -> None:
        self._tx = tx
        self._known: dict[str, tuple[str, _Ups | None]] = {
            name: (kind, None if ups is None else [(one.name, one.align) for one in ups])
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
        asked = with_stored(asked, there)
        if all(one.align is not None for one in asked):
            return tuple(asked)
        back = {one.name for one in asked if one.align is None and self._leads_back(one, name)}
        asked = [replace(one, align="latest") if one.name in back else one for one in asked]
        decided = self._default(name, kind, asked)
        return tuple(replace(one, align=one.align or decided) for one in asked)

    def _default(self, name: str, kind: str, asked: Sequence[After]) -> Align:
        if kind != "after":
            return "latest"
        every = {one.name for one in asked} - {name}
        if len(self._origins(name, every, latest=True)) != 1:
            return "latest"
        shared = {one.name for one in asked if one.align != "latest"} - {name}
        return "same" if len(self._origins(name, shared, latest=False)) == 1 else "latest"

    def _origins(self, name: str, ahead: set[str], *, latest: bool) -> set[str]:
        """Return the first one or two entries that upstreams of an entry descend from.

        Args:
            name: the name of the entry.
            ahead: the names of its upstreams.
            latest: whether to follow edges with `align="latest"`. If not, an entry that has no
                other edges is an origin: it has due times of its own.
        """
        found: set[str] = set()
        seen = {name}
        while ahead and len(found) < 2:  # noqa: PLR2004  (one origin gives "same", two don't)
            seen |= ahead
            above: set[str] = set()
            for one, (kind, ups) in self._of(ahead):
                followed = {up for up, align in ups if latest or align != "latest"}
                above |= followed
                if kind != "after" or (ups and not followed):
                    found.add(one)
            ahead = above - seen
        return found

    def _leads_back(self, edge: After, name: str) -> bool:
        """Return whether an edge closes a cycle of entries without a schedule."""
        ahead, seen = {edge.name}, {edge.name}
        while edge.first_free and ahead and name not in ahead:
            ahead = {up for _, (_, ups) in self._of(ahead) for up, _ in ups} - seen
            seen |= ahead
        return name in ahead

    def _of(self, names: Iterable[str]) -> Iterator[tuple[str, tuple[str, _Ups]]]:
        """Yield entries with their kind and, if they have no schedule, their upstreams."""
        for some in chunks(sorted(names)):
            self._learn(some)
            for one in some:
                kind, ups = self._known.get(one, ("after", None))
                yield one, (kind, (ups or []) if kind == "after" else [])

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
        ups: dict[str, _Ups] = {name: [] for name in open_ended}
        for edge in self._tx.execute(NAMED_EDGES.where(DOWN.c.name.in_(open_ended))):
            ups[edge.down].append((edge.up, edge.align))
        self._known |= {name: ("after", found) for name, found in ups.items()}


def with_stored(asked: Sequence[After], there: Sequence[After]) -> list[After]:
    """Return edges with the alignment that they have been stored with, if none is asked for."""
    stored = {one.name: one.align for one in there}
    return [replace(one, align=one.align or stored.get(one.name)) for one in asked]
