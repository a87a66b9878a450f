"""The Python API: entries are added, edited, listed and cancelled through a `Store`.

Each method is one transaction: its own, committed when the method returns; or, with
`session=`, the caller's, in which nothing is visible to others before they commit and
everything is undone when they roll back. Beat looks at what was committed at its next
tick; nothing needs to be told to it.

Entries and runs are returned as snapshots: plain detached objects with all columns
loaded, safe to keep, and not written back when they are changed.

On failure: arguments are refused with an error naming the argument (see
`beatstore.errors`). A database that does not answer is an `UnavailableError`, and
missing tables are a `SchemaError`; in a caller's session the driver's own error about
the connection comes through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from beatstore.models import Entry, Run
from beatstore.store import entries, fields, links, retention
from beatstore.store.answers import Explanation
from beatstore.store.links import After
from beatstore.store.reader import Reader
from beatstore.store.standing import BeatStatus, Status, WorkerStatus

__all__ = ["After", "BeatStatus", "Explanation", "Status", "Store", "WorkerStatus"]

#: Seconds, or a timedelta.
Duration = float | timedelta


class Store(Reader):
    """The entries and runs of one database.

    Making a Store connects to nothing, so it can be made at import time and used in
    every thread and child process.

    Args:
        target: an SQLAlchemy URL, or an Engine of the application's own.
        settings: the `beatstore_*` settings; None for the defaults.
        engine_options: keyword arguments for `sqlalchemy.create_engine`, with a URL
            only; None takes those of the settings.
        schema: database schema of the tables; None takes that of the settings.
        clock: replaces the database's clock, for tests.

    Raises:
        ConfigError: `target` is not a database URL.
    """

    # -- adding and editing --------------------------------------------------------------

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

    # -- one-shots and single runs ---------------------------------------------------------

    def schedule(
        self,
        signature: Any,
        *,
        at: datetime | None = None,
        countdown: Duration | None = None,
        name: str | None = None,
        misfire: str | None = None,
        grace: Duration | None = None,
        after: Iterable[str | After] = (),
        run_timeout: Duration | None = None,
        max_retries: int = 0,
        retry_delay: Duration = 300,
        retry_backoff: float = 1,
        retry_jitter: Duration = 0,
        tags: Iterable[str] = (),
        description: str | None = None,
        session: Any = None,
    ) -> Entry:
        """Add a one-shot: send `signature` once, at a time, or after others.

        Args:
            signature: any signature, chain, group or chord; or a task or its name.
            at: when; an aware datetime. One that has passed means at once.
            countdown: or in how many seconds, by the database's clock.
            name: to find it by; None makes one of the task's name.
            misfire: as in `add`.
            grace: as in `add`.
            after: as in `add`; without `at` and `countdown`, it is due when they have ended.
            run_timeout: as in `add`.
            max_retries: as in `add`.
            retry_delay: as in `add`.
            retry_backoff: as in `add`.
            retry_jitter: as in `add`.
            tags: as in `add`.
            description: as in `add`.
            session: the caller's session, to join its transaction.

        Returns:
            The entry as it is stored, with its name.

        Raises:
            InvalidEntryError: as in `add`; or neither or both of `at` and `countdown`
                are given, here or by the signature's own `eta` and `countdown`.
            EntryExistsError: the name is taken.
        """
        given = {
            **{"name": name, "misfire": misfire, "grace": grace},
            **{"after": after and links.wanted(after)},
            **{"run_timeout": run_timeout, "max_retries": max_retries},
            **{"retry_delay": retry_delay, "retry_backoff": retry_backoff},
            **{"retry_jitter": retry_jitter, "tags": tags, "description": description},
        }
        return self._write(
            session, lambda tx: entries.schedule(tx, signature, at, countdown, given)
        )

    def trigger(self, name: str, *, session: Any = None) -> Run:
        """Run an entry now, beside its schedule; also one that is paused or over.

        Returns:
            The run; beat sends it at its next tick. It counts towards `max_runs`.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: it is cancelled or broken.
        """
        return self._write(session, lambda tx: entries.trigger(tx, name))

    def rerun(self, run: Run | int, *, session: Any = None) -> Run:
        """Send a run that is over once more, as a next attempt of the same occurrence.

        Whatever its entry waits for; also when that is paused. How it ends counts for the
        downstreams as any other completion does.

        Args:
            run: a run, or its id.
            session: the caller's session, to join its transaction.

        Returns:
            The new run; beat sends it at its next tick.

        Raises:
            InvalidEntryError: there is no such run, or it has not ended.
            EntryNotFoundError: its entry was removed.
        """
        run_id = run.id if isinstance(run, Run) else run
        return self._write(session, lambda tx: entries.rerun(tx, run_id))

    def cancel(self, name: str, *, session: Any = None) -> bool:
        """End an entry for good, if that is in time.

        Returns:
            True if nothing more of it will be due, now or after an earlier `cancel`;
            what was triggered and not yet sent is cancelled too. False if it was too
            late: its last run has been sent or is about to be, or its time was missed.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        return self._write(session, lambda tx: entries.cancel(tx, name))

    def reschedule(self, name: str, at: datetime, *, session: Any = None) -> bool:
        """Move a one-shot to another time, if that is in time.

        A missed one is put back into service; a paused one stays paused.

        Returns:
            False if it was too late: it has been sent, is about to be, or was cancelled.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: it is not a one-shot, or `at` is naive.
        """
        return self._write(session, lambda tx: entries.reschedule(tx, name, at))

    # -- dependencies ----------------------------------------------------------------------

    def link(self, name: str, *after: str | After, session: Any = None) -> Entry:
        """Let an entry wait for others too; an edge that is there already is changed.

        Args:
            name: the downstream.
            after: upstreams: names, or `After(…)`.
            session: the caller's session, to join its transaction.

        Returns:
            The downstream as it is stored.

        Raises:
            EntryNotFoundError: one of them does not exist.
            InvalidEntryError: an upstream would wait for this entry, directly or not.
        """
        return self._write(session, lambda tx: links.link(tx, name, links.wanted(after)))

    def unlink(self, name: str, *upstreams: str, session: Any = None) -> Entry:
        """Let an entry wait for these no longer.

        Returns:
            The downstream as it is stored.

        Raises:
            EntryNotFoundError: one of them does not exist.
            InvalidEntryError: one of them is no upstream of it.
        """
        return self._write(session, lambda tx: links.unlink(tx, name, upstreams))

    # -- clearing --------------------------------------------------------------------------

    def prune(self, older_than: Duration | None = None, *, session: Any = None) -> int:
        """Delete what is over and old: one-shots, runs, and what the audit says of then.

        The newest run of an entry that recurs stays, and so do its last 5 errors, a run
        that has not ended, and a one-shot that others wait for. Without `session` each
        1,000 rows are a transaction of their own, so that nobody waits for long. Beat
        does the same by itself, by the setting.

        Args:
            older_than: seconds, or a timedelta; None takes the setting
                `beatstore_retention`.
            session: the caller's session, to join its transaction.

        Returns:
            How many entries and runs were deleted.
        """
        age = self.settings.retention if older_than is None else older_than
        kept = timedelta(seconds=fields.seconds("older_than", age))
        before = self._read(session, lambda tx: tx.now()) - kept
        return retention.prune(partial(self._write, session), before)


def _call(task: Any, args: Any, kwargs: Any, options: Any) -> dict[str, Any]:
    """Return the arguments about the message; an empty one leaves a signature's own alone."""
    return {
        "task": task,
        "args": args or None,
        "kwargs": kwargs or None,
        "options": options or None,
    }
