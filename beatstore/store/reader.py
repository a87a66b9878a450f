"""The half of the API that only reads."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from beatstore.database import transaction
from beatstore.database.rows import Transaction
from beatstore.definition import fields
from beatstore.records import Audit, Entry, Run
from beatstore.rules.graph import Edge, Graph
from beatstore.schedules import zone
from beatstore.store import audit, entries, extras, graphs, history, status, upcoming
from beatstore.store.explain import entry as answers
from beatstore.store.explain import occurrence
from beatstore.store.explain.entry import Explanation
from beatstore.store.history import RunDetails
from beatstore.store.overview import Overview
from beatstore.store.status import Health, Status
from beatstore.store.transfer import export as transfer
from beatstore.store.upcoming import Occurrence
from beatstore.types import (
    Duration,
    EntryExtra,
    EntryOnly,
    EntryState,
    Page,
    RunSort,
    RunState,
    SessionLike,
)

__all__ = ["Reader"]


class Reader(Overview):
    """Reads the entries and runs of one database; see `beatstore.Store`."""

    @contextmanager
    def reading(self, *, timeout: Duration = 5.0) -> Iterator[Session]:
        """Open a transaction in which several calls read one state of the database.

            with store.reading() as session:
                page = store.entries(limit=50, session=session)
                runs = store.last_runs([entry.name for entry in page], session=session)

        The database refuses to write in it, and ends each statement that takes too long. After an
        error, open another one: some databases answer nothing more in the same transaction.

        Args:
            timeout: how long each statement may take, in seconds or as a timedelta.

        Returns:
            The session to pass to the other methods; the store closes it. Statements of your own
            can be executed on it, too.

        Raises:
            InvalidEntryError: `timeout` is not a number of seconds above 0.
            QueryTimeoutError: a statement took longer. It is an `UnavailableError`.
            SessionError: in a method that writes, which was given this session.
            UnavailableError: the database did not answer.
        """
        limit = fields.seconds("timeout", timeout, above=True)
        self._warn_of_settings()
        with transaction.reading(self.database, limit) as session:
            yield session

    def get(self, name: str, *, session: SessionLike | None = None) -> Entry:
        """Return the entry of that name, with its `tags`, its upstreams (`after`) and `edited`.

        Raises:
            EntryNotFoundError: there is no such entry; the error suggests a similar name.
        """
        asked = set(extras.EXTRAS)
        return self._read(session, lambda tx: extras.read(tx, [tx.get(name)], asked)[0])

    def entries(
        self,
        *,
        tag: str | None = None,
        state: EntryState | None = None,
        name: str | None = None,
        source: str | None = None,
        only: EntryOnly | None = None,
        limit: int = 100,
        after: str | None = None,
        include: EntryExtra | Iterable[EntryExtra] = (),
        session: SessionLike | None = None,
    ) -> Page[Entry]:
        """Return a page of entries, sorted by name; `more` says if others follow.

        Args:
            tag: only entries with this tag.
            state: only entries in this state.
            name: only entries whose name matches; `*` stands for any characters, `?` for one.
            source: only entries of this owner.
            only: only entries that are "failing" (the newest run that succeeded, failed or was
                lost did not succeed), "overdue" (no beat has picked it up in time; as in
                `status`), "waiting" (something due waits for an upstream or for a run of the
                entry's own) or "edited" (it differs from what its code declares). All but
                "overdue" are searched for: a page may end early, even without an entry, if
                that takes long. Then it has more, and `page.after` says where to go on.
            limit: the maximum number of entries.
            after: only entries after this name: `after` of the previous page.
            include: what to read with them: "tags", "after" (their upstreams) and "edited".
            session: the caller's session, to join its transaction.

        Raises:
            InvalidEntryError: an argument can't be used.
        """
        chosen = {"tag": tag, "state": state, "name": name, "source": source, "only": only}
        asked = extras.check(include)

        def read(tx: Transaction) -> Page[Entry]:
            page = entries.entries(tx, chosen, limit, after)
            return Page(extras.read(tx, page, asked), more=page.more, after=page.after)

        return self._read(session, read)

    def names(
        self,
        *,
        tag: str | None = None,
        state: EntryState | None = None,
        name: str | None = None,
        source: str | None = None,
        only: EntryOnly | None = None,
        limit: int = 1000,
        after: str | None = None,
        session: SessionLike | None = None,
    ) -> Page[str]:
        """Return a page of the names of entries, sorted; the arguments are those of `entries`."""
        chosen = {"tag": tag, "state": state, "name": name, "source": source, "only": only}
        return self._read(session, lambda tx: entries.names(tx, chosen, limit, after))

    def runs(
        self,
        name: str | None = None,
        *,
        state: RunState | Iterable[RunState] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        tag: str | None = None,
        task: str | None = None,
        worker: str | None = None,
        sort: RunSort | None = None,
        limit: int = 100,
        before_id: int | None = None,
        session: SessionLike | None = None,
    ) -> Page[Run]:
        """Return a page of runs, the newest first; `more` says if others follow.

        A rare tag, task, worker or state is searched by reading the history from its end, and so
        is a `sort`, and what was due before an `until` long ago: give `since` with them.

        Args:
            name: only runs of this entry, by their due time; None: all runs, in the order of
                their creation. The runs of a removed entry are searched in the history, too.
            state: only runs in this state, or in one of these states.
            since: only runs due at this instant or later.
            until: only runs due before this instant.
            tag: only runs whose entry has this tag now.
            task: only runs whose entry sends this task now.
            worker: only runs that this worker (`celery@host`) started.
            sort: what to sort by, in descending order: the time "due", "sent", "started" or
                "finished"; the "runtime", where unfinished runs come first; or the "lateness",
                from due time to sending of a first attempt. Runs without the value are left out.
            limit: the maximum number of runs.
            before_id: only runs that follow this one in the order: the `id` of the last run of
                the previous page.
            session: the caller's session, to join its transaction.

        Raises:
            EntryNotFoundError: nothing is known of that name.
        """
        chosen = history.RunFilter(state, since, until, tag, task, worker, sort)
        return self._read(session, lambda tx: history.runs(tx, name, chosen, limit, before_id))

    def run(self, run: Run | int | str, *, session: SessionLike | None = None) -> RunDetails:
        """Return a run with all its attempts and its entry.

        Args:
            run: a run, its id, or the id of its task. A task id has no index: all runs are read
                for it, which takes about 0.15 s for each million.
            session: the caller's session, to join its transaction.

        Raises:
            InvalidEntryError: there is no such run on record.
        """
        given = run.id if isinstance(run, Run) else run
        return self._read(session, lambda tx: history.details(tx, given))

    def errors(self, name: str, limit: int = 5, *, session: SessionLike | None = None) -> Page[Run]:
        """Return the last runs of an entry that failed or were lost, the newest first.

        Each has `error`, `traceback` (only the end of a long one) and `reason`. Retention keeps
        the last 5 of them, however old they are.

        Args:
            name: the entry's name.
            limit: the maximum number of runs.
            session: the caller's session, to join its transaction.

        Raises:
            EntryNotFoundError: nothing is known of that name.
        """
        return self._read(session, lambda tx: history.errors(tx, name, limit))

    def preview(
        self,
        name: str,
        count: int = 5,
        start: datetime | None = None,
        *,
        session: SessionLike | None = None,
    ) -> list[datetime]:
        """Return the next due times of an entry, the earliest first, in the entry's own zone.

        They respect `end_at` and `max_runs`, but not jitter. A paused entry shows the times that
        it would have if resumed. An entry that is over, broken or without a schedule has none.

        Args:
            name: the entry's name.
            count: the maximum number of due times.
            start: only due times at this instant or later; None: after now.
            session: the caller's session, to join its transaction.

        Raises:
            EntryNotFoundError: there is no such entry.
            ScheduleError: its schedule is invalid (a row written by hand).
        """
        return self._read(session, lambda tx: history.preview(tx, name, count, start))

    def upcoming(
        self,
        *,
        start: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        tag: str | None = None,
        name: str | None = None,
        session: SessionLike | None = None,
    ) -> Page[Occurrence]:
        """Return what is sent next: the due times of all entries, in the order of sending.

        What is due already comes first: "overdue", where no beat has looked yet, or
        "waiting", where an upstream or a run of the entry's own holds it back. `end_at`,
        `max_runs` and jitter count; retries, and entries without a schedule, are not in it.
        The work grows with `limit`, not with the number of entries; but for a later
        `start`, the entries due before that are read too.

        Args:
            start: only what is sent at this instant or after; None: from now on, and what
                is due already.
            until: only what is sent before this instant.
            limit: at most so many, up to 10,000.
            tag: only of entries with this tag.
            name: only of entries whose name matches; `*` stands for any characters, `?`
                for one.
            session: the caller's session, to join its transaction.

        Raises:
            InvalidEntryError: `start` or `until` is naive, or they are the wrong way round.
        """
        chosen = {"tag": tag, "name": name}
        return self._read(session, lambda tx: upcoming.upcoming(tx, chosen, start, until, limit))

    def export(
        self,
        *,
        tag: str | None = None,
        state: EntryState | None = None,
        name: str | None = None,
        source: str | None = None,
        session: SessionLike | None = None,
    ) -> Generator[dict[str, Any], None, None]:
        """Yield a header, then each entry as a dict of plain JSON, for `load`.

        A document has everything that `add` takes, the entry's state and progress, and what code
        declared; it has no runs and no audit. All documents are read from one snapshot of the
        database. To move entries to another database, stop beat and the workers first.

            with open("entries.jsonl", "w") as file:
                for document in store.export():
                    print(json.dumps(document), file=file)

        Args:
            tag: only entries with this tag.
            state: only entries in this state.
            name: only entries whose name matches; `*` stands for any characters, `?` for one.
            source: only entries of this owner.
            session: the caller's session, to join its transaction.
        """
        chosen = {"tag": tag, "state": state, "name": name, "source": source}
        return transfer.export(self.database, self.settings, chosen, session)

    def explain(
        self,
        name: str,
        at: datetime | None = None,
        *,
        timezone: str | None = None,
        session: SessionLike | None = None,
    ) -> Explanation:
        """Explain in plain words why an entry has or has not run.

        The explanation says which state the entry is in, since when and who set it; what it waits
        for, and what its upstreams are doing; which runs are running, retried or unreported; when
        it is due next; and how its last runs ended. Print it, or read its fields.

        Args:
            name: the entry's name. A removed entry is explained from the audit.
            at: the due time of one occurrence to explain instead: "why did 03:00 not run?". A
                whole second also finds an occurrence within that second.
            timezone: the IANA zone for times in the sentences; None for the entry's own.
            session: the caller's session, to join its transaction.

        Raises:
            EntryNotFoundError: nothing is known of that name.
            InvalidEntryError: `at` is naive.
            ScheduleError: there is no such zone.
        """
        if timezone is not None:
            zone(timezone)
        if at is not None:
            return self._read(session, lambda tx: occurrence.explain_at(tx, name, at, timezone))
        return self._read(session, lambda tx: answers.explain(tx, name, timezone))

    def graph(
        self, *, name: str | None = None, tag: str | None = None, session: SessionLike | None = None
    ) -> Graph:
        """Return the graph of dependencies, as data that can be drawn.

        Args:
            name: only this entry with all its direct and indirect upstreams and downstreams;
                None: every entry that has an edge.
            tag: only entries with this tag, with their direct upstreams and downstreams.
            session: the caller's session, to join its transaction.

        Raises:
            EntryNotFoundError: there is no entry of that name.
            InvalidEntryError: both `name` and `tag` are given.
        """
        return self._read(session, lambda tx: graphs.graph(tx, name, tag))

    def edges(self, name: str, *, session: SessionLike | None = None) -> list[Edge]:
        """Return the edges from the upstreams of an entry and those to its downstreams.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        return self._read(session, lambda tx: graphs.edges(tx, name))

    def audit(
        self,
        name: str | None = None,
        limit: int = 100,
        before_id: int | None = None,
        *,
        session: SessionLike | None = None,
    ) -> Page[Audit]:
        """Return a page of the changes made through the API, the newest first.

        Each has `at`, `actor`, `action`, `entry`, the `reason` if one was noted, and the columns
        that changed as they were `before` and `after`, with instants as ISO 8601 text.

        Args:
            name: only changes of the entry that had this name at the time; None: all changes.
            limit: the maximum number of changes.
            before_id: only changes before this one: the `id` of the last change of the previous
                page.
            session: the caller's session, to join its transaction.
        """
        return self._read(session, lambda tx: audit.audits(tx, name, limit, before_id))

    def status(self, *, session: SessionLike | None = None) -> Status:
        """Return the status: entries and runs by state, lateness, beats and workers.

        Its `warnings` say in sentences what somebody should fix.
        """
        return self._read(session, status.status)

    def health(self, *, session: SessionLike | None = None) -> Health:
        """Return whether due entries are sent: if a beat is alive, and what is overdue or stalled.

        This is cheap enough for a monitor that asks every minute: all entries are counted once,
        and all else follows an index.
        """
        return self._read(session, status.health)
