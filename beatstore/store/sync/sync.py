"""`Store.sync`: the entries of a source become what its code says.

Those that sync take turns, so that two processes that start together do it once. What is
declared as it was the last time costs no look at its schedule; the others are read, merged
with what users have edited (see `beatstore.store.sync.merge`), and written together.

Invariants:
    * Only rows of the source are written, and such as the code of another has let go of.
    * What can't be done is refused for one entry, whose row stays as it is.
    * A dry run answers the same, and writes and locks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy import Row

from beatstore.database.columns import check_levels
from beatstore.database.rows import Transaction
from beatstore.definition import fields
from beatstore.definition.identity import digest
from beatstore.definition.spec import VALUES, Declared
from beatstore.errors import InvalidEntryError, ScheduleError
from beatstore.records import Entry
from beatstore.store import links
from beatstore.store.lineage import Lineage
from beatstore.store.sync import entry, merge, stored
from beatstore.store.sync import writing as syncwrite
from beatstore.store.sync.edges import Web
from beatstore.store.sync.entry import One

__all__ = ["Source", "SyncReport", "edited", "sync"]

#: How many names of a kind a report spells out for people.
_SHOWN = 20


@dataclass(frozen=True)
class SyncReport:
    """What a sync did, or with `dry_run` would do; names are sorted.

    Attributes:
        source: whose entries.
        created: new entries.
        updated: entries of which something became what code says now.
        deactivated: entries that left the code, and were cancelled.
        unchanged: all others that are declared.
        kept: in which fields users' edits stand though code says otherwise, by entry.
        refused: what could not be done, and why.
    """

    source: str
    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    deactivated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        kinds = ("created", "updated", "deactivated", "unchanged")
        figures = ", ".join(f"{len(getattr(self, kind))} {kind}" for kind in kinds)
        lines = [f"{self.source}: {figures}"]
        for kind in kinds[:-1]:
            names = getattr(self, kind)
            lines += [f"  {kind}: {name}" for name in names[:_SHOWN]]
            lines += [f"  {kind}: {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
        lines += [f"  kept as edited: {name} ({', '.join(at)})" for name, at in self.kept.items()]
        lines += [f"  refused: {name}: {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines)


#: What a source declares, and what it could not declare: names with reasons.
Source = tuple[Iterable[Declared], Mapping[str, str]]


def sync(
    tx: Transaction, sources: Mapping[str, Source], owned: str | None, dry: bool
) -> list[SyncReport]:
    """Make the entries of some sources what their code says; see `Store.sync_all`."""
    for source in sources:
        _check_source(source)
    tx.plan_anew()
    if not dry:
        links.take_turns(tx)
    rows = [] if owned is None else stored.sources(tx, owned)
    gone: dict[str, Source] = {source: ((), {}) for source in rows if source not in sources}
    work = _Sync(tx, {**sources, **gone}, dry)
    work.gather()
    work.compare()
    work.merge_all()
    if not dry:
        work.write()
    reports = [work.report(source) for source in work.sources]
    return [one for one in reports if one.source in sources or one.deactivated]


def edited(tx: Transaction, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return in which fields entries differ from what code says; see `Store.edited`."""
    rows = stored.named(tx, {name for name in names if fields.storable(name)})
    beside = stored.beside(tx, [row.id for row in rows.values()])
    found = {name: entry.edited(row, beside) for name, row in sorted(rows.items())}
    return {name: at for name, at in found.items() if at}


def _check_source(source: object) -> None:
    if fields.text("source", source) == "api":
        expected = "a name for this code; that one is for entries added by hand"
        raise InvalidEntryError("source", source, expected, "'app'")


class _Sync:
    """One sync, step by step; nothing is written before `write`."""

    def __init__(self, tx: Transaction, sources: Mapping[str, Source], dry: bool) -> None:
        self.tx = tx
        self.sources = sources
        self.dry = dry
        self.refused = {source: dict(given) for source, (_, given) in sources.items()}
        self.asked: dict[str, One] = {}  # what is declared, and may be done
        self.touched: dict[str, One] = {}  # of that, what is read in full
        self.ups: dict[str, Entry] = {}  # the upstreams of those that exist
        self.left: dict[str, Entry] = {}  # what has left the code
        self.kept: dict[str, tuple[str, ...]] = {}

    # -- what is declared ------------------------------------------------------------------

    def gather(self) -> None:
        """Take what is declared, each name once."""
        settings = self.tx.settings
        for source, (given, _) in self.sources.items():
            for declared in given:
                if not isinstance(declared, Declared):
                    expected = "Declared(name, task, schedule, …)"
                    raise InvalidEntryError("entries", declared, expected)
                one = One(declared, source)
                one.digest = digest(one.declared, settings.default_timezone, settings.allowed_tasks)
                self._take(one)

    def _take(self, one: One) -> None:
        name = one.declared.name
        if not fields.storable(name):
            # Not even asked for: a driver would raise, and hold up the others.
            error = InvalidEntryError("name", name, "text", "'nightly'")
            self.refused[one.source][_shown(name)] = str(error)
        elif name not in self.refused[one.source]:
            first = self.asked.setdefault(name, one)
            if first.source != one.source:
                reason = f"is declared by {first.source!r} too; rename one of them"
                self.refused[one.source][name] = reason
            elif first is not one and not self._are_same(first, one):
                self._refuse(one, "declared twice, and not the same")

    def _are_same(self, one: One, other: One) -> bool:
        if one.digest is not None and one.digest == other.digest:
            return True
        return self._check(one) and self._check(other) and one.wanted == other.wanted

    def _check(self, one: One) -> bool:
        """Read a declaration in full; refuse it, and say so, if it can't be stored."""
        return self._try(one, lambda: self._read(one))

    def _read(self, one: One) -> None:
        one.check(self.tx.settings)
        for name in VALUES:
            check_levels(name, one.wanted.columns[name], self.tx.dialect)

    def _try(self, one: One, work: Callable[[], None]) -> bool:
        try:
            work()
        except (InvalidEntryError, ScheduleError) as error:
            self._refuse(one, str(error))
            return False
        except Exception as error:  # noqa: BLE001  (objects of anybody's; the others go on)
            self._refuse(one, f"{type(error).__name__}: {error}")
            return False
        return True

    def _refuse(self, one: One, reason: str) -> None:
        name = one.declared.name
        self.refused[one.source][name] = reason
        self.asked.pop(name, None)
        self.touched.pop(name, None)

    # -- what is there ---------------------------------------------------------------------

    def compare(self) -> None:
        """Find out what is as it was, what has to be read in full, and what left the code."""
        rows = stored.owned(self.tx, self.sources)
        rows |= stored.named(self.tx, self.asked.keys() - rows.keys())
        beside = stored.beside_owned(self.tx, self.sources)
        for name, one in list(self.asked.items()):
            row = rows.get(name)
            if row is not None and not self._may_take(one, row):
                reason = f"belongs to {row.source!r}; rename one of them, or remove that entry"
                self._refuse(one, reason)
            elif row is not None and _is_settled(one, row):
                self.kept[name] = entry.edited(row, beside)
            elif self._check(one):
                self.touched[name] = one
        self._lock(rows, [row for row in rows.values() if self._has_left(row)])

    def _may_take(self, one: One, row: Row[Any]) -> bool:
        if row.source == one.source or merge.let_go_in(row.declared) is not None:
            return True
        # It moved from one source to another, both of them synced here.
        return row.source in self.sources and row.name not in self.refused[row.source]

    def _has_left(self, row: Row[Any]) -> bool:
        if row.source not in self.sources or row.name in self.asked:
            return False
        return row.name not in self.refused[row.source] and not merge.let_go_in(row.declared)

    def _lock(self, rows: Mapping[str, Row[Any]], left: list[Row[Any]]) -> None:
        """Lock what may change, and read it again: those who edit take no turns with us."""
        ups = {up.name for one in self.touched.values() for up in one.wanted.after or ()}
        chosen = {row.id for name, row in rows.items() if name in self.touched or name in ups}
        chosen |= {row.id for row in (*stored.named(self.tx, ups - rows.keys()).values(), *left)}
        found = stored.locked(self.tx, chosen, lock=not self.dry)
        by_name = {row.name: row for row in found.values()}
        for name, one in self.touched.items():
            one.old = by_name.get(name)
        self.ups = {name: by_name[name] for name in ups & by_name.keys()}
        self.left = {row.name: found[row.id] for row in left if row.id in found}

    # -- what becomes of it ----------------------------------------------------------------

    def merge_all(self) -> None:
        """Say for each entry that was read in full what its row becomes."""
        now, settings = self.tx.now(), self.tx.settings
        olds = [one.old.id for one in self.touched.values() if one.old is not None]
        beside = stored.beside(self.tx, olds)
        self._align(beside)
        for one in list(self.touched.values()):
            self._try(one, partial(one.settle, beside, now, settings))
        asked = {name: one.after[1] for name, one in self.touched.items() if one.after}
        new = [name for name, one in self.touched.items() if one.old is None]
        for name, reason in Web(self.tx, asked, new, self.ups).judge().items():
            self._refuse(self.touched[name], reason)
        self.kept |= {name: one.kept for name, one in self.touched.items()}

    def _align(self, beside: stored.Beside) -> None:
        """Decide how edges are aligned of which the code does not say it."""
        lineage = Lineage(
            self.tx,
            {name: (up.kind, None) for name, up in self.ups.items()}
            | {
                name: (one.wanted.columns["kind"], [up.name for up in one.wanted.after or ()])
                for name, one in self.touched.items()
            },
        )
        for name, one in self.touched.items():
            if one.wanted.after:
                there = [] if one.old is None else beside.after.get(one.old.id, [])
                kind = one.wanted.columns["kind"]
                after = lineage.settle(name, kind, one.wanted.after, there)
                one.wanted = replace(one.wanted, after=after)

    def write(self) -> None:
        """Write it down, and let beat know."""
        new = {name: one for name, one in self.touched.items() if one.old is None}
        made = syncwrite.insert(self.tx, new)
        for name in new.keys() - made.keys():
            self._refuse(new[name], "somebody else has just added an entry of this name")
        wanted = {up.name for one in self.touched.values() if one.after for up in one.after[1]}
        for name in wanted & (new.keys() - made.keys()):
            self.ups[name] = self.tx.get(name, lock=True)
        syncwrite.update(self.tx, self.touched, made, self.ups)
        syncwrite.let_go(self.tx, self.left.values())

    def report(self, source: str) -> SyncReport:
        """Say what became of a source."""
        asked = {name: one for name, one in self.asked.items() if one.source == source}
        mine = {name: one for name, one in self.touched.items() if one.source == source}
        created = {name for name, one in mine.items() if one.old is None}
        updated = {name for name, one in mine.items() if one.is_updated} - created
        left = [name for name, old in self.left.items() if old.source == source]
        return SyncReport(
            source,
            created=tuple(sorted(created)),
            updated=tuple(sorted(updated)),
            deactivated=tuple(
                sorted(name for name in left if entry.is_in_service(self.left[name]))
            ),
            unchanged=tuple(sorted(asked.keys() - created - updated)),
            kept={name: at for name, at in sorted(self.kept.items()) if at and name in asked},
            refused=dict(sorted(self.refused[source].items())),
        )


def _shown(name: object) -> str:
    """Return a name for a report that is none."""
    try:
        return ascii(name)
    except Exception:  # noqa: BLE001  (its class is broken)
        return f"a {type(name).__name__}"


def _is_settled(one: One, row: Row[Any]) -> bool:
    """Say whether code says what it said the last time."""
    said = row.declared if isinstance(row.declared, dict) else {}
    before = None if "let_go" in said or row.source != one.source else said.get("digest")
    return one.digest is not None and one.digest == before
