"""The half of the API that adds and edits entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beatstore.definition import edges
from beatstore.definition.spec import DEFAULTS, EntrySpec
from beatstore.records import Entry
from beatstore.store import entries
from beatstore.store.reader import Reader
from beatstore.store.strangers import warn_of_tasks
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


class Editor(Reader):
    """The entries of one database, to look at and to edit; see `beatstore.Store`."""

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
        """Add an entry. It first runs at the first due time after now, or after `start_at`.

        Args:
            name: unique, 1 to 255 characters; upper and lower case differ.
            task: a task's name, a Task, or a Signature, whose arguments and options
                are taken over; a chain, group or chord too.
            schedule: a Schedule, a cron expression, an aware datetime (once, at once if
                it has passed), a number of seconds or a timedelta (every so often,
                counted from `start_at` or now), or an object of `celery.schedules`. None,
                with `after`: whenever all upstreams have ended as they should.
            session: the caller's session, to join its transaction.
            given: the options (`beatstore.types.EntryOptions`): the task's arguments, the
                schedule's limits, policies, upstreams, retries and tags.

        Returns:
            The entry as it is stored.

        Raises:
            EntryExistsError: the name is taken. The caller's transaction goes on.
            EntryNotFoundError: an upstream does not exist.
            InvalidEntryError: an argument can't be stored, nothing would ever be due, or
                there is no such option.
            ScheduleError: the schedule or its zone is invalid.
        """
        wanted = _wanted(name, task, schedule, given)
        warn_of_tasks(self._app(), [task], imported=False)
        return self._write(session, lambda tx: entries.add(tx, name, wanted))

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
        """Add an entry, or make the one of that name what the arguments say.

        What is left out counts as well: it becomes what `add` would make of it. Where
        nothing differs nothing is written, so calling this at every start costs no run
        and no edit. An entry that was paused stays paused, and one that is over stays
        over unless its schedule changes; `paused=True` pauses it. Two calls at the same
        time leave one row.

        Args:
            name: which entry; 1 to 255 characters, upper and lower case differ.
            task: a task's name, a Task or a Signature.
            schedule: a Schedule, or what stands for one; None, with `after`, for an entry
                without a schedule of its own.
            session: the caller's session, to join its transaction.
            given: the options (`beatstore.types.EntryOptions`), those of `add`.

        Returns:
            The entry as it is stored.

        Raises:
            EntryNotFoundError: an upstream does not exist.
            InvalidEntryError: an argument can't be stored, nothing would ever be due, or
                there is no such option.
            ScheduleError: the schedule or its zone is invalid.
        """
        wanted = _wanted(name, task, schedule, given)
        warn_of_tasks(self._app(), [task], imported=False)
        return self._write(session, lambda tx: entries.put(tx, name, wanted))

    @takes(ChangeOptions)
    def change(
        self, name: str, *, session: SessionLike | None = None, **given: Unpack[ChangeOptions]
    ) -> Entry:
        """Edit some fields of an entry, and leave the others as they are.

        A new schedule counts from now: occurrences before the edit are not made up for.
        It puts an entry back into service that is finished, missed, cancelled or
        broken, but not one that is paused.

        Args:
            name: which entry.
            session: the caller's session, to join its transaction.
            given: what changes (`beatstore.types.ChangeOptions`): the options of `add`,
                `task`, `schedule` and `new_name`. `args`, `kwargs` and `options` replace
                what was stored.

        Returns:
            The entry as it is stored; `version` has grown if anything differed.

        Raises:
            EntryNotFoundError: there is no such entry, or no such upstream.
            EntryExistsError: the new name is taken.
            InvalidEntryError: a value can't be stored, nothing would ever be due, or there
                is no such field.
            ScheduleError: the schedule or its zone is invalid.
        """
        refuse_unknown(given, ChangeOptions)
        wanted: dict[str, Any] = {**given}
        if wanted.get("after"):
            wanted["after"] = edges.wanted(wanted["after"])
        warn_of_tasks(self._app(), [wanted.get("task")], imported=False)
        return self._write(session, lambda tx: entries.change(tx, name, wanted))

    def pause(self, name: str, *, session: SessionLike | None = None) -> Entry:
        """Let an entry send nothing until it is resumed; nothing happens if it is paused.

        An entry that is over or broken sends nothing anyway, and is left as it is.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        return self._write(session, lambda tx: entries.pause(tx, name))

    def resume(self, name: str, *, session: SessionLike | None = None) -> Entry:
        """Put a paused or broken entry back into service; nothing happens if it is active.

        What was due while it was paused is neither run nor counted as missed; a
        one-shot whose time passed becomes `missed`.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: it is finished, missed or cancelled.
        """
        return self._write(session, lambda tx: entries.resume(tx, name))

    def remove(self, name: str, *, session: SessionLike | None = None) -> None:
        """Delete an entry; its runs stay on record, and those not yet sent are cancelled.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        self._write(session, lambda tx: entries.remove(tx, name))


def _wanted(
    name: str, task: TaskLike, schedule: ScheduleLike | None, given: EntryOptions
) -> dict[str, Any]:
    """Return all that an entry is made of, with the defaults of what was not given."""
    refuse_unknown(given, EntryOptions)
    wanted = EntrySpec(name, task, schedule, **given).given()
    # What can be gone through only once is needed twice.
    return {**wanted, "after": wanted["after"] and edges.wanted(wanted["after"])}
