"""Add many entries: each is checked by itself, and a thousand at a time are written together.

Invariants:
    * An entry that is refused stops no other: the report names it, with the reason.
    * Entries with upstreams are written one by one, after those without: their edges need locks.
    * Rows, tags and audit of an entry are written in one transaction, or none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, Text, bindparam, cast, func, literal, select
from sqlalchemy import insert as plain_insert
from sqlalchemy.engine import Dialect

from beatstore.database.columns import check_levels
from beatstore.database.dialects import GivenRows, dialect_of
from beatstore.database.models import EntryModel
from beatstore.database.rows import Transaction
from beatstore.database.tables import AUDIT, ENTRY, TAG, chunks
from beatstore.definition import edits, fields
from beatstore.definition.calls import own_id, split_time
from beatstore.definition.spec import Declared, EntrySpec
from beatstore.errors import BeatstoreError, EntryExistsError, InvalidEntryError
from beatstore.schedules import Once
from beatstore.store import actions, audit
from beatstore.store.insertion import DEFAULTS, SAID, audited, insert

__all__ = ["AddReport", "Refused", "add_many", "schedule_many", "task_of"]


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that was not added, paused or resumed.

    Attributes:
        index: its place among those that were given, from 0 on.
        name: its name; None: it has none.
        error: why it was refused.
    """

    index: int
    name: str | None
    error: str


@dataclass(frozen=True, slots=True)
class AddReport:
    """What `add_many` or `schedule_many` did.

    Attributes:
        names: the names of the entries that were added, in the order in which they were given.
        refused: those that were not added, in the same order.
    """

    names: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()

    def __add__(self, other: AddReport) -> AddReport:
        return AddReport(self.names + other.names, self.refused + other.refused)


@dataclass(frozen=True, slots=True)
class _New:
    """A new entry: its name, its fields, and its row if it has no upstreams."""

    name: str
    checked: edits.CheckedFields
    row: Mapping[str, Any] = field(default_factory=dict)


#: The columns that may be long, and how many characters of them go into one statement.
_LONG = ("args", "kwargs", "options", "spec", "description")
_MOST_CHARACTERS = 500_000

#: What makes a new entry of what was given, and of the time.
_Read = Callable[[Any, datetime], _New]


def add_many(tx: Transaction, given: Sequence[tuple[int, object]]) -> AddReport:
    """Add entries; see `Store.add_many`. Each is given with its index."""

    def read(one: object, now: datetime) -> _New:
        if not isinstance(one, Declared):
            raise InvalidEntryError("entries", one, "a Declared", "Declared(name, task, schedule)")
        asked = {"source": EntrySpec.source, **one.given()}
        name, checked = fields.text("name", one.name), edits.check(asked, tx.settings)
        if checked.after:
            return _New(name, checked)
        return _New(name, checked, edits.new_row(name, checked, now, tx.settings))

    return _write_all(tx, "add", given, read)


def schedule_many(
    tx: Transaction, given: Sequence[tuple[int, object]], options: Mapping[str, Any]
) -> AddReport:
    """Add one-shots with these options; see `Store.schedule_many`. Each is given with its index."""
    return _write_all(tx, "schedule", given, _OneShots(tx, options).read)


class _OneShots:
    """Reads one-shots that differ in their calls and times only."""

    def __init__(self, tx: Transaction, options: Mapping[str, Any]) -> None:
        self._tx = tx
        self._options = options
        self._like: _New | None = None

    def read(self, one: Any, now: datetime) -> _New:
        """Return a one-shot."""
        task, at = _pair(one)
        task, own = split_time(task)
        if own:
            raise InvalidEntryError("at", own, "no eta and countdown in a signature", "the pair's")
        due_at = _due(at, now)
        task_id = own_id(task)
        options = None if task_id is None else {"task_id": task_id}
        like = self._like
        if like is None:
            asked = {"timezone": None, **self._options, "task": task, "schedule": Once(due_at)}
            checked = edits.check(asked | {"options": options}, self._tx.settings)
            like = self._like = _New(
                "", checked, edits.new_row("", checked, now, self._tx.settings)
            )
        call = edits.call_columns(task, options, self._tx.settings)
        name = task_id or actions.generated_name(call["task"])
        if like.checked.after:
            checked = replace(like.checked, columns={**like.checked.columns, **call})
            return _New(name, checked)
        row = {**like.row, **call, "name": name, "created_at": now, "updated_at": now}
        return _New(name, like.checked, edits.moved(row, due_at))


def task_of(one: object) -> object:
    """Return the task of what was given to `add_many` or `schedule_many`; None if it has none."""
    return one[0] if isinstance(one, tuple) and one else getattr(one, "task", None)


def _pair(one: Any) -> tuple[object, object]:
    if not isinstance(one, tuple) or len(one) != len(("task", "at")):
        expected = "a pair of a task and a time"
        raise InvalidEntryError("calls", one, expected, "(send_mail.s(7), datetime(…))")
    return one


def _due(at: object, now: datetime) -> datetime:
    if isinstance(at, timedelta | int | float) and not isinstance(at, bool):
        return actions.ahead(now, at)
    return fields.instant("at", at)


# -- writing -----------------------------------------------------------------------------


def _write_all(
    tx: Transaction, action: str, given: Iterable[tuple[int, object]], read: _Read
) -> AddReport:
    names: list[str] = []
    refused: list[Refused] = []
    for some in chunks(given):
        page = _Page(tx, action, read)
        page.write(some)
        names += [one.name for _, one in sorted(page.added.items())]
        refused += [one for _, one in sorted(page.refused.items())]
    return AddReport(tuple(names), tuple(refused))


class _Page:
    """Entries that are written together.

    Attributes:
        added: those that were added, by their indexes.
        refused: those that were not.
    """

    def __init__(self, tx: Transaction, action: str, read: _Read) -> None:
        self._tx = tx
        self._action = action
        self._read = read
        self.added: dict[int, _New] = {}
        self.refused: dict[int, Refused] = {}

    def write(self, given: Iterable[tuple[int, object]]) -> None:
        """Write what is not refused."""
        now = self._tx.now()
        new: dict[str, tuple[int, _New]] = {}
        for index, one in given:
            try:
                made = self._checked(one, now)
                if made.name in new:
                    raise EntryExistsError(made.name)
            except BeatstoreError as reason:
                self._refuse(index, getattr(one, "name", None), reason)
            else:
                new[made.name] = index, made
        together = {name: made for name, (_, made) in new.items() if made.row}
        there = _insert(self._tx, self._action, together, now)
        for name, (index, made) in new.items():
            error: BeatstoreError | None = None
            if not made.row:
                error = _insert_alone(self._tx, self._action, made)
            elif name not in there:
                error = EntryExistsError(name)
            if error is None:
                self.added[index] = made
            else:
                self._refuse(index, name, error)

    def _checked(self, one: object, now: datetime) -> _New:
        made = self._read(one, now)
        columns = made.row or made.checked.columns
        dialect = self._tx.dialect
        for column in ("args", "kwargs", "options"):
            check_levels(column, columns[column], dialect)
        return made

    def _refuse(self, index: int, name: object, error: BeatstoreError) -> None:
        shown = name if isinstance(name, str) else None
        self.refused[index] = Refused(index, shown, str(error))


def _insert_alone(tx: Transaction, action: str, new: _New) -> BeatstoreError | None:
    """Insert an entry with upstreams; return why it was refused."""
    try:
        with tx.savepoint():
            if insert(tx, action, new.name, new.checked) is None:
                raise EntryExistsError(new.name)
    except BeatstoreError as error:
        return error
    return None


def _insert(
    tx: Transaction, action: str, new: Mapping[str, _New], now: datetime
) -> Mapping[str, int]:
    """Insert entries without upstreams; return the ids of those whose name was free."""
    if not new:
        return {}
    connection = tx.session.connection(bind_arguments={"mapper": EntryModel})
    alike: dict[tuple[str, ...], list[_New]] = {}
    for one in new.values():
        alike.setdefault(tuple(one.row), []).append(one)
    there: dict[str, int] = {}
    for some in alike.values():
        if dialect_of(connection.dialect).writes_in_queries:
            there |= _insert_at_once(tx, connection.dialect, action, some)
        else:
            there |= _insert_in_turn(tx, connection.dialect, action, some, now)
    tags = [
        {"entry_id": entry_id, "tag": tag}
        for name, entry_id in there.items()
        for tag in new[name].checked.tags or ()
    ]
    if tags:
        tx.execute(plain_insert(TAG).inline(), tags)
    return there


def _insert_in_turn(
    tx: Transaction, dialect: Dialect, action: str, new: Sequence[_New], now: datetime
) -> dict[str, int]:
    """Insert entries, then their rows of the audit."""
    rows = [{**DEFAULTS, **one.row} for one in new]
    statement = dialect_of(dialect).insert_ignore(ENTRY)
    columns = (ENTRY.c.name, ENTRY.c.id)
    if dialect.insert_returning:
        returning = statement.returning(*columns)
        made = [row for some in _portions(rows) for row in tx.execute(returning, some)]
    else:
        # Of those that are there now, ours were made at our own moment.
        tx.execute(statement.inline(), rows)
        names = [row["name"] for row in rows]
        ours = select(*columns).where(ENTRY.c.name.in_(names), ENTRY.c.created_at == now)
        made = [*tx.execute(ours)]
    ids = {row.name: row.id for row in made}
    added = (
        (one.name, None, {"id": ids[one.name], **audit.shown(_with_tags(one, row))})
        for one, row in zip(new, rows, strict=True)
        if one.name in ids
    )
    audit.record_all(tx, action, added)
    return ids


def _portions(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in lists that one statement can hold; for a longer one MariaDB hangs up."""
    some: list[dict[str, Any]] = []
    length = 0
    for row in rows:
        own = sum(len(repr(row.get(column))) for column in _LONG)
        if some and length + own > _MOST_CHARACTERS:
            yield some
            some, length = [], 0
        some.append(row)
        length += own
    if some:
        yield some


def _insert_at_once(
    tx: Transaction, dialect: Dialect, action: str, new: Sequence[_New]
) -> dict[str, int]:
    """Insert entries with the same columns, and their rows of the audit, by one statement.

    A value that is the same in all of them is given once, so that neither side writes and reads it
    a thousand times.
    """
    first = {**DEFAULTS, **new[0].row}
    own = [
        column
        for column, value in new[0].row.items()
        if column == "name" or any(one.row[column] is not value for one in new)
    ]
    same = {column: value for column, value in first.items() if column not in own}
    given, statement = _statement(dialect, tuple(own), tuple(same))
    rows = []
    for one in new:
        row = {column: one.row[column] for column in own}
        rows.append({**row, "audited": audited(_with_tags(one, row))})
    shared = audited(same)[:-1]
    said = {**audit.author(tx), "action": action, "at": tx.now()}
    said["shared"] = f"{shared}, " if shared else ""
    parameters = {
        **given.parameters(rows),
        **{f"same_{column}": value for column, value in same.items()},
        **{f"new_{name}": value for name, value in said.items()},
    }
    return {row.name: row.id for row in tx.execute(statement, [parameters])}


@lru_cache(maxsize=20)
def _statement(
    dialect: Dialect, own: tuple[str, ...], same: tuple[str, ...]
) -> tuple[GivenRows, Any]:
    """Return how rows are given, and a query that inserts into two tables and selects ids.

    Args:
        dialect: of the database.
        own: the columns that each row has.
        same: the columns that are given once.
    """
    types = {name: ENTRY.c[name].type for name in own}
    given = dialect_of(dialect).given_rows(dialect, {**types, "audited": Text()})
    assert given is not None
    rows = select(given.table).cte("rows")
    entries = dialect_of(dialect).insert_ignore(ENTRY)
    once = [bindparam(f"same_{name}", type_=ENTRY.c[name].type) for name in same]
    new = select(*(rows.c[name] for name in own), *once)
    entries = entries.from_select([*own, *same], new, include_defaults=False)
    made = entries.returning(ENTRY.c.name, ENTRY.c.id).cte("made")
    said = ("at", *SAID)
    # The text of a JSON object: each part is that of another one, without its brackets.
    shared = bindparam("new_shared", type_=Text())
    after = func.concat(literal('{"id": '), made.c.id, ", ", shared, rows.c.audited)
    change = {
        **{name: bindparam(f"new_{name}", type_=AUDIT.c[name].type) for name in said},
        "entry": made.c.name,
        "after": cast(after, JSON),
    }
    both = made.join(rows, rows.c.name == made.c.name)
    noted = plain_insert(AUDIT).from_select(
        list(change), select(*change.values()).select_from(both), include_defaults=False
    )
    return given, select(made).add_cte(noted.cte("noted"))


def _with_tags(new: _New, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of an entry, with its tags as the audit has them."""
    return {**row, "tags": sorted(new.checked.tags or ()) or None}
