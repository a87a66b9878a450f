"""The half of the API that adds and edits entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from beatstore.database.rows import Transaction
from beatstore.definition import fields
from beatstore.definition.spec import DEFAULTS, Declared, EntrySpec, read_once
from beatstore.errors import InvalidEntryError
from beatstore.records import Entry
from beatstore.store import entries, insertion, many, pausing
from beatstore.store.many import AddReport
from beatstore.store.pausing import StateReport
from beatstore.store.reader import Reader
from beatstore.store.unknown_tasks import warn_of_tasks
from beatstore.types import (
    ChangeOptions,
    EntryOptions,
    ScheduleLike,
    SessionLike,
    TaskLike,
    refuse_unknown,
    takes,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Editor"]

R = TypeVar("R", AddReport, StateReport)


class Editor(Reader):
    """Adds and edits the entries of one database; see `beatstore.Store`."""

    @takes(EntryOptions, DEFAULTS)
    def add(
        self,
        name: str,
        task: TaskLike,
        schedule: ScheduleLike | None = None,
        *,
        session: SessionLike | None = None,
        **given: Unpack[EntryOptions],
    ) -> Entry:
        """Add an entry. Its first run is at the first due time after now, or after `start_at`.

        Args:
            name: a unique name of 1 to 255 characters; upper and lower case differ.
            task: a task's name, a Task, or a Signature (also a chain, group or chord). The
                arguments and options of a signature are stored with the entry.
            schedule: a Schedule, a cron expression, an aware datetime (once; at once if it has
                passed), an interval in seconds or as a timedelta (counted from `start_at` or
                now), or an object of `celery.schedules`. None, with `after`: the entry runs
                whenever all its upstreams are satisfied.
            session: the caller's session, to join its transaction.
            given: the options (`beatstore.types.EntryOptions`): the task's arguments, the
                schedule's limits, policies, upstreams, retries and tags.

        Returns:
            The entry as it is stored.

        Raises:
            EntryExistsError: the name is taken. The caller's transaction stays usable.
            EntryNotFoundError: an upstream does not exist.
            InvalidEntryError: an argument can't be stored, the entry would never be due, or an
                option does not exist.
            ScheduleError: the schedule or its zone is invalid.
        """
        asked = _with_defaults(name, task, schedule, given)
        warn_of_tasks(self._app(), [task], imported=False)
        return self._write(
            session, lambda tx: entries.add(tx, name, asked), at_once=insertion.is_at_once(asked)
        )

    def add_many(
        self,
        entries: Iterable[Declared],
        *,
        page: int | None = None,
        session: SessionLike | None = None,
    ) -> AddReport:
        """Add many entries, a thousand in a statement where the database can.

        An entry that is refused stops no other. Entries with upstreams are added one by one; an
        upstream comes before its downstreams, or is stored already.

            report = store.add_many(
                [Declared(f"tenant-{n}", "app.invoice", "0 3 1 * *", args=[n]) for n in tenants]
            )
            for one in report.refused:
                print(one.index, one.name, one.error)

        Args:
            entries: what is to be added: each a `Declared`, with the arguments of `add`.
            page: commit after each so many entries, and read no more of `entries` in advance; an
                error or an outage then leaves the pages before it. None: one transaction.
            session: the caller's session, to join its transaction; `page` does not count then.

        Returns:
            The names of what was added, and each refused entry with the reason.

        Raises:
            InvalidEntryError: `entries` is not an iterable, or `page` is no whole number above 0.
        """
        return self._add_many("entries", entries, page, session, many.add_many)

    def _add_many(
        self,
        field: str,
        given: Iterable[Any],
        page: int | None,
        session: SessionLike | None,
        write: Callable[[Transaction, Sequence[tuple[int, Any]]], AddReport],
    ) -> AddReport:
        return self._write_many(
            field, given, page, session, write, report=AddReport(), task_of=many.task_of
        )

    def _write_many(
        self,
        field: str,
        given: Iterable[Any],
        page: int | None,
        session: SessionLike | None,
        write: Callable[[Transaction, Sequence[tuple[int, Any]]], R],
        *,
        report: R,
        task_of: Callable[[Any], object] | None = None,
    ) -> R:
        """Write what is given, in pages if that is asked for; add what came of each to `report`."""
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise InvalidEntryError(field, given, "an iterable", "[…]")
        size = None if page is None else fields.whole("page", page, least=1)
        numbered = enumerate(given)
        while some := list(islice(numbered, size if session is None else None)):
            if task_of is not None:
                warn_of_tasks(self._app(), (task_of(one) for _, one in some), imported=False)
            report += self._write(session, _with(write, some))
        return report

    @takes(EntryOptions, DEFAULTS)
    def put(
        self,
        name: str,
        task: TaskLike,
        schedule: ScheduleLike | None = None,
        *,
        session: SessionLike | None = None,
        **given: Unpack[EntryOptions],
    ) -> Entry:
        """Add an entry, or update the entry of that name to what the arguments say.

        An option that you leave out gets the default of `add`. If nothing differs, nothing is
        written, so you can call this at every start of a program. A paused entry stays paused;
        `paused=True` pauses it. One that is over stays over unless its schedule changes, or gets a
        later `end_at` or more `max_runs`.
        Concurrent calls create one row.

        Args:
            name: the entry's name of 1 to 255 characters; upper and lower case differ.
            task: a task's name, a Task or a Signature.
            schedule: a Schedule, or what `add` takes for one; None, with `after`, for an entry
                without a schedule.
            session: the caller's session, to join its transaction.
            given: the options (`beatstore.types.EntryOptions`), those of `add`.

        Returns:
            The entry as it is stored.

        Raises:
            EntryNotFoundError: an upstream does not exist.
            InvalidEntryError: an argument can't be stored, the entry would never be due, or an
                option does not exist.
            ScheduleError: the schedule or its zone is invalid.
        """
        asked = _with_defaults(name, task, schedule, given)
        warn_of_tasks(self._app(), [task], imported=False)
        return self._write(session, lambda tx: entries.put(tx, name, asked))

    @takes(ChangeOptions)
    def change(
        self,
        name: str,
        *,
        if_version: int | None = None,
        session: SessionLike | None = None,
        **given: Unpack[ChangeOptions],
    ) -> Entry:
        """Edit some fields of an entry, and leave the others as they are.

        A new schedule counts from now: it does not make up for occurrences before the edit. It
        makes a finished, missed, cancelled or broken entry active again; a paused entry stays
        paused.

        Args:
            name: the entry's name.
            if_version: the `version` of the entry as you read it: if somebody has edited it
                since, the change is refused, so that it does not overwrite theirs. None: change
                it anyway.
            session: the caller's session, to join its transaction.
            given: what changes (`beatstore.types.ChangeOptions`): the options of `add`,
                `task`, `schedule` and `new_name`. `args`, `kwargs` and `options` replace
                the stored ones.

        Returns:
            The entry as it is stored. Its `version` is higher if anything changed.

        Raises:
            EntryNotFoundError: there is no such entry, or no such upstream.
            EntryExistsError: the new name is taken.
            EntryChangedError: the entry has another version than `if_version`.
            InvalidEntryError: a value can't be stored, the entry would never be due, or a field
                does not exist.
            ScheduleError: the schedule or its zone is invalid.
        """
        refuse_unknown(given, ChangeOptions)
        asked = read_once(given)
        warn_of_tasks(self._app(), [asked.get("task")], imported=False)
        return self._write(session, lambda tx: entries.change(tx, name, asked, if_version))

    def pause(self, name: str, *, session: SessionLike | None = None) -> Entry:
        """Pause an entry: it sends nothing until it is resumed.

        An entry that is paused, over or broken is left as it is.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        return self._write(session, lambda tx: pausing.pause(tx, name))

    def resume(self, name: str, *, session: SessionLike | None = None) -> Entry:
        """Resume a paused or broken entry; an active one is left as it is.

        Occurrences that were due meanwhile are neither run nor counted as missed. A one-shot
        whose time has passed becomes `missed`.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: it is finished, missed or cancelled.
        """
        return self._write(session, lambda tx: pausing.resume(tx, name))

    def pause_many(
        self,
        names: Iterable[str],
        *,
        page: int | None = None,
        session: SessionLike | None = None,
    ) -> StateReport:
        """Pause many entries, a thousand in a statement; each as `pause` does.

            store.pause_many(store.names(tag="etl", limit=100_000))

        Args:
            names: the names of the entries.
            page: commit after each so many entries; see `add_many`. None: one transaction, in
                which no beat sends any of these entries until it is over.
            session: the caller's session, to join its transaction; `page` does not count then.

        Returns:
            The state of each entry now, and each refused name with the reason: no entry has it,
            or it is no text.

        Raises:
            InvalidEntryError: `names` is not an iterable, or `page` is no whole number above 0.
        """
        write = pausing.pause_many
        return self._write_many("names", names, page, session, write, report=StateReport())

    def resume_many(
        self,
        names: Iterable[str],
        *,
        page: int | None = None,
        session: SessionLike | None = None,
    ) -> StateReport:
        """Resume many entries, a thousand in a statement; each as `resume` does.

        Args:
            names: the names of the entries.
            page: commit after each so many entries; see `add_many`. None: one transaction.
            session: the caller's session, to join its transaction; `page` does not count then.

        Returns:
            The state of each entry now, and each refused name with the reason: no entry has it,
            or it is finished, missed or cancelled; or it is no text.

        Raises:
            InvalidEntryError: `names` is not an iterable, or `page` is no whole number above 0.
        """
        write = pausing.resume_many
        return self._write_many("names", names, page, session, write, report=StateReport())

    def remove(self, name: str, *, session: SessionLike | None = None) -> None:
        """Delete an entry. Its runs stay on record; unsent ones are cancelled.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        self._write(session, lambda tx: entries.remove(tx, name))


def _with(
    write: Callable[[Transaction, Sequence[tuple[int, Any]]], R],
    page: Sequence[tuple[int, Any]],
) -> Callable[[Transaction], R]:
    return lambda tx: write(tx, page)


def _with_defaults(
    name: str, task: TaskLike, schedule: ScheduleLike | None, given: EntryOptions
) -> dict[str, Any]:
    """Return all fields of an entry, with defaults for those that were not given."""
    refuse_unknown(given, EntryOptions)
    return read_once(EntrySpec(name, task, schedule, **given).given())
