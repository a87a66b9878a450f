"""`Store.sync`: update the entries of a source to what its code declares.

Syncs take turns, so that two processes that start together do the work once. An unchanged
declaration is recognised by its digest and is not checked again. The others are checked, merged
with users' edits (see `beatstore.store.sync.merge`), and written together.

Invariants:
    * Only rows of the source are written, and rows that another source no longer declares.
    * An entry that can't be synced is refused, and its row stays as it is.
    * A dry run returns the same report, and writes and locks nothing.
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
from beatstore.store.lineage import Lineage, with_stored
from beatstore.store.sync import entry, merge, stored
from beatstore.store.sync import writing as syncwrite
from beatstore.store.sync.edges import EdgeCheck
from beatstore.store.sync.entry import DeclaredEntry

__all__ = ["Source", "SyncReport", "sync"]

#: How many names of a kind the text of a report lists.
_SHOWN = 20


@dataclass(frozen=True)
class SyncReport:
    """What a sync did, or would do with `dry_run`; names are sorted.

    Attributes:
        source: the source of the entries.
        created: the names of new entries.
        updated: the names of entries that were changed to what code declares now.
        deactivated: the names of entries that are no longer declared, and were cancelled.
        unchanged: the names of all other declared entries.
        kept: by entry, the fields in which users' edits stay though code declares another value.
        refused: by entry, why it could not be synced.
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


#: What a source declares, and the names that it could not declare, with reasons.
Source = tuple[Iterable[Declared], Mapping[str, str]]


def sync(
    tx: Transaction, sources: Mapping[str, Source], owned: str | None, dry: bool
) -> list[SyncReport]:
    """Update the entries of sources to what their code declares; see `Store.sync_all`."""
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


def _check_source(source: object) -> None:
    if fields.text("source", source) == "api":
        expected = "a name for this code; 'api' is for entries added by hand"
        raise InvalidEntryError("source", source, expected, "'app'")


class _Sync:
    """One sync, in steps; only `write` writes."""

    def __init__(self, tx: Transaction, sources: Mapping[str, Source], dry: bool) -> None:
        self.tx = tx
        self.sources = sources
        self.dry = dry
        self.refused = {source: dict(given) for source, (_, given) in sources.items()}
        self.asked: dict[str, DeclaredEntry] = {}  # what is declared and not refused
        self.touched: dict[str, DeclaredEntry] = {}  # those that are checked in full
        self.ups: dict[str, Entry] = {}  # their existing upstreams
        self.left: dict[str, Entry] = {}  # what is no longer declared
        self.kept: dict[str, tuple[str, ...]] = {}

    # -- what is declared ------------------------------------------------------------------

    def gather(self) -> None:
        """Collect the declarations, each name once."""
        settings = self.tx.settings
        for source, (given, _) in self.sources.items():
            for declared in given:
                if not isinstance(declared, Declared):
                    expected = "Declared(name, task, schedule, …)"
                    raise InvalidEntryError("entries", declared, expected)
                one = DeclaredEntry(declared, source)
                one.digest = digest(one.declared, settings.default_timezone, settings.allowed_tasks)
                self._take(one)

    def _take(self, one: DeclaredEntry) -> None:
        name = one.declared.name
        if not fields.storable(name):
            # Not queried: a driver would raise, and fail the whole sync.
            error = InvalidEntryError("name", name, "text", "'nightly'")
            self.refused[one.source][_shown(name)] = str(error)
        elif name not in self.refused[one.source]:
            first = self.asked.setdefault(name, one)
            if first.source != one.source:
                reason = f"is also declared by {first.source!r}; rename one of them"
                self.refused[one.source][name] = reason
            elif first is not one and not self._are_same(first, one):
                self._refuse(one, "is declared twice, with different options")

    def _are_same(self, one: DeclaredEntry, other: DeclaredEntry) -> bool:
        if one.digest is not None and one.digest == other.digest:
            return True
        return self._check(one) and self._check(other) and one.checked == other.checked

    def _check(self, one: DeclaredEntry) -> bool:
        """Check a declaration in full; refuse it and return False if it can't be stored."""
        return self._try(one, lambda: self._read(one))

    def _read(self, one: DeclaredEntry) -> None:
        one.check(self.tx.settings)
        for name in VALUES:
            check_levels(name, one.checked.columns[name], self.tx.dialect)

    def _try(self, one: DeclaredEntry, work: Callable[[], None]) -> bool:
        try:
            work()
        except (InvalidEntryError, ScheduleError) as error:
            self._refuse(one, str(error))
            return False
        except Exception as error:  # noqa: BLE001  (user objects may raise anything)
            self._refuse(one, f"{type(error).__name__}: {error}")
            return False
        return True

    def _refuse(self, one: DeclaredEntry, reason: str) -> None:
        name = one.declared.name
        self.refused[one.source][name] = reason
        self.asked.pop(name, None)
        self.touched.pop(name, None)

    # -- what is stored --------------------------------------------------------------------

    def compare(self) -> None:
        """Find out what is unchanged, what to check in full, and what is no longer declared."""
        rows = stored.owned(self.tx, self.sources)
        rows |= stored.named(self.tx, self.asked.keys() - rows.keys())
        related = stored.related_of_sources(self.tx, self.sources)
        left = [row for row in rows.values() if self._has_left(row)]
        gone = {row.name for row in left} | {row.name for row in rows.values() if _is_gone(row)}
        new = self.asked.keys() - rows.keys()
        for name, one in list(self.asked.items()):
            row = rows.get(name)
            one.gone, one.new = gone, new
            if row is not None and not self._may_take(one, row):
                reason = f"belongs to {row.source!r}; rename one of them, or remove that entry"
                self._refuse(one, reason)
            elif row is not None and _is_settled(one, row, related):
                self.kept[name] = entry.edited(row, related)
            elif self._check(one):
                self.touched[name] = one
        self._lock(rows, left)

    def _may_take(self, one: DeclaredEntry, row: Row[Any]) -> bool:
        if row.source == one.source or merge.let_go_in(row.declared) is not None:
            return True
        # The entry moves between two sources of this sync.
        return row.source in self.sources and row.name not in self.refused[row.source]

    def _has_left(self, row: Row[Any]) -> bool:
        if row.source not in self.sources or row.name in self.asked:
            return False
        return row.name not in self.refused[row.source] and not merge.let_go_in(row.declared)

    def _lock(self, rows: Mapping[str, Row[Any]], left: list[Row[Any]]) -> None:
        """Lock what may change, and read it again, because edits take no turns with syncs."""
        ups = {up.name for one in self.touched.values() for up in one.checked.after or ()}
        chosen = {row.id for name, row in rows.items() if name in self.touched or name in ups}
        chosen |= {row.id for row in (*stored.named(self.tx, ups - rows.keys()).values(), *left)}
        found = stored.locked(self.tx, chosen, lock=not self.dry)
        by_name = {row.name: row for row in found.values()}
        for name, one in self.touched.items():
            one.old = by_name.get(name)
        self.ups = {name: by_name[name] for name in ups & by_name.keys()}
        self.left = {row.name: found[row.id] for row in left if row.id in found}

    # -- the merge -------------------------------------------------------------------------

    def merge_all(self) -> None:
        """Decide what the row of each entry that was checked in full becomes."""
        now, settings = self.tx.now(), self.tx.settings
        olds = [one.old.id for one in self.touched.values() if one.old is not None]
        related = stored.related(self.tx, olds)
        self._align(related)
        for one in list(self.touched.values()):
            self._try(one, partial(one.decide, related, now, settings))
        asked = {name: one.after[1] for name, one in self.touched.items() if one.after}
        new = [name for name, one in self.touched.items() if one.old is None]
        for name, reason in EdgeCheck(self.tx, asked, new, self.ups).run().items():
            self._refuse(self.touched[name], reason)
        self.kept |= {name: one.kept for name, one in self.touched.items()}

    def _align(self, related: stored.Related) -> None:
        """Decide the alignment of edges for which the code declares none."""
        after = {
            name: with_stored(
                one.checked.after or (),
                [] if one.old is None else related.after.get(one.old.id, []),
            )
            for name, one in self.touched.items()
        }
        lineage = Lineage(
            self.tx,
            {name: (up.kind, None) for name, up in self.ups.items()}
            | {
                name: (one.checked.columns["kind"], after[name])
                for name, one in self.touched.items()
            },
        )
        for name, one in self.touched.items():
            if after[name]:
                aligned = lineage.aligned(name, one.checked.columns["kind"], after[name])
                one.checked = replace(one.checked, after=aligned)

    def write(self) -> None:
        """Write the changes, and notify beat."""
        new = {name: one for name, one in self.touched.items() if one.old is None}
        made = syncwrite.insert(self.tx, new)
        for name in new.keys() - made.keys():
            self._refuse(new[name], "somebody else has just added an entry of this name")
        ups = {up.name for one in self.touched.values() if one.after for up in one.after[1]}
        for name in ups & (new.keys() - made.keys()):
            self.ups[name] = self.tx.get(name, lock=True)
        syncwrite.update(self.tx, self.touched, made, self.ups)
        syncwrite.let_go(self.tx, self.left.values())

    def report(self, source: str) -> SyncReport:
        """Return the report of a source."""
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
    """Return an unusable name as a report shows it."""
    try:
        return ascii(name)
    except Exception:  # noqa: BLE001  (its class is broken)
        return f"a {type(name).__name__}"


def _is_gone(row: Row[Any]) -> bool:
    """Return whether an earlier sync has let go of an entry, and nobody has revived it."""
    return row.state == "cancelled" and merge.let_go_in(row.declared) is not None


def _is_settled(one: DeclaredEntry, row: Row[Any], related: stored.Related) -> bool:
    """Return whether code declares the same as at the last sync, and its upstreams are there."""
    if any(edge.name in one.gone for edge in related.after.get(row.id, ())):
        return False
    declared = row.declared if isinstance(row.declared, dict) else {}
    before = None if "let_go" in declared or row.source != one.source else declared.get("digest")
    alike = one.digest is not None and one.digest == before
    return alike and not (one.new and merge.waits_for(declared, one.new))
