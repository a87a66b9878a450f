"""The Python API: entries are added, edited, listed and cancelled through a `Store`.

Each method is one transaction: its own, committed when the method returns; or, with
`session=`, the caller's, in which nothing is visible to others before they commit and
everything is undone when they roll back. Beat looks at what was committed at its next
tick; nothing needs to be told to it.

Entries, runs and changes are returned as values (see `beatstore.records`), safe to keep. They
can't be changed, and no session takes them; `change` edits an entry.

On failure: arguments are refused with an error naming the argument (see
`beatstore.errors`). A database that does not answer is an `UnavailableError`, and
missing tables are a `SchemaError`; in a caller's session the driver's own error about
the connection comes through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from beatstore.definition import edges, fields
from beatstore.definition.edges import After
from beatstore.definition.spec import DEFAULTS, Declared
from beatstore.errors import LoadError
from beatstore.records import Entry, Run
from beatstore.store import actions, links, retention
from beatstore.store.editor import Editor
from beatstore.store.explain.entry import Explanation
from beatstore.store.history import RunDetails
from beatstore.store.status import BeatStatus, Health, Status, WorkerStatus
from beatstore.store.strangers import warn_of_tasks
from beatstore.store.sync import sync
from beatstore.store.sync.sync import SyncReport
from beatstore.store.transfer import load
from beatstore.store.transfer.load import LoadReport
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
    "After",
    "BeatStatus",
    "Explanation",
    "Health",
    "LoadReport",
    "Occurrence",
    "RunDetails",
    "Status",
    "Store",
    "SyncReport",
    "WorkerStatus",
]

_NONE: Mapping[str, str] = MappingProxyType({})


class Store(Editor):
    """The entries and runs of one database.

    Making a Store connects to nothing, so it can be made at import time and used in
    every thread and child process.

    Args:
        target: an SQLAlchemy URL, or an Engine of the application's own.
        settings: the `beatstore_*` settings; None for the defaults, whatever an app has set:
            `Store.from_app(app, engine=…)` goes by those of the app. `repr(store)` says whose
            they are, and a store that leaves out those of its application warns of that.
        engine_options: keyword arguments for `sqlalchemy.create_engine`, with a URL
            only; None takes those of the settings.
        schema: database schema of the tables; None takes that of the settings.
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
        """Add a one-shot: send `signature` once, at a time, or after others.

        Args:
            signature: any signature, chain, group or chord; or a task or its name.
            at: when; an aware datetime. One that has passed means at once. Without `at`
                and `countdown` it is due when all that it comes `after` have ended.
            countdown: or in how many seconds, by the database's clock.
            name: to find it by; None makes one of the task's name.
            session: the caller's session, to join its transaction.
            given: the options (`beatstore.types.OneShotOptions`).

        Returns:
            The entry as it is stored, with its name.

        Raises:
            InvalidEntryError: an argument can't be stored, there is no such option, or
                neither or both of `at` and `countdown` are given, here or by the
                signature's own `eta` and `countdown`.
            EntryExistsError: the name is taken.
            EntryNotFoundError: an upstream does not exist.
        """
        refuse_unknown(given, OneShotOptions)
        wanted = {name: DEFAULTS[name] for name in OneShotOptions.__annotations__} | given
        wanted |= {"name": name, "after": wanted["after"] and edges.wanted(wanted["after"])}
        warn_of_tasks(self._app(), [signature], imported=False)
        return self._write(
            session, lambda tx: actions.schedule(tx, signature, at, countdown, wanted)
        )

    def trigger(self, name: str, *, session: SessionLike | None = None) -> Run:
        """Run an entry now, beside its schedule; also one that is paused or over.

        Returns:
            The run; beat sends it at its next tick. It counts towards `max_runs`.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: it is cancelled or broken.
        """
        return self._write(session, lambda tx: actions.trigger(tx, name))

    def rerun(self, run: Run | int | str, *, session: SessionLike | None = None) -> Run:
        """Send a run that is over once more, as a next attempt of the same occurrence.

        Whatever its entry waits for; also when that is paused. How it ends counts for the
        downstreams as any other completion does.

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
        """End a run that no worker will report, as when its message was lost or purged.

        Beat does at its next tick what follows from that: the next attempt, the counters, the
        downstreams, and what waits for this run with `overlap`. A message that is still under
        way is not taken back; the start-once guard drops it, and without the guard a worker
        that reports it is believed as for a lost run.

        Args:
            run: a run that is `sent` or `started`, its id, or the id of its task.
            state: what to make of it: succeeded, failed or cancelled.
            reason: why, for whoever looks at the run later.
            session: the caller's session, to join its transaction.

        Returns:
            The run as it is now.

        Raises:
            InvalidEntryError: there is no such run, it is in another state, or `state` is
                none of these.
        """
        given = run.id if isinstance(run, Run) else run
        return self._write(session, lambda tx: actions.end(tx, given, state, reason))

    def cancel(self, name: str, *, session: SessionLike | None = None) -> bool:
        """End an entry for good, if that is in time.

        Returns:
            True if nothing more of it will be due, now or after an earlier `cancel`;
            what was triggered and not yet sent is cancelled too. False if it was too
            late: its last run has been sent or is about to be, or its time was missed.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        return self._write(session, lambda tx: actions.cancel(tx, name))

    def reschedule(self, name: str, at: datetime, *, session: SessionLike | None = None) -> bool:
        """Move a one-shot to another time, if that is in time.

        A missed one is put back into service; a paused one stays paused.

        Returns:
            False if it was too late: it has been sent, is about to be, or was cancelled.

        Raises:
            EntryNotFoundError: there is no such entry.
            InvalidEntryError: it is not a one-shot, or `at` is naive.
        """
        return self._write(session, lambda tx: actions.reschedule(tx, name, at))

    # -- dependencies ----------------------------------------------------------------------

    def link(self, name: str, *after: str | After, session: SessionLike | None = None) -> Entry:
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
        return self._write(session, lambda tx: links.link(tx, name, edges.wanted(after)))

    def unlink(self, name: str, *upstreams: str, session: SessionLike | None = None) -> Entry:
        """Let an entry wait for these no longer.

        Returns:
            The downstream as it is stored.

        Raises:
            EntryNotFoundError: one of them does not exist.
            InvalidEntryError: one of them is no upstream of it.
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
        """Store the entries that `export` wrote, here or in another database.

        A new entry goes on where it was: its cursor and counters come along, and what
        fell due since then is made up for by its misfire policy. Let no beat run where it
        came from, or both send it. An entry that is here already keeps its own progress.
        Without `session` this is one transaction; what is read is checked before it.

        Args:
            documents: lines of JSON (an open file), or the dicts of `export`.
            replace: make entries that are here already as their documents say; otherwise
                one that differs is refused.
            keep_going: load the others, where some are refused.
            dry_run: write nothing, and report what would become of them.
            session: the caller's session, to join its transaction.

        Raises:
            LoadError: some were refused, and nothing was written.
            InvalidEntryError: the header says another format.
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
        """Make the entries of a source what its code says now.

        A field that somebody has edited since the last sync keeps the edit, and so does
        an entry that was paused or cancelled. What is no longer declared is cancelled; when
        it comes back, it goes on as it was. Entries of other sources are left alone, but
        for those that their own code has let go of: declared here, they move here. Once
        more with the same entries changes nothing.

        Args:
            entries: all that `source` declares.
            source: who owns the entries: any name but "api".
            dry_run: only say what would be done.
            refused: names that could not be declared, each with the reason. They are
                reported, and their rows are left as they are.
            session: the caller's session, to join its transaction.

        Returns:
            What was done. An entry that can't be stored is refused there, and the others
            go on.

        Raises:
            InvalidEntryError: `source` is no name for code, or one of `entries` is no
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
        """Do the same for several sources at once.

        So entries may wait for those of another source, and move from one to another.

        Args:
            sources: by its name, what each source declares, and what it refuses itself.
            owned: a source whose name begins so and that is not among them is gone, with
                all that it declared.
            dry_run: only say what would be done.
            session: the caller's session, to join its transaction.

        Returns:
            A report for each source, and for those that are gone, where that changed
            anything.

        Raises:
            InvalidEntryError: a source is no name for code, or something declared is no
                `Declared`.
        """
        given = {name: (list(declared), refused) for name, (declared, refused) in sources.items()}
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
        """Delete what is over and old: one-shots, runs, and what the audit says of then.

        The newest run of an entry that recurs stays, and so do its last 5 errors, a run
        that has not ended, and a one-shot that others wait for. Without `session` each
        1,000 rows are a transaction of their own, so that nobody waits for long. Beat
        does the same by itself, by the setting.

        Args:
            older_than: seconds, or a timedelta; None takes the setting
                `beatstore_retention`.
            progress: called after each page, with how many old runs were looked at, and
                how many there were to begin with.
            session: the caller's session, to join its transaction.

        Returns:
            How many entries and runs were deleted.
        """
        age = self.settings.retention if older_than is None else older_than
        kept = timedelta(seconds=fields.seconds("older_than", age))
        before = self._read(session, lambda tx: tx.now()) - kept
        return retention.prune(partial(self._write, session), before, progress)
