"""The tick that beat, `beatstore tick` and the simulation drive: what it keeps and frees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from beatstore import ManualClock, Once, Store, UnavailableError
from beatstore.models import RunModel
from beatstore.tick.claims import Claim, Ending, Outcome, StaleRun
from beatstore.tick.queue import Queue
from beatstore.tick.tick import BATCH, Tick
from tests.support.harness.ticks import lost, taken
from tests.support.marks import on_servers
from tests.support.written import NOON

Send = Callable[..., Iterator[list[Outcome]]]


@pytest.fixture
def queue(store: Store, clock: ManualClock) -> Iterator[Queue]:
    """Return the claims of a beat, on a store whose clock stands at noon."""
    store.database.clock = clock
    queue = Queue(store.database, store.settings, "a-beat")
    yield queue
    queue.close()


def add(store: Store, *names: str) -> None:
    """Add one-shots that are due."""
    for name in names:
        store.add(name, "tests.note", Once(NOON))


def states(store: Store) -> dict[str, str]:
    """Return the state of each entry's run."""
    return {run.entry_name: run.state for run in store.runs(limit=1000)}


def sending(count: int, error: BaseException) -> Send:
    """Return what sends some claims, and then raises."""

    def send(claims: Sequence[Claim], **_: object) -> Iterator[list[Outcome]]:
        yield [Outcome(claim, "sent") for claim in claims[:count]]
        raise error

    return send


@pytest.mark.parametrize("error", [SystemExit(), RuntimeError("gone")], ids=["signal", "error"])
def test_what_was_sent_is_marked_and_the_rest_is_free(
    store: Store, queue: Queue, error: BaseException
) -> None:
    """However sending ends, what is known is written, and the rest is due at once."""
    add(store, "a", "b", "c")
    tick = Tick(queue, sending(1, error), lost)
    with pytest.raises(type(error)):
        tick.fire(tick.look())
    assert sorted(states(store).values()) == ["claimed", "claimed", "sent"]
    other = Queue(store.database, store.settings, "another-beat")
    assert len(other.sweep(NOON).claims) == 2
    other.close()


def test_a_claim_without_an_answer_is_free_after_the_next_look(
    store: Store, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat that does not know what it has claimed leaves it, and claims it again."""
    add(store, "a")
    tick, plan = Tick(queue, taken, lost), queue.plan

    def cut(now: object) -> None:
        plan(NOON)
        raise UnavailableError("the answer to the commit was lost")

    monkeypatch.setattr(queue, "plan", cut)
    with pytest.raises(UnavailableError):
        tick.fire(tick.look())
    monkeypatch.undo()
    assert states(store) == {"a": "claimed"}
    fired = tick.fire(tick.look())
    assert [outcome.claim.name for outcome in fired.outcomes] == ["a"]
    assert states(store) == {"a": "sent"}


@pytest.mark.every_database
@on_servers
def test_what_can_not_be_marked_is_marked_by_a_later_look(store: Store, queue: Queue) -> None:
    """A run whose row somebody holds stays claimed, and is marked when it is free."""
    add(store, "a")
    session = Session(store.database.engine)

    def send(claims: Sequence[Claim], **_: object) -> Iterator[list[Outcome]]:
        session.scalars(select(RunModel).with_for_update()).all()
        yield [Outcome(claim, "sent") for claim in claims]

    tick = Tick(queue, send, lost)
    tick.fire(tick.look())
    assert states(store) == {"a": "claimed"}
    session.close()
    tick.look()
    assert states(store) == {"a": "sent"}


def test_after_each_full_batch_the_driver_is_asked(store: Store, queue: Queue) -> None:
    """Between two batches the first is marked, and the driver may end the tick."""
    store.schedule_many(("tests.note", NOON) for _ in range(2 * BATCH))
    queue.limit = 2 * BATCH
    seen: list[int] = []

    def send(claims: Sequence[Claim], **_: object) -> Iterator[list[Outcome]]:
        for start in range(0, len(claims), BATCH):
            yield [Outcome(claim, "sent") for claim in claims[start : start + BATCH]]

    def stop() -> None:
        seen.append(list(states(store).values()).count("sent"))
        raise SystemExit

    tick = Tick(queue, send, lost, after_batch=stop)
    with pytest.raises(SystemExit):
        tick.fire(tick.look())
    assert seen == [BATCH]
    assert list(states(store).values()).count("sent") == BATCH


def burst(queue: Queue, seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tick until nothing is due, each tick so many seconds; return how much each has claimed."""
    clock = [0.0]
    monkeypatch.setattr("beatstore.tick.tick.time.monotonic", lambda: clock[0])

    def send(claims: Sequence[Claim], **_: object) -> Iterator[list[Outcome]]:
        clock[0] += seconds
        yield [Outcome(claim, "sent") for claim in claims]

    tick, sizes = Tick(queue, send, lost), []
    while (look := tick.look()).is_entry_due:
        sizes.append(tick.fire(look).found)
    monkeypatch.undo()
    return sizes


def test_a_burst_is_claimed_in_batches_that_grow(
    store: Store, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of a burst is small, so that it is sent soon, and the next burst's is again."""
    for _ in range(2):
        store.schedule_many(("tests.note", NOON) for _ in range(1350))
        assert burst(queue, 0.1, monkeypatch) == [100, 200, 400, 500, 150]


def test_slow_batches_do_not_grow(
    store: Store, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes a tenth of a claim's life stays, and what takes a quarter is halved."""
    ttl = store.settings.claim_ttl
    store.schedule_many(("tests.note", NOON) for _ in range(650))
    assert burst(queue, ttl * 0.15, monkeypatch) == [100] * 6 + [50]
    store.schedule_many(("tests.note", NOON) for _ in range(500))
    queue.limit = 400
    assert burst(queue, ttl * 0.3, monkeypatch) == [400, 100]


def test_the_setting_limits_the_batches(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`beatstore_batch_size` is the most, from the first one on."""
    store.database.clock = clock
    queue = Queue(store.database, replace(store.settings, batch_size=30), "a-beat")
    store.schedule_many(("tests.note", NOON) for _ in range(70))
    assert burst(queue, 0.1, monkeypatch) == [30, 30, 10]
    queue.close()


def test_an_answer_that_comes_late_is_written_by_a_later_look(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """What a result backend knows of a silent run may take more than one tick."""
    store.add("a", "tests.note", Once(NOON), run_timeout=10)
    asked: list[StaleRun] = []

    def ask(stale_runs: Sequence[StaleRun]) -> list[Ending]:
        answers = lost(asked)
        asked[:] = stale_runs
        return answers

    tick = Tick(queue, taken, ask)
    tick.fire(tick.look())
    clock.advance(11)
    tick.fire(tick.look())
    assert ([one.name for one in asked], states(store)) == (["a"], {"a": "sent"})
    tick.look()
    assert states(store) == {"a": "lost"}
