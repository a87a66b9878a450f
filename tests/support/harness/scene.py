"""A database, a broker and real beats over them, and the reckoning at the end.

    scene.beat()
    names = scene.add_once(1000, at=scene.now())
    scene.wait_all_sent()
    scene.account().exactly_once(names)

The account sets each occurrence against its run rows and its messages. Nothing consumes
the messages meanwhile, so what lies on the broker is all that was ever sent.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from sqlalchemy import Row, func, select

from beatstore import Once
from beatstore.database.tables import RUN
from tests.support.brokers import Broker
from tests.support.harness.stage import Stage
from tests.support.project import Project
from tests.support.wait import wait_until

__all__ = ["Account", "Mail", "Mailbox", "Scene"]


@dataclass(frozen=True)
class Mail:
    """What a message says about its run.

    Attributes:
        id: the task id.
        entry: the entry's name.
        run_id: the id of its run row.
        due_at: when it was due.
        missed: how many occurrences it stands for beside its own.
    """

    id: str
    entry: str
    run_id: int
    due_at: datetime
    missed: int

    @classmethod
    def read(cls, headers: Mapping[str, Any]) -> Mail:
        """Read the headers of a message."""
        return cls(
            headers["id"],
            headers["beatstore_entry"],
            headers["beatstore_run_id"],
            datetime.fromisoformat(headers["beatstore_due_at"]),
            headers.get("beatstore_missed_count", 0),
        )


class Mailbox:
    """The messages on a broker's queue, oldest first.

    On Redis they are looked at and stay; from any other broker they are taken.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._taken: list[Mail] = []
        self._redis = redis.Redis.from_url(broker.url) if broker.name == "redis" else None

    def count(self) -> int:
        """Return how many messages have arrived."""
        if self._redis is not None:
            return int(self._redis.llen(self.broker.queue))
        return len(self._taken) + self.broker.count()

    def read(self) -> list[Mail]:
        """Return all messages that have arrived."""
        if self._redis is None:
            self._taken += [Mail.read(message.headers) for message in self.broker.drain()]
            return list(self._taken)
        raw: Any = self._redis.lrange(self.broker.queue, 0, -1)
        return [Mail.read(json.loads(text)["headers"]) for text in reversed(raw)]

    def close(self) -> None:
        """Close the connection."""
        if self._redis is not None:
            self._redis.close()


@dataclass(frozen=True)
class Account:
    """All run rows, and all messages."""

    runs: Sequence[Row[Any]]
    mails: Sequence[Mail]

    @property
    def copies(self) -> Counter[int]:
        """How many messages each run has, by the id of its row."""
        return Counter(mail.run_id for mail in self.mails)

    @property
    def doubled(self) -> int:
        """How many messages there are beyond one for each run."""
        return sum(self.copies.values()) - len(self.copies)

    @property
    def lost(self) -> list[str]:
        """The entries of runs that say `sent`, or nothing yet, and have no message."""
        copies = self.copies
        return [
            run.entry_name
            for run in self.runs
            if run.state in ("claimed", "sent") and not copies[run.id]
        ]

    def dues(self, name: str) -> list[datetime]:
        """Return the due times of an entry's runs, in order."""
        return sorted(run.due_at for run in self.runs if run.entry_name == name)

    def exactly_once(self, names: Iterable[str], doubled: int = 0) -> None:
        """Fail unless each of these one-shots, and each other run, was sent exactly once.

        Args:
            names: all one-shots that must have run.
            doubled: how many messages may be there a second time.
        """
        rows = Counter(run.entry_name for run in self.runs)
        wrong = {name: rows[name] for name in names if rows[name] != 1}
        assert not wrong, f"occurrences without a row, or with two: {wrong}"
        self.consistent(doubled)

    def consistent(self, doubled: int = 0) -> None:
        """Fail unless each run is sent, with its own message, and none without a run."""
        keys = Counter((run.entry_id, run.due_at) for run in self.runs)
        assert set(keys.values()) <= {1}, "an occurrence has two rows"
        unsent = [run for run in self.runs if run.state != "sent" or run.sent_at is None]
        assert not unsent, f"{len(unsent)} not sent, the first: {unsent[0]}"
        assert not self.lost, f"sent without a message: {self.lost}"
        known = {run.id: (run.task_id, run.entry_name, run.due_at) for run in self.runs}
        for mail in self.mails:
            assert known.get(mail.run_id) == (mail.id, mail.entry, mail.due_at)
        assert self.doubled <= doubled, f"{self.doubled} messages doubled, {doubled} allowed"


class Scene(Stage):
    """A stage whose beats send, and whose messages nobody takes.

    Args:
        project: the app, with its broker and settings.
        broker: the same broker, as the test reaches it.
        url: the database, as the test reaches it.
    """

    def __init__(self, project: Project, broker: Broker, url: str) -> None:
        super().__init__(project, url)
        self.mailbox = Mailbox(broker)
        self._added = 0

    def add_once(self, count: int, at: datetime) -> list[str]:
        """Add one-shots that are due at `at`, in one transaction; return their names."""
        first = self._added
        self._added += count
        names = [f"once-{number:05}" for number in range(first, self._added)]
        self.insert(
            {"name": name, "kind": "once", "spec": Once(at).spec, "wake_at": at} for name in names
        )
        return names

    def sent(self, names: str) -> int:
        """Count the runs that are sent, of entries whose names are like `names`."""
        count = select(func.count()).where(RUN.c.state == "sent", RUN.c.entry_name.like(names))
        with self.store.database.session() as session:
            return session.scalar(count) or 0

    def claimants(self) -> set[str]:
        """Return the ids of the beats that hold claims."""
        held = select(RUN.c.claimed_by).where(RUN.c.state == "claimed").distinct()
        with self.store.database.session() as session:
            return set(session.scalars(held))

    def wait_all_sent(self, timeout: float = 60) -> None:
        """Wait until nothing is due and nothing claimed."""
        wait_until(lambda: not self.due(), timeout, self.tell, interval=0.05)

    def wait_for_messages(self, count: int, timeout: float = 60) -> None:
        """Wait until so many messages have arrived."""
        wait_until(lambda: self.mailbox.count() >= count, timeout, self.tell, interval=0.002)

    def account(self) -> Account:
        """Read all rows and all messages."""
        return Account(self.runs(), self.mailbox.read())

    def tell(self, *first: object) -> str:
        """Return what there is to see: counts, and what the processes said."""
        counts = f"{self.due()} due, {self.states()}, {self.mailbox.count()} messages"
        return super().tell(*first, counts)

    def close(self) -> None:
        """Close the connections; the project ends the processes."""
        super().close()
        self.mailbox.close()
