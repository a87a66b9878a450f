"""The half of the API that adds and edits entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from beatstore.models import Entry
from beatstore.store import entries, links
from beatstore.store.links import After
from beatstore.store.reader import Reader

__all__ = ["Duration", "Editor"]

#: Seconds, or a timedelta.
Duration = float | timedelta


class Editor(Reader):
    """The entries of one database, to look at and to edit; see `beatstore.Store`."""

    def add(
        self,
        name: str,
        task: Any,
        schedule: Any = None,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        timezone: str | None = None,
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        max_runs: int | None = None,
        jitter: Duration | None = None,
        misfire: str | None = None,
        grace: Duration | None = None,
        after: Iterable[str | After] = (),
        overlap: str = "allow",
        run_timeout: Duration | None = None,
        max_retries: int = 0,
        retry_delay: Duration = 300,
        retry_backoff: float = 1,
        retry_jitter: Duration = 0,
        tags: Iterable[str] = (),
        description: str | None = None,
        source: str = "api",
        paused: bool = False,
        session: Any = None,
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
            args: JSON; given with a Signature, they replace its own.
            kwargs: JSON; added to those of a Signature, and stronger.
            options: what `apply_async` takes, except the time; added to those of
                a Signature, and stronger. `expires` counts from sending.
            timezone: IANA zone the schedule is meant in, where it names none itself;
                None takes the setting `beatstore_default_timezone`. The zone is stored.
            start_at: nothing is due before.
            end_at: nothing is due after.
            max_runs: the entry is finished when so many runs have been sent.
            jitter: the entry is sent up to so many seconds late, by always the same
                part of them, so that entries due together spread out.
            misfire: what happens to occurrences that beat sees too late: "skip",
                "coalesce" (they become one) or "all"; None takes the setting.
            grace: how many seconds late is too late; None takes the setting.
            after: the entries whose runs this one waits for: names, or `After(…)` to say
                what is asked of them.
            overlap: what happens to an occurrence while a run of the entry has not ended:
                "allow", "skip" (it is recorded) or "wait" (those that wait become one).
            run_timeout: how long, from sending, a run may go without any report of a
                worker before it is asked after and called lost; None: for ever. A run whose
                worker is heard from is never given up; `time_limit` of the task stops it.
            max_retries: how many more attempts a run that failed or was lost is given.
            retry_delay: seconds from a failure to the next attempt.
            retry_backoff: each further delay is so many times the one before, up to a day.
            retry_jitter: up to so many seconds more, to spread the attempts of many runs.
            tags: words of 1 to 64 characters by which entries are found.
            description: for people.
            source: who owns the entry.
            paused: add it without running it; see `resume`.
            session: the caller's session, to join its transaction.

        Returns:
            The entry as it is stored.

        Raises:
            EntryExistsError: the name is taken. The caller's transaction goes on.
            EntryNotFoundError: an upstream does not exist.
            InvalidEntryError: an argument can't be stored, or nothing would ever be due.
            ScheduleError: the schedule or its zone is invalid.
        """
        given = {
            **_call(task, args, kwargs, options),
            **{"schedule": schedule, "timezone": timezone, "start_at": start_at},
            **{"end_at": end_at, "max_runs": max_runs, "jitter": jitter},
            **{"misfire": misfire, "grace": grace, "after": after and links.wanted(after)},
            **{"overlap": overlap, "run_timeout": run_timeout},
            **{"max_retries": max_retries, "retry_delay": retry_delay},
            **{"retry_backoff": retry_backoff, "retry_jitter": retry_jitter},
            **{"tags": tags, "description": description},
            **{"source": source, "paused": paused},
        }
        return self._write(session, lambda tx: entries.add(tx, name, given))

    def put(
        self,
        name: str,
        task: Any,
        schedule: Any = None,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        timezone: str | None = None,
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        max_runs: int | None = None,
        jitter: Duration | None = None,
        misfire: str | None = None,
        grace: Duration | None = None,
        after: Iterable[str | After] = (),
        overlap: str = "allow",
        run_timeout: Duration | None = None,
        max_retries: int = 0,
        retry_delay: Duration = 300,
        retry_backoff: float = 1,
        retry_jitter: Duration = 0,
        tags: Iterable[str] = (),
        description: str | None = None,
        source: str = "api",
        paused: bool = False,
        session: Any = None,
    ) -> Entry:
        """Add an entry, or make the one of that name what the arguments say.

        What is left out counts as well: it becomes what `add` would make of it. Where
        nothing differs nothing is written, so calling this at every start costs no run
        and no edit. An entry that was paused stays paused, and one that is over stays
        over unless its schedule changes; `paused=True` pauses it. Two calls at the same
        time leave one row.

        Args: as in `add`.

        Returns:
            The entry as it is stored.

        Raises:
            InvalidEntryError: as in `add`.
            ScheduleError: as in `add`.
        """
        given = {
            **_call(task, args, kwargs, options),
            **{"schedule": schedule, "timezone": timezone, "start_at": start_at},
            **{"end_at": end_at, "max_runs": max_runs, "jitter": jitter},
            **{"misfire": misfire, "grace": grace, "after": after and links.wanted(after)},
            **{"overlap": overlap, "run_timeout": run_timeout},
            **{"max_retries": max_retries, "retry_delay": retry_delay},
            **{"retry_backoff": retry_backoff, "retry_jitter": retry_jitter},
            **{"tags": tags, "description": description},
            **{"source": source, "paused": paused},
        }
        return self._write(session, lambda tx: entries.put(tx, name, given))

    def change(self, name: str, *, session: Any = None, **given: Any) -> Entry:
        """Edit some fields of an entry, and leave the others as they are.

        A new schedule counts from now: occurrences before the edit are not made up for.
        It puts an entry back into service that is finished, missed, cancelled or
        broken, but not one that is paused.

        Args:
            name: which entry.
            session: the caller's session, to join its transaction.
            given: any argument of `add` after the name, and `new_name`. `args`,
                `kwargs` and `options` replace what was stored.

        Returns:
            The entry as it is stored; `version` has grown if anything differed.

        Raises:
            EntryNotFoundError: there is no such entry.
            EntryExistsError: the new name is taken.
            InvalidEntryError: as in `add`; or there is no such field.
            ScheduleError: as in `add`.
        """
        if given.get("after"):
            given["after"] = links.wanted(given["after"])
        return self._write(session, lambda tx: entries.change(tx, name, given))

    def pause(self, name: str, *, session: Any = None) -> Entry:
        """Let an entry send nothing until it is resumed; nothing happens if it is paused.

        An entry that is over or broken sends nothing anyway, and is left as it is.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        return self._write(session, lambda tx: entries.pause(tx, name))

    def resume(self, name: str, *, session: Any = None) -> Entry:
        """Put a paused or broken entry back into service; nothing happens if it is active.

        What was due while it was paused is neither run nor counted as missed; a
        one-shot whose time passed becomes `missed`.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: it is finished, missed or cancelled.
        """
        return self._write(session, lambda tx: entries.resume(tx, name))

    def remove(self, name: str, *, session: Any = None) -> None:
        """Delete an entry; its runs stay on record, and those not yet sent are cancelled.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        self._write(session, lambda tx: entries.remove(tx, name))


def _call(task: Any, args: Any, kwargs: Any, options: Any) -> dict[str, Any]:
    """Return the arguments about the message; an empty one leaves a signature's own alone."""
    return {
        "task": task,
        "args": args or None,
        "kwargs": kwargs or None,
        "options": options or None,
    }
