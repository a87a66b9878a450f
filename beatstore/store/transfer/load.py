"""Load entries from documents: check all of them first, then write them in one transaction.

    gather    read and check each document, and keep the good ones, in a temporary file if they
              are many; no transaction is open
    write     in one transaction, check names, upstreams and cycles, then write the entries, some
              hundred at a time, and their edges last

Invariants:
    * Each refused document is named by its line, with the reason. If one is refused, nothing is
      written, unless the caller asks to load the others (`keep_going`).
    * An entry that exists already keeps its progress: what it has sent is not sent again.
    * Memory holds all names and edges, but only a page of entries.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from types import SimpleNamespace
from typing import Any

from sqlalchemy import and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from beatstore.config import Settings
from beatstore.database.models import EntryModel
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, TAG
from beatstore.definition import edges, edits
from beatstore.definition.edges import After
from beatstore.definition.values import canonical
from beatstore.errors import (
    BeatstoreError,
    DependencyCycleError,
    EntryExistsError,
    EntryNotFoundError,
    InvalidEntryError,
    ScheduleError,
)
from beatstore.records import Entry
from beatstore.rules.graph import find_cycle
from beatstore.store import actions, audit, entries, links
from beatstore.store.transfer.documents import (
    HEADER,
    VERSION,
    Loaded,
    definition,
    document,
    packed,
    read,
    unpacked,
)
from beatstore.store.transfer.export import documents

__all__ = ["Gathered", "LoadReport", "gather", "write"]

_PAGE = 500

#: How many bytes of checked documents are kept in memory before a file is used.
_MEMORY = 4_000_000

#: The values of a new row in the columns that a document lacks.
_EMPTY: dict[str, Any] = {
    **dict.fromkeys(("cursor_at", "last_run_at", "pending_due_at", "pending_since")),
    **dict.fromkeys(("pending_reason", "blocked_by", "error", "declared")),
    **dict.fromkeys(("success_seq", "failure_seq", "done_seq", "run_count"), 0),
    "version": 1,
}

#: Why an entry that was there when the load began is refused.
_GONE = "somebody has just removed or renamed the entry of this name; load again"

#: The columns of an upstream or downstream that an edge needs.
_COUNTED = ("name", *links.NODE_COLUMNS)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What `load` did, or would do with `dry_run`.

    Attributes:
        created: how many entries were added.
        replaced: how many existing entries were overwritten.
        unchanged: how many existing entries were equal to their documents.
        refused: the reasons why documents were not loaded, by line.
        dry_run: whether nothing was written.
    """

    created: int = 0
    replaced: int = 0
    unchanged: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    dry_run: bool = False


# -- reading -----------------------------------------------------------------------------


class Gathered:
    """Documents that were checked: the good ones, and the reasons for the refused ones."""

    def __init__(self) -> None:
        self.refused: dict[int, str] = {}
        #: The line of each entry, by its name.
        self.lines: dict[str, int] = {}
        #: The edges of each entry that has any, by its name.
        self.after: dict[str, tuple[After, ...]] = {}
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115  (closed by `close`)
            _MEMORY, "w+", encoding="utf-8"
        )

    def add(self, line: int, loaded: Loaded) -> None:
        """Keep a good document."""
        name = loaded.name
        if name in self.lines:
            self.refused[line] = f"name: {name!r} is already on line {self.lines[name]}"
            return
        self.lines[name] = line
        if loaded.checked.after:
            self.after[name] = loaded.checked.after
        self._file.write(packed(loaded) + "\n")

    def pages(self) -> Iterator[list[Loaded]]:
        """Yield the good documents, a page at a time; may be called again."""
        self._file.seek(0)
        while lines := list(islice(self._file, _PAGE)):
            yield [unpacked(line) for line in lines]

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def gather(given: Iterable[Any], settings: Settings, now: datetime) -> Gathered:
    """Read and check documents.

    Args:
        given: the documents, each a line of JSON or its parsed value.
        settings: the settings in force.
        now: the database's time.

    Raises:
        InvalidEntryError: a header names another format, or `given` is not an iterable of
            documents.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        expected = "an iterable of JSON lines or dicts"
        raise InvalidEntryError("documents", given, expected, "open('entries.jsonl')")
    gathered = Gathered()
    for line, one in enumerate(given, 1):
        if isinstance(one, str | bytes) and not one.strip():
            continue
        try:
            made = json.loads(one) if isinstance(one, str | bytes) else one
            if isinstance(made, Mapping) and HEADER in made:
                _check_header(made)
                continue
            gathered.add(line, read(made, settings, now))
        except _OtherFormatError:
            gathered.close()
            raise
        except (BeatstoreError, ValueError, RecursionError) as error:
            ours = isinstance(error, BeatstoreError)
            gathered.refused[line] = str(error) if ours else f"not JSON: {_short(error)}"
    return gathered


class _OtherFormatError(InvalidEntryError):
    """The documents are in another format, so none can be read."""


def _check_header(header: Mapping[str, Any]) -> None:
    if header[HEADER] != VERSION:
        expected = f"the format {VERSION}, which this version of beatstore writes"
        raise _OtherFormatError(HEADER, header[HEADER], expected)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]


# -- writing -----------------------------------------------------------------------------


class _Undone(Exception):  # noqa: N818  (not an error)
    """Rolls back to the savepoint."""


def write(
    tx: Transaction, gathered: Gathered, *, replace: bool, keep_going: bool, dry_run: bool
) -> LoadReport:
    """Write the gathered documents; see `Store.load`."""
    tx.plan_anew()
    links.take_turns(tx)
    writing = _Writing(tx, gathered, replace=replace)
    # The connection's savepoint: the session's would flush what the caller has pending.
    connection = tx.session.connection(bind_arguments={"mapper": EntryModel})
    try:
        with connection.begin_nested():
            writing.write()
            writing.undo(always=dry_run, refused=not keep_going)
    except _Undone:
        pass
    except IntegrityError as error:
        raise EntryExistsError("(one of these)", "it has just been added; load again") from error
    figures = (len(writing.created), len(writing.replaced), writing.unchanged)
    return LoadReport(*figures, dict(sorted(writing.refused.items())), dry_run)


class _Writing:
    """One attempt to write the documents; a retried transaction makes another."""

    def __init__(self, tx: Transaction, gathered: Gathered, *, replace: bool) -> None:
        self.refused = dict(gathered.refused)
        self.created: set[str] = set()
        self.replaced: set[str] = set()
        self.unchanged = 0
        self._tx = tx
        self._gathered = gathered
        self._replace = replace
        self._after = dict(gathered.after)
        self._moved: set[str] = set()
        self._used: dict[str, dict[str, tuple[int, int]]] = {}

    def write(self) -> None:
        """Write the documents that are not refused."""
        self._refuse_cycles()
        self._refuse_orphans()
        for page in self._gathered.pages():
            good = [one for one in page if self._takes(one.name)]
            there = self._there(one.name for one in good)
            self._insert([one for one in good if one.name not in there])
            self._compare([one for one in good if one.name in there])
        self._link()
        self._relink()

    def undo(self, *, always: bool, refused: bool) -> None:
        """Roll back, always or if something was refused."""
        if always or (refused and self.refused):
            raise _Undone

    def _takes(self, name: str) -> bool:
        """Return whether a document of this name will be loaded."""
        lines = self._gathered.lines
        return name in lines and lines[name] not in self.refused

    def _refuse(self, name: str, reason: str) -> None:
        self.refused[self._gathered.lines[name]] = reason
        self._after.pop(name, None)

    def _there(self, names: Iterable[str]) -> set[str]:
        """Return the names that exist in the database."""
        found: set[str] = set()
        for some in _paged(names):
            found |= set(
                self._tx.execute(select(ENTRY.c.name).where(ENTRY.c.name.in_(some))).scalars()
            )
        return found

    # -- edges, before anything is written ----------------------------------------------------

    def _refuse_cycles(self) -> None:
        if not self._after:
            return
        bound = self._stored_edges()
        for name, after in self._after.items():
            bound[name] = [one.name for one in after if not one.first_free]
        while members := find_cycle((up, name) for name, ups in bound.items() for up in ups):
            cycle = " → ".join(repr(name) for name in [*members, members[0]])
            for up, name in zip([members[-1], *members], members, strict=False):
                bound.pop(name)
                if name in self._after:
                    self._refuse(name, str(DependencyCycleError(up, cycle)))

    def _stored_edges(self) -> dict[str, list[str]]:
        """Return the stored upstreams of each entry that no document names."""
        up, down = ENTRY.alias("up"), ENTRY.alias("down")
        ends = DEPENDENCY.join(up, up.c.id == DEPENDENCY.c.upstream_id)
        ends = ends.join(down, down.c.id == DEPENDENCY.c.downstream_id)
        names = select(up.c.name.label("up"), down.c.name.label("down")).select_from(ends)
        found: dict[str, list[str]] = {}
        for row in self._tx.execute(names.where(DEPENDENCY.c.first_free.is_(False))):
            if row.down not in self._gathered.lines:
                found.setdefault(row.down, []).append(row.up)
        return found

    def _refuse_orphans(self) -> None:
        """Refuse entries with a missing upstream, and their downstreams in turn."""
        downstreams: dict[str, list[str]] = {}
        for name, after in self._after.items():
            for one in after:
                downstreams.setdefault(one.name, []).append(name)
        stored = self._there([*downstreams, *self._after])
        missing = [up for up in downstreams if up not in stored and not self._takes(up)]
        while missing:
            up = missing.pop()
            for name in downstreams.get(up, ()):
                if self._takes(name):
                    expected = "an entry that exists or is loaded with this one"
                    self._refuse(name, str(InvalidEntryError("after", up, expected)))
                    missing += [] if name in stored else [name]

    # -- entries -----------------------------------------------------------------------------

    def _insert(self, page: Sequence[Loaded]) -> None:
        if not page:
            return
        tx = self._tx
        rows = [{**_EMPTY, **one.row} for one in page]
        tx.execute(insert(ENTRY), rows)
        tagged = {one.name: one.checked.tags for one in page if one.checked.tags}
        if tagged:
            ids = select(ENTRY.c.id, ENTRY.c.name).where(ENTRY.c.name.in_(tagged))
            tags = [
                {"entry_id": row.id, "tag": tag}
                for row in tx.execute(ids)
                for tag in tagged[row.name]
            ]
            tx.execute(insert(TAG), tags)
        changes = [
            (one.name, None, _audited(one, row)) for one, row in zip(page, rows, strict=True)
        ]
        audit.record_all(tx, "load", changes)
        self.created |= {one.name for one in page}
        self._moved |= {one.name for one in page if one.moved}
        self._used |= {one.name: one.used for one in page if one.used}

    def _compare(self, page: Sequence[Loaded]) -> None:
        """Compare documents with the existing entries, and write or refuse those that differ."""
        if not page:
            return
        names = [one.name for one in page]
        rows = self._tx.execute(select(ENTRY).where(ENTRY.c.name.in_(names))).all()
        stored = {made["name"]: definition(made) for made in documents(self._tx, rows)}
        for one in page:
            theirs = stored.get(one.name)
            if theirs is None:
                self._refuse(one.name, _GONE)
                continue
            ours = definition(_document(one, self._tx.settings))
            if canonical(theirs) == canonical(ours):
                self.unchanged += 1
            elif self._replace:
                self._overwrite(one)
            else:
                keys = {**theirs, **ours}
                differing = [key for key in keys if theirs.get(key) != ours.get(key)]
                fields = ", ".join(differing)
                reason = f"an entry named {one.name!r} exists already, and differs in {fields}"
                self._refuse(one.name, reason)

    def _overwrite(self, one: Loaded) -> None:
        """Update an existing entry from its document, or refuse what it can't become."""
        try:
            with self._tx.savepoint():
                self._edit(one)
        except EntryNotFoundError:
            self._refuse(one.name, _GONE)
        except (InvalidEntryError, ScheduleError) as error:
            self._refuse(one.name, str(error))
        else:
            self.replaced.add(one.name)

    def _edit(self, one: Loaded) -> None:
        """Update an existing entry from its document; its progress stays."""
        tx = self._tx
        old = tx.get(one.name, lock=True)
        if old.state == "cancelled" != one.state:
            old = entries.write(tx, "load", old, edits.mended(old, tx.now()))
        checked = edits.CheckedFields(one.checked.columns, one.checked.tags, one.state == "paused")
        entries.edit(tx, "load", old, checked)
        if one.state == "cancelled":
            actions.cancel(tx, one.name)

    # -- edges -------------------------------------------------------------------------------

    def _link(self) -> None:
        """Write the edges of new entries."""
        tx = self._tx
        for names in _paged(name for name in self._after if name in self.created):
            ends = {*names, *(one.name for name in names for one in self._after[name])}
            columns = [ENTRY.c[column] for column in _COUNTED]
            found = select(*columns).where(ENTRY.c.name.in_(ends)).order_by(ENTRY.c.id)
            rows = {row.name: row for row in tx.execute(found.with_for_update())}
            for name in sorted(ends - rows.keys()):
                raise tx.missing(name)
            written = [
                self._edge(rows[name], rows[one.name], one)
                for name in names
                for one in self._after[name]
            ]
            tx.execute(insert(DEPENDENCY), written)
            # For an edge with first_free, the database takes 0 as "no value given".
            for edge in written:
                if edge["first_free"] and edge["consumed_seq"] == 0:
                    key = (
                        DEPENDENCY.c[end] == edge[end] for end in ("downstream_id", "upstream_id")
                    )
                    tx.execute(update(DEPENDENCY).where(and_(*key)).values(consumed_seq=0))

    def _edge(self, down: Any, up: Any, one: After) -> dict[str, Any]:
        row = links.edge_row(down, up, one)
        used = self._used.get(down.name, {}).get(up.name)
        if used is not None and up.name in self._moved:
            row["consumed_seq"], row["failure_seen"] = used
        return row

    def _relink(self) -> None:
        """Set the upstreams of replaced entries.

        First remove edges, since an old one could close a cycle with a new one.
        """
        names = sorted(self.replaced)
        links.prepare(self._tx, (one for name in names for one in self._after.get(name, ())))
        for name in names:
            old = self._tx.get(name, lock=True)
            mine = DEPENDENCY.c.downstream_id == old.id
            there = [edge for _, _, edge in links.current(self._tx, mine)]
            if gone := edges.new_waits(there, self._after.get(name, ())):
                self._set_upstreams(old, [one for one in there if one not in gone])
        for name in names:
            self._set_upstreams(self._tx.get(name, lock=True), self._after.get(name, ()))

    def _set_upstreams(self, old: Entry, after: Sequence[After]) -> None:
        entries.edit(self._tx, "load", old, edits.CheckedFields({}, after=tuple(after)))


def _audited(one: Loaded, row: Mapping[str, Any]) -> dict[str, Any]:
    entry: Any = SimpleNamespace(id=None, **row)
    after = [edges.as_json(edge) for edge in one.checked.after or ()]
    return audit.entry_columns(entry, one.checked.tags or (), after)


def _document(one: Loaded, settings: Settings) -> dict[str, Any]:
    entry: Any = SimpleNamespace(**{**_EMPTY, **one.row})
    return document(entry, one.checked.tags or (), one.checked.after or (), {}, settings)


def _paged(names: Iterable[str]) -> Iterator[list[str]]:
    coming = iter(names)
    while page := list(islice(coming, _PAGE)):
        yield page
