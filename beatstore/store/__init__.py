"""The Python API: entries are added, edited, listed and cancelled through a `Store`.

Each method runs in one transaction. By default that is its own, and the method commits it before
it returns. With `session=` it is the caller's: others see the change when the caller commits, and
a rollback undoes it. Beat reads committed changes at its next tick; it needs no notice.

Entries, runs and changes are returned as immutable values (see `beatstore.records`), which are
safe to keep and belong to no session. `change` edits an entry.

On failure: an invalid argument raises an error that names the argument (see `beatstore.errors`).
A database that does not answer raises `UnavailableError`, and missing tables raise `SchemaError`.
In a caller's session, the driver's own error about the connection is raised unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from beatstore.definition import edges, fields
from beatstore.definition.edges import After
from beatstore.definition.spec import DEFAULTS, Declared, read_once
from beatstore.errors import LoadError
from beatstore.records import Entry, Run
from beatstore.store import actions, insertion, links, many, retention
from beatstore.store.coming_load import UpcomingCounts
from beatstore.store.editor import Editor
from beatstore.store.explain.entry import Explanation
from beatstore.store.figures import FailureGroup, RunCount
from beatstore.store.history import RunDetails
from beatstore.store.many import AddReport, Refused
from beatstore.store.pausing import StateReport
from beatstore.store.processes import BeatStatus, WorkerStatus
from beatstore.store.status import Health, Status
from beatstore.store.storage import Storage, TableSize
from beatstore.store.sync import sync
from beatstore.store.sync.sync import SyncReport
from beatstore.store.transfer import load
from beatstore.store.transfer.load import LoadReport
from beatstore.store.unknown_tasks import warn_of_tasks
from beatstore.store.upcoming import Occurrence
from beatstore.types import (
    Duration,
    EndState,
    OneShotOptions,
    SessionLike,
    TaskLike,
    refuse_unknown,
    takes,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "AddReport",
    "After",
    "BeatStatus",
    "Explanation",
    "FailureGroup",
    "Health",
    "LoadReport",
    "Occurrence",
    "Refused",
    "RunCount",
    "RunDetails",
    "StateReport",
    "Status",
    "Storage",
    "Store",
    "SyncReport",
    "TableSize",
    "UpcomingCounts",
    "WorkerStatus",
]

_NONE: Mapping[str, str] = MappingProxyType({})

#: The options of a one-shot, as they are when they are left out.
_ONE_SHOT = {name: DEFAULTS[name] for name in OneShotOptions.__annotations__}


class Store(Editor):
    """The entries and runs of one database.

    Creating a Store does not connect to the database, so you can create it at import time and use
    it in every thread and child process.

    Args:
        target: an SQLAlchemy URL, or the application's own Engine.
        settings: the `beatstore_*` settings; None for the defaults, whatever an app has set.
            `Store.from_app(app, engine=…)` uses the settings of the app. `repr(store)` says
            which settings a store uses, and a store that ignores those of its app logs a warning.
        engine_options: keyword arguments for `sqlalchemy.create_engine`, only with a URL; None
            for those of the settings.
        schema: the database schema of the tables; None for that of the settings.
        clock: replaces the database's clock, for tests.

    Raises:
        ConfigError: `target` is not a database URL.
    """

    # -- one-shots and single runs ---------------------------------------------------------

    @takes(OneShotOptions, DEFAULTS)
    def schedule(
        self,
        signature: TaskLike,
        *,
        at: datetime | None = None,
        countdown: Duration | None = None,
        name: str | None = None,
        session: SessionLike | None = None,
        **given: Unpack[OneShotOptions],
    ) -> Entry:
        """Add a one-shot: send `signature` once, at a given time or after its upstreams.

        Args:
            signature: a signature, chain, group or chord; or a task or its name.
            at: the due time, an aware datetime; a past one means at once. Without `at` and
                `countdown`, the one-shot is due when all its upstreams (`after`) have ended.
            countdown: the seconds until it is due, by the database's clock.
            name: the entry's name; None for a generated one that begins with the task's name.
            session: the caller's session, to join its transaction.
            given: the options (`beatstore.types.OneShotOptions`).

        Returns:
            The entry as it is stored, with its name.

        Raises:
            InvalidEntryError: an argument can't be stored, an option does not exist, or not
                exactly one of `at` and `countdown` is given (the signature's own `eta` and
                `countdown` count, too).
            EntryExistsError: the name is taken.
            EntryNotFoundError: an upstream does not exist.
        """
        refuse_unknown(given, OneShotOptions)
        asked = read_once(_ONE_SHOT | given | {"name": name})
        warn_of_tasks(self._app(), [signature], imported=False)
        return self._write(
            session,
            lambda tx: actions.schedule(tx, signature, at, countdown, asked),
            at_once=insertion.is_at_once(asked),
        )

    @takes(OneShotOptions, DEFAULTS)
    def schedule_many(
        self,
        calls: Iterable[tuple[TaskLike, datetime | Duration]],
        *,
        page: int | None = None,
        session: SessionLike | None = None,
        **given: Unpack[OneShotOptions],
    ) -> AddReport:
        """Add many one-shots with the same options, a thousand in a statement.

            report = store.schedule_many(
                ((remind.s(user.id), user.ends_at) for user in users), tags=["remind"]
            )
            report.names, report.refused

        Args:
            calls: pairs of a task and its time. The task is what `schedule` takes; the time is an
                aware datetime, or the seconds (or a timedelta) until it is due.
            page: commit after each so many one-shots, and read no more of `calls` in advance; an
                error or an outage then leaves the pages before it. None: one transaction.
            session: the caller's session, to join its transaction; `page` does not count then.
            given: the options of all of them (`beatstore.types.OneShotOptions`).

        Returns:
            The names of what was added, and each refused one with the reason. A name is the id of
            the task if its signature has one, else a generated one.

        Raises:
            InvalidEntryError: `calls` is not an iterable, `page` is no whole number above 0, or
                an option does not exist.
        """
        refuse_unknown(given, OneShotOptions)
        write = partial(many.schedule_many, options=read_once(_ONE_SHOT | given))
        return self._add_many("calls", calls, page, session, write)

    def trigger(self, name: str, *, session: SessionLike | None = None) -> Run:
        """Run an entry once now, in addition to its schedule.

        This also works for an entry that is paused, finished or missed.

        Returns:
            The run. Beat sends it at its next tick, and it counts towards `max_runs`.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: it is cancelled or broken.
        """
        return self._write(session, lambda tx: actions.trigger(tx, name))

    def rerun(self, run: Run | int | str, *, session: SessionLike | None = None) -> Run:
        """Run an ended run again, as the next attempt of the same occurrence.

        It ignores dependencies, pause and an earlier cancel. Downstreams count its outcome too.

        Args:
            run: a run, its id, or the id of its task.
            session: the caller's session, to join its transaction.

        Returns:
            The new run; beat sends it at its next tick.

        Raises:
            InvalidEntryError: there is no such run, or it has not ended.
            EntryNotFoundError: its entry was removed.
        """
        given = run.id if isinstance(run, Run) else run
        return self._write(session, lambda tx: actions.rerun(tx, given))

    def end(
        self,
        run: Run | int | str,
        state: EndState,
        *,
        reason: str | None = None,
        session: SessionLike | None = None,
    ) -> Run:
        """End a run that no worker will report, for example because its message was purged.

        At its next tick, beat creates the next attempt, updates the counters, and wakes the
        downstreams and what waits for this run because of `overlap`. A message that is still in
        the queue is not revoked. The start-once guard drops it; without the guard, a worker's
        report replaces this outcome, as for a lost run.

        Args:
            run: a run that is `sent` or `started`, its id, or the id of its task.
            state: the outcome: succeeded, failed or cancelled.
            reason: a note that is stored with the run, and in the audit.
            session: the caller's session, to join its transaction.

        Returns:
            The run as it is now.

        Raises:
            InvalidEntryError: there is no such run, it is in another state, or `state` is not
                one of these outcomes.
        """
        given = run.id if isinstance(run, Run) else run
        return self._write(session, lambda tx: actions.end(tx, given, state, reason))

    def cancel(self, name: str, *, session: SessionLike | None = None) -> bool:
        """Cancel an entry, unless it is too late.

        Runs that were triggered or rerun and have not been sent are cancelled, too, also those
        that were rerun after an earlier call.

        Returns:
            True if the entry is cancelled, now or by an earlier call. False if it was too late:
            its own last run has been sent or is about to be, or its time was missed.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        return self._write(session, lambda tx: actions.cancel(tx, name))

    def reschedule(self, name: str, at: datetime, *, session: SessionLike | None = None) -> bool:
        """Move a one-shot to another time, unless it is too late.

        A missed one-shot becomes active again; a paused one stays paused.

        Returns:
            False if it was too late: the one-shot was sent, is about to be sent, or was cancelled.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: it is not a one-shot, or `at` is naive.
        """
        return self._write(session, lambda tx: actions.reschedule(tx, name, at))

    # -- dependencies ----------------------------------------------------------------------

    def link(self, name: str, *after: str | After, session: SessionLike | None = None) -> Entry:
        """Add upstreams to an entry; an edge that exists already is changed.

        Args:
            name: the downstream entry.
            after: its additional upstreams, as names or `After(…)`.
            session: the caller's session, to join its transaction.

        Returns:
            The downstream as it is stored.

        Raises:
            EntryNotFoundError: the entry or an upstream does not exist.
            InvalidEntryError: the edges would create a dependency cycle.
        """
        return self._write(session, lambda tx: links.link(tx, name, edges.checked(after)))

    def unlink(self, name: str, *upstreams: str, session: SessionLike | None = None) -> Entry:
        """Remove upstreams from an entry.

        Returns:
            The downstream as it is stored.

        Raises:
            EntryNotFoundError: the entry or an upstream does not exist.
            InvalidEntryError: one of `upstreams` is not an upstream of the entry.
        """
        return self._write(session, lambda tx: links.unlink(tx, name, upstreams))

    # -- from one database to another ------------------------------------------------------

    def load(
        self,
        documents: Iterable[str | bytes | Mapping[str, Any]],
        *,
        replace: bool = False,
        keep_going: bool = False,
        dry_run: bool = False,
        session: SessionLike | None = None,
    ) -> LoadReport:
        """Store entries from the documents that `export` wrote.

        A new entry continues where it stopped: its cursor and counters are loaded with it, and
        its misfire policy makes up for what has become due since. Stop the beat of the other
        database first, or both send the entry. An entry that exists already keeps its own
        progress. All documents are checked before the transaction begins.

        Args:
            documents: lines of JSON (such as an open file), or the dicts of `export`.
            replace: overwrite existing entries; by default, one that differs is refused.
            keep_going: load the other documents if some are refused.
            dry_run: write nothing, and report what would be done.
            session: the caller's session, to join its transaction.

        Raises:
            LoadError: some were refused, and nothing was written.
            InvalidEntryError: the header names another format.
        """
        now = self._read(session, lambda tx: tx.now())
        gathered = load.gather(documents, self.settings, now)
        how = {"replace": replace, "keep_going": keep_going, "dry_run": dry_run}
        try:
            report = self._write(session, lambda tx: load.write(tx, gathered, **how))
        finally:
            gathered.close()
        if report.refused and not (keep_going or dry_run):
            raise LoadError(report.refused)
        return report

    # -- declared in code ------------------------------------------------------------------

    def sync(
        self,
        entries: Iterable[Declared],
        *,
        source: str,
        dry_run: bool = False,
        refused: Mapping[str, str] = _NONE,
        session: SessionLike | None = None,
    ) -> SyncReport:
        """Update the entries of a source to what its code declares now.

        A field that somebody has edited since the last sync keeps the edit, and an entry that
        somebody has paused or cancelled stays so. An entry that is no longer declared is
        cancelled; if it is declared again, it continues as it was. Entries of other sources are
        left alone. The exception is an entry that its own code no longer declares: it moves to
        the source that declares it now. A second sync with the same entries changes nothing.

        Args:
            entries: everything that `source` declares.
            source: the owner of the entries: any name but "api".
            dry_run: write nothing, and report what would be done.
            refused: the names that could not be declared, each with the reason. The report
                lists them, and their rows stay as they are.
            session: the caller's session, to join its transaction.

        Returns:
            What was done. It lists entries that can't be stored as refused; all others are
            synced.

        Raises:
            InvalidEntryError: `source` is "api" or not a name, or one of `entries` is not a
                `Declared`.
        """
        given = {source: (entries, refused)}
        return self.sync_all(given, dry_run=dry_run, session=session)[0]

    def sync_all(
        self,
        sources: Mapping[str, tuple[Iterable[Declared], Mapping[str, str]]],
        *,
        owned: str | None = None,
        dry_run: bool = False,
        session: SessionLike | None = None,
    ) -> list[SyncReport]:
        """Sync several sources at once; see `sync`.

        Entries may then have upstreams in another source, and move from one source to another.

        Args:
            sources: for each source, by its name: what it declares, and the names that it
                refuses itself, with reasons.
            owned: a prefix of source names. A stored source with this prefix that is not among
                `sources` counts as deleted, with everything that it declared.
            dry_run: write nothing, and report what would be done.
            session: the caller's session, to join its transaction.

        Returns:
            A report for each source, and for each deleted source of which entries were cancelled.

        Raises:
            InvalidEntryError: a source is "api" or not a name, or something declared is not a
                `Declared`.
        """
        given = {name: (list(declared), refused) for name, (declared, refused) in sources.items()}
        declared = (one for entries, _ in given.values() for one in entries)
        tasks = [one.task for one in declared if isinstance(one, Declared)]
        warn_of_tasks(self._app(), tasks, imported=False)
        do = self._read if dry_run else self._write
        return do(session, lambda tx: sync.sync(tx, given, owned, dry=dry_run))

    # -- clearing --------------------------------------------------------------------------

    def prune(
        self,
        older_than: Duration | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        session: SessionLike | None = None,
    ) -> int:
        """Delete old one-shots that are over, old runs, and old rows of the audit.

        The newest run and the last 5 errors of a recurring entry stay, and so do runs that have
        not ended and one-shots that others wait for. Without `session`, each 1,000 rows are
        deleted in a transaction of their own, so that no lock is held for long. Beat prunes by
        itself, as `beatstore_retention` says.

        Args:
            older_than: the least age, in seconds or as a timedelta; None for the setting
                `beatstore_retention`.
            progress: called after each page with two numbers: how many old runs were examined,
                and how many there were at the start.
            session: the caller's session, to join its transaction.

        Returns:
            How many entries and runs were deleted.
        """
        age = self.settings.retention if older_than is None else older_than
        kept = timedelta(seconds=fields.age("older_than", age))
        before = self._read(session, lambda tx: tx.now()) - kept
        return retention.prune(partial(self._write, session), before, progress)
