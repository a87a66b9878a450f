"""Check the edges of many entries at once, before any of them is written.

Edges that are written together are checked against the graph that they form together: the order
in which they are given makes no difference.

Invariants:
    * Edges that are not refused can be written: every upstream exists or is added with them, and
      there is no cycle. All changing entries in a cycle are refused.
    * An entry whose upstream is refused and does not exist yet is refused too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, chunks
from beatstore.definition.edges import After
from beatstore.errors import DependencyCycleError, InvalidEntryError
from beatstore.rules.graph import find_cycle
from beatstore.store.lineage import DOWN, NAMED_EDGES

__all__ = ["EdgeCheck"]


class EdgeCheck:
    """Checks edges that are about to be written, together with the stored ones.

    Args:
        tx: the open transaction.
        asked: the new edges of each entry whose edges change, by its name.
        new: the names of the entries that will be added.
        there: the names of the upstreams that exist.
    """

    def __init__(
        self,
        tx: Transaction,
        asked: Mapping[str, Sequence[After]],
        new: Iterable[str],
        there: Iterable[str],
    ) -> None:
        self._asked = dict(asked)
        self._there = {*there, *new}
        self._new = set(new)
        self._stored = self._read(tx) if self._asked else {}
        #: The reason why the edges of an entry can't be written, by its name.
        self.refused: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        """Return the names of the entries whose edges can't be written, each with the reason."""
        self._refuse_missing(self._asked)
        while (cycle := find_cycle(self._edges())) is not None:
            changing = [name for name in cycle if name in self._asked]
            if not changing:
                # Plain SQL created this cycle; the tick marks its entries broken.
                self._stored[cycle[0]].discard(cycle[-1])
            for name in changing:
                self._refuse(name, _cycle_error(cycle, name))
            self._refuse_missing(self._asked)
        return self.refused

    def _refuse(self, name: str, reason: str) -> None:
        self.refused[name] = reason
        self._asked.pop(name)
        if name in self._new:
            self._there.discard(name)

    def _refuse_missing(self, names: Iterable[str]) -> None:
        below: dict[str, list[str]] = {}
        for name, edges in self._asked.items():
            for edge in edges:
                below.setdefault(edge.name, []).append(name)
        left = [name for up, downs in below.items() if up not in self._there for name in downs]
        while left:
            name = left.pop()
            if name not in self._asked:
                continue
            missing = next(up.name for up in self._asked[name] if up.name not in self._there)
            why = ", because it was refused" if missing in self.refused else ""
            self._refuse(name, f"after: no entry is named {missing!r}{why}")
            left += below.get(name, []) if name in self._new else []

    def _edges(self) -> Iterable[tuple[str, str]]:
        for name, edges in self._asked.items():
            yield from ((edge.name, name) for edge in edges if not edge.first_free)
        for name, ups in self._stored.items():
            if name not in self._asked:
                yield from ((up, name) for up in ups)

    def _read(self, tx: Transaction) -> dict[str, set[str]]:
        """Return the stored edges that could be in a cycle: those upstream of what changes."""
        found: dict[str, set[str]] = {}
        ahead = {up.name for ups in self._asked.values() for up in ups} | self._asked.keys()
        edges = NAMED_EDGES.where(DEPENDENCY.c.first_free.is_(False))
        while ahead:
            found |= {name: set() for name in ahead}
            for some in chunks(sorted(ahead)):
                for edge in tx.execute(tx.current(edges.where(DOWN.c.name.in_(some)))):
                    found[edge.down].add(edge.up)
            ahead = {name for name in ahead for name in found[name]} - found.keys()
        return found


def _cycle_error(members: Sequence[str], name: str) -> str:
    if len(members) == 1:
        instead = f"After({name!r}, on='done', first_free=True), or overlap='wait'"
        return str(InvalidEntryError("after", name, "another entry", instead))
    up = members[members.index(name) - 1]
    first = members.index(min(members))
    cycle = " → ".join(map(repr, [*members[first:], *members[:first], members[first]]))
    return str(DependencyCycleError(up, cycle))
