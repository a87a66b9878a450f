"""The half of the API that only reads."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import datetime
from typing import Any

from beatstore.database.rows import Transaction
from beatstore.records import Audit, Entry, Run
from beatstore.rules.graph import Edge, Graph
from beatstore.schedules import zone
from beatstore.store import audit, entries, extras, graphs, history, status, upcoming
from beatstore.store.base import Base
from beatstore.store.explain import entry as answers
from beatstore.store.explain import occurrence
from beatstore.store.explain.entry import Explanation
from beatstore.store.history import RunDetails
from beatstore.store.status import Health, Status
from beatstore.store.sync import sync
from beatstore.store.transfer import export as transfer
from beatstore.store.upcoming import Occurrence
from beatstore.types import EntryExtra, EntryState, Page, RunSort, RunState, SessionLike

__all__ = ["Reader"]


class Reader(Base):
    """The entries and runs of one database, to look at; see `beatstore.Store`."""

    def get(self, name: str, *, session: SessionLike | None = None) -> Entry:
        """Return the entry of that name, with its `tags`, what it waits for, and its edits.

        Raises:
            EntryNotFoundError: there is none; the error suggests a similar name.
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
        limit: int = 100,
        after: str | None = None,
        include: EntryExtra | Iterable[EntryExtra] = (),
        session: SessionLike | None = None,
    ) -> Page[Entry]:
        """Return a page of entries in the order of their names; `more` says if others follow.

        Args:
            tag: only those with this tag.
            state: only those in this state.
            name: only those whose name matches; `*` stands for any characters, `?` for
                one.
            source: only those of this owner.
            limit: at most so many.
            after: only those after this name: the last one of the page before.
            include: what is read with them: "tags", "after" (their upstreams) and "edited".
            session: the caller's session, to join its transaction.

        Raises:
            InvalidEntryError: an argument can't be used.
        """
        chosen = {"tag": tag, "state": state, "name": name, "source": source}
        asked = extras.check(include)

        def read(tx: Transaction) -> Page[Entry]:
            page = entries.entries(tx, chosen, limit, after)
            return Page(extras.read(tx, page, asked), more=page.more)

        return self._read(session, read)

    def names(
        self,
        *,
        tag: str | None = None,
        state: EntryState | None = None,
        name: str | None = None,
        source: str | None = None,
        limit: int = 1000,
        after: str | None = None,
        session: SessionLike | None = None,
    ) -> Page[str]:
        """Return a page of names of entries, in order; the arguments are those of `entries`."""
        chosen = {"tag": tag, "state": state, "name": name, "source": source}
        return self._read(session, lambda tx: entries.names(tx, chosen, limit, after))

    def tags(self, name: str, *, session: SessionLike | None = None) -> list[str]:
        """Return the tags of an entry, sorted.

        Raises:
            EntryNotFoundError: there is no such entry.
        """
        return self._read(session, lambda tx: entries.tags(tx, name))

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

        Few runs among many are found by reading the history from its end: give `since`
        beside a rare tag, task, worker or state, and beside `sort`.

        Args:
            name: only those of this entry, by their due time; None: all, in the order
                they were recorded. The runs of an entry that was removed are found by
                reading the history, too.
            state: only those in this state, or in one of these.
            since: only those due at this instant or after.
            until: only those due before this instant.
            tag: only those whose entry has this tag now.
            task: only those whose entry sends this task now.
            worker: only those that this worker (`celery@host`) took.
            sort: by what, the latest or the longest first: "due", "sent", "started" or
                "finished", when that was; "runtime", what runs still coming first; or
                "lateness", how long after its due time a first attempt was sent. Only runs
                that have it are in the page.
            limit: at most so many.
            before_id: only those that come after this run in the order: the `id` of the
                last one of the page before.
            session: the caller's session, to join its transaction.

        Raises:
            EntryNotFoundError: nothing is known of that name.
        """
        chosen = history.RunFilter(state, since, until, tag, task, worker, sort)
        return self._read(session, lambda tx: history.runs(tx, name, chosen, limit, before_id))

    def run(self, run: Run | int | str, *, session: SessionLike | None = None) -> RunDetails:
        """Return one run with all that is known of it.

        Args:
            run: a run, its id, or the id of its task; an old one of those is found by
                reading the history from its end.
            session: the caller's session, to join its transaction.

        Raises:
            InvalidEntryError: there is no such run on record.
        """
        given = run.id if isinstance(run, Run) else run
        return self._read(session, lambda tx: history.details(tx, given))

    def errors(self, name: str, limit: int = 5, *, session: SessionLike | None = None) -> Page[Run]:
        """Return the last runs of an entry that failed or were lost, the newest first.

        Each has `error`, `traceback` (cut to its end where it is long) and `reason`. The
        last 5 are kept however old they are.

        Args:
            name: which entry.
            limit: at most so many.
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
        """Return the next due times of an entry, oldest first, in the entry's own zone.

        `end_at` and `max_runs` count; jitter is not added. A paused entry shows what it
        would do; one that is over or broken has none, nor has one without a clock.

        Args:
            name: which entry.
            count: how many at most.
            start: from this instant on; None: after now.
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
        """Yield a header, and each entry as a dict of plain JSON, for `load`.

        Everything `add` takes, the state, what code declared, and how far the entry has
        come; not its runs, nor the audit. All are read from one state of the database,
        some hundred at a time; stop beat and the workers first, if it is to be a move.

            with open("entries.jsonl", "w") as file:
                for document in store.export():
                    print(json.dumps(document), file=file)

        Args:
            tag: only those with this tag.
            state: only those in this state.
            name: only those whose name matches; `*` stands for any characters, `?` for
                one.
            source: only those of this owner.
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
        """Say in plain words why an entry has or has not run.

        What state it is in, since when and by whom; what it waits for, and what that is
        doing; what runs, is retried, or was sent and never heard of; when it is due next;
        what became of its last occurrences, and why. Print it, or read its fields.

        Args:
            name: which entry; of one that was removed, the audit tells.
            at: an occurrence to account for instead: "why did 03:00 not run?". One that is
                due within this second is found by the whole second, too.
            timezone: IANA zone that the sentences give times in; None: the entry's.
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
        """Return what depends on what, as data that can be drawn.

        Args:
            name: only this entry, what it waits for, directly or not, and what waits for
                it; None: every entry that has an edge.
            tag: only the entries with this tag, and those at the other end of their edges.
            session: the caller's session, to join its transaction.

        Raises:
            EntryNotFoundError: there is no entry of that name.
            InvalidEntryError: both `name` and `tag` are given.
        """
        return self._read(session, lambda tx: graphs.graph(tx, name, tag))

    def edges(self, name: str, *, session: SessionLike | None = None) -> list[Edge]:
        """Return the edges to the upstreams of an entry, and those from it to its downstreams.

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

        Each says `at`, `actor`, `action`, `entry`, and the columns that changed `before`
        and `after`, with instants as ISO 8601 text.

        Args:
            name: only those of the entry that had this name then; None: all.
            limit: at most so many.
            before_id: only those before this one: the `id` of the last one of the page
                before.
            session: the caller's session, to join its transaction.
        """
        return self._read(session, lambda tx: audit.audits(tx, name, limit, before_id))

    def status(self, *, session: SessionLike | None = None) -> Status:
        """Return how things stand: entries and runs by state, lateness, beats and workers.

        `warnings` says in sentences what a person should mend.
        """
        return self._read(session, status.status)

    def edited(
        self, names: Iterable[str], *, session: SessionLike | None = None
    ) -> dict[str, tuple[str, ...]]:
        """Return those of these entries that differ from what their code says, and in what.

        Args:
            names: of entries.
            session: the caller's session, to join its transaction.

        Returns:
            The fields that differ, by the names that `add` has for them, and `state` where
            somebody paused, resumed or cancelled the entry; by the entries' names. An entry
            that no code declares is left out.
        """
        return self._read(session, lambda tx: sync.edited(tx, names))

    def health(self, *, session: SessionLike | None = None) -> Health:
        """Return whether what is due is sent: whether a beat is alive, and what stands still.

        It is for a monitor that asks every minute: one statement counts all entries, and
        the others follow an index.
        """
        return self._read(session, status.health)
