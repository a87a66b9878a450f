"""One-shots and single runs, on every database: scheduled, triggered, moved, cancelled in time."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery, chain
from sqlalchemy import text

from beatstore import Store
from beatstore.clock import ManualClock
from beatstore.errors import EntryExistsError, EntryNotFoundError, InvalidEntryError
from beatstore.schedules.instants import EPOCH
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import MakeQueue, plan, report, sweep, tick
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

app = Celery("oneshots", broker="memory://", set_as_current=False)


@app.task(name="mail.send")
def send_mail(user_id: int, body: str = "") -> None:
    """Do nothing."""


# -- schedule --------------------------------------------------------------------------


def test_a_signature_is_sent_once_at_its_time(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A one-shot is sent at its instant, as the signature says, and never again."""
    at = NOON + timedelta(hours=1, microseconds=7)
    signature = send_mail.s(7, body="hi").set(queue="mail")
    entry = store.schedule(signature, at=at, tags=["x"], description="d", misfire="all", grace=5)
    assert re.fullmatch(r"send-[0-9a-f]{12}", entry.name)
    assert entry.wake_at == entry.next_due_at == at
    assert (entry.description, entry.misfire, entry.grace_s) == ("d", "all", 5.0)
    assert store.get(entry.name).tags == ("x",)
    clock.set(at - timedelta(microseconds=1))
    assert tick(queue) == []
    clock.set(at)
    [claim] = tick(queue)
    assert (claim.task, claim.args, claim.kwargs) == ("mail.send", [7], {"body": "hi"})
    assert (claim.options, claim.due_at) == ({"queue": "mail"}, at)
    assert store.get(entry.name).state == "finished"
    clock.advance(86400)
    assert tick(queue) == []


def test_a_countdown_counts_from_the_databases_now(store: Store) -> None:
    """Seconds and timedeltas are counted from the store's clock, not the process's."""
    assert store.schedule("t", countdown=90).next_due_at == NOON + timedelta(seconds=90)
    assert store.schedule("t", countdown=timedelta(days=1)).next_due_at == NOON + timedelta(days=1)
    assert store.schedule("t", countdown=0).next_due_at == NOON


def test_a_time_that_has_passed_means_at_once(store: Store, queue: Queue) -> None:
    """A one-shot in the past is sent at the next tick."""
    store.schedule("t", at=NOON - timedelta(days=300))
    assert len(tick(queue)) == 1


def test_far_dates_and_microseconds_are_kept(store: Store) -> None:
    """The year 2525 and the last microsecond of 9999 come back exactly as given."""
    for at in (datetime(2525, 11, 11, 9, 30, 0, 1, tzinfo=UTC), LATEST):
        entry = store.get(store.schedule("t", at=at).name)
        assert entry.next_due_at == entry.wake_at == at
        assert store.preview(entry.name) == [at]


def test_the_signatures_own_time_is_used(store: Store) -> None:
    """A signature's countdown or eta is the time, unless one is given beside it."""
    assert store.schedule(send_mail.s(1).set(countdown=60)).next_due_at == NOON + timedelta(
        minutes=1
    )
    entry = store.schedule(send_mail.s(1).set(eta=LATEST))
    assert (entry.next_due_at, entry.options) == (LATEST, {})
    entry = store.schedule(send_mail.s(1).set(countdown=60, eta=LATEST), at=NOON)
    assert (entry.next_due_at, entry.options) == (NOON, {})
    with pytest.raises(InvalidEntryError, match=r"options\['countdown'\]"):
        store.add("a", send_mail.s(1).set(countdown=60), "0 9 * * *")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "at"),
        ({"at": NOON, "countdown": 5}, "at"),
        ({"at": datetime(2030, 1, 1)}, "at"),
        ({"at": "2030-01-01"}, "at"),
        ({"countdown": -1}, "countdown"),
        ({"countdown": 1, "name": " a"}, "name"),
        ({"countdown": 1, "misfire": "x"}, "misfire"),
    ],
)
@on_sqlite
def test_a_one_shot_needs_exactly_one_time(store: Store, given: dict[str, Any], field: str) -> None:
    """Neither, both, a naive or a negative time is refused by name, and nothing is stored."""
    with pytest.raises(InvalidEntryError) as caught:
        store.schedule("t", **given)
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert store.entries() == []


def test_a_one_shot_can_have_a_name(store: Store) -> None:
    """A given name is used, and is as unique as any other."""
    assert store.schedule("t", countdown=5, name="a").name == "a"
    with pytest.raises(EntryExistsError):
        store.schedule("t", countdown=5, name="a")


def test_a_chain_can_be_scheduled(store: Store, queue: Queue) -> None:
    """A canvas is stored whole under its celery name."""
    entry = store.schedule(chain(send_mail.si(1), send_mail.si(2)), countdown=0)
    assert (entry.task, entry.name[:6]) == ("celery.chain", "chain-")
    [claim] = tick(queue)
    assert [task["args"] for task in claim.kwargs["tasks"]] == [[1], [2]]


# -- trigger ---------------------------------------------------------------------------


def test_a_triggered_run_is_sent_at_the_next_tick(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """trigger() runs an entry now, beside its schedule, which it leaves alone."""
    before = store.add("a", "t", 3600, args=[1])
    run = store.trigger("a")
    assert (run.state, run.reason, run.attempt, run.claimed_by) == ("claimed", "triggered", 1, None)
    assert (run.entry_id, run.entry_name, run.wake_at) == (before.id, "a", EPOCH)
    [claim] = tick(queue)
    assert (claim.run_id, claim.task_id, claim.args) == (run.id, run.task_id, [1])
    after = store.get("a")
    assert (after.run_count, after.last_run_at) == (1, NOON)
    for column in ("cursor_at", "next_due_at", "version", "updated_at", "state"):
        assert getattr(after, column) == getattr(before, column), column
    assert [run.state for run in store.runs("a")] == ["sent"]
    assert tick(queue) == []


def test_a_trigger_takes_no_occurrences_place(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """Triggered at the very instant it is due, and twice, an entry runs three times."""
    store.add("a", "t", "0 * * * *")
    clock.set(NOON + timedelta(hours=1))
    runs = [store.trigger("a"), store.trigger("a")]
    assert len(tick(queue)) == 3
    assert len({run.due_at for run in [*runs, *store.runs("a")]}) == 3


def test_a_paused_entry_can_be_triggered(store: Store, queue: Queue) -> None:
    """Running now is an explicit wish, which a pause does not stop; the pause goes on."""
    store.add("a", "t", 60, paused=True)
    store.trigger("a")
    assert len(tick(queue)) == 1
    assert store.get("a").state == "paused"


def test_a_finished_one_shot_can_be_triggered(store: Store, queue: Queue) -> None:
    """A one-shot that ran can be run again by hand."""
    store.schedule("t", at=NOON, name="a")
    assert len(tick(queue)) == 1
    store.trigger("a")
    assert len(tick(queue)) == 1
    assert store.get("a").state == "finished"


def test_what_is_cancelled_or_broken_is_not_triggered(store: Store, queue: Queue) -> None:
    """The refusal says why, with the error of a broken entry."""
    store.add("cancelled", "t", 60)
    store.cancel("cancelled")
    store.add("broken", "t", 60)
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE beatstore_entry SET spec = 'x' WHERE name = 'broken'"))
    tick(queue)
    for name, why in (("cancelled", "cancelled"), ("broken", "broken: spec")):
        with pytest.raises(InvalidEntryError, match=why) as caught:
            store.trigger(name)
        assert caught.value.field == "state"
        assert store.runs(name) == []


# -- cancel ----------------------------------------------------------------------------


def test_a_one_shot_is_cancelled_in_time(store: Store, queue: Queue, clock: ManualClock) -> None:
    """Cancelled before its time, it is never sent, and cancelling again says the same."""
    store.schedule("t", countdown=60, name="a")
    assert store.cancel("a") is True
    entry = store.get("a")
    assert (entry.state, entry.wake_at, entry.next_due_at, entry.version) == (
        *("cancelled", None, None, 2),
    )
    clock.advance(60)
    assert tick(queue) == []
    assert store.cancel("a") is True
    assert store.get("a").version == 2


def test_a_claimed_one_shot_is_too_late_to_cancel(store: Store, queue: Queue) -> None:
    """Once a beat holds the claim, cancel() says False, and the run goes on."""
    store.schedule("t", countdown=0, name="a")
    claims, _ = queue.plan(NOON)
    assert store.cancel("a") is False
    assert store.get("a").state == "finished"
    queue.mark([Outcome(claims[0], "sent")])
    assert store.runs("a")[0].state == "sent"
    assert store.cancel("a") is False


def test_a_recurring_entry_can_be_cancelled(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A cancelled entry sends nothing more, also when it was paused."""
    store.add("a", "t", 60)
    store.add("b", "t", 60, paused=True)
    clock.advance(60)
    tick(queue)
    assert store.cancel("a") is True
    assert store.cancel("b") is True
    clock.advance(600)
    assert tick(queue) == []
    assert {entry.state for entry in store.entries()} == {"cancelled"}


def test_cancelling_stops_what_was_triggered(store: Store, queue: Queue) -> None:
    """A run asked for by hand and not yet sent is cancelled with its entry, and says so."""
    store.schedule("t", countdown=60, name="a")
    store.trigger("a")
    assert store.cancel("a") is True
    assert tick(queue) == []
    [run] = store.runs("a")
    assert (run.state, run.reason) == ("cancelled", "triggered; entry cancelled before it was sent")
    assert (run.wake_at, run.finished_at) == (None, NOON)


@pytest.mark.parametrize("state", ["finished", "missed"])
@pytest.mark.parametrize("again", [False, True], ids=["trigger", "rerun"])
def test_cancelling_stops_what_was_asked_for_of_an_entry_that_is_over(
    store: Store, queue: Queue, clock: ManualClock, state: str, again: bool
) -> None:
    """What was triggered or rerun of such an entry is not sent; the entry stays as it is."""
    policy: Any = {"misfire": "skip", "grace": 60} if state == "missed" else {}
    store.schedule("t", countdown=10, name="a", **policy)
    clock.advance(3600)
    claims = tick(queue)
    for claim in claims:
        store.end(claim.run_id, "failed")
    tick(queue)
    run = store.rerun(store.runs("a")[0]) if again else store.trigger("a")
    assert store.cancel("a") is False
    assert tick(queue) == []
    found = store.run(run.id).run
    note = "triggered: rerun" if again else "triggered"
    assert found.state == "cancelled"
    assert str(found.reason).startswith(note)
    assert (store.get("a").state, len(claims)) == (state, int(state == "finished"))


def test_cancelling_too_late_leaves_a_next_attempt_alone(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """The retry of a one-shot that was sent is its own business, not one that was asked for."""
    store.schedule("t", countdown=0, name="a", max_retries=1, retry_delay=60)
    report(store, "failed", tick(queue), "RuntimeError: no")
    assert store.cancel("a") is False
    clock.advance(61)
    assert [claim.name for claim in tick(queue)] == ["a"]


@pytest.mark.parametrize("first", ["sweep", "plan"])
def test_cancelling_by_plain_sql_stops_it_too(store: Store, queue: Queue, first: str) -> None:
    """So does plain SQL, whatever beat looks at first; what is asked for afterwards is sent."""
    store.add("a", "t", 3600)
    store.trigger("a")
    with store.database.session() as session:
        session.execute(text("UPDATE beatstore_entry SET state = 'cancelled' WHERE name = 'a'"))
    assert "It will be cancelled then." in str(store.explain("a"))
    assert {"sweep": sweep, "plan": plan}[first](queue) == []
    [run] = store.runs("a")
    assert (run.state, run.reason) == ("cancelled", "triggered; entry cancelled before it was sent")
    assert tick(queue) == []
    again = store.rerun(run)
    assert [claim.run_id for claim in tick(queue)] == [again.id]


@pytest.mark.parametrize("again", [False, True], ids=["trigger", "rerun"])
def test_cancelling_stops_what_was_triggered_and_could_not_be_sent(
    store: Store, queue: Queue, again: bool
) -> None:
    """What a beat has given back in an outage of the broker is nobody's, and is cancelled too."""
    store.add("a", "t", 3600)
    run = store.trigger("a")
    if again:
        tick(queue)
        store.end(run, "failed")
        tick(queue)
        run = store.rerun(run)
    [claim] = queue.sweep(queue.look().now).claims
    queue.mark([Outcome(claim, "claimed", retry_in=10, tries=1)])
    assert store.run(run.id).run.claimed_by is None
    store.cancel("a")
    assert store.run(run.id).run.state == "cancelled"
    assert tick(queue) == []


def test_a_cancelled_entry_is_rerun_and_cancelled_again(store: Store, queue: Queue) -> None:
    """A rerun of an entry that was cancelled before is sent, unless it is cancelled once more."""
    store.add("a", "t", 3600)
    run = store.trigger("a")
    tick(queue)
    store.end(run, "failed")
    store.cancel("a")
    tick(queue)
    first = store.rerun(run)
    assert first.reason == "triggered: rerun although its entry is cancelled, of attempt 1"
    assert [claim.run_id for claim in tick(queue)] == [first.id]
    store.end(first, "failed")
    tick(queue)
    second = store.rerun(run)
    assert store.cancel("a") is True
    assert store.run(second.id).run.state == "cancelled"
    assert tick(queue) == []


@pytest.mark.parametrize("leave", ["dies", "ends", "given back"])
@pytest.mark.parametrize("asked", ["trigger", "rerun", "rerun although cancelled"])
def test_cancelling_stops_what_a_beat_has_claimed_and_does_not_send(
    store: Store, make_queue: MakeQueue, clock: ManualClock, asked: str, leave: str
) -> None:
    """Whatever becomes of the claim that a beat held at the cancel, no beat claims it again."""
    leaving, heir = make_queue(), make_queue()
    leaving.upkeep.introduce(host="h", pid=1, version="0", tzdata="x")
    store.add("a", "t", 3600)
    run = store.trigger("a")
    if asked != "trigger":
        tick(leaving)
        store.end(run, "failed")
        tick(leaving)
        if asked == "rerun although cancelled":
            store.cancel("a")
        run = store.rerun(run)
    [claim] = sweep(leaving)
    store.cancel("a")
    if leave == "ends":
        leaving.upkeep.withdraw()
    if leave == "given back":
        leaving.mark([Outcome(claim, "claimed", retry_in=10, tries=1)])
    clock.advance(store.settings.claim_ttl)
    assert tick(heir) == []
    found = store.run(run.id).run
    note = "triggered" if asked == "trigger" else "triggered: rerun"
    assert (found.state, found.reason) == (
        "cancelled",
        f"{note}; entry cancelled before it was sent",
    )


# -- reschedule ------------------------------------------------------------------------


def test_a_one_shot_is_moved_in_time(store: Store, queue: Queue, clock: ManualClock) -> None:
    """Moved before its time, it is sent at the new one only."""
    store.schedule("t", countdown=60, name="a")
    assert store.reschedule("a", NOON + timedelta(seconds=90)) is True
    assert store.get("a").next_due_at == NOON + timedelta(seconds=90)
    clock.advance(60)
    assert tick(queue) == []
    clock.advance(30)
    assert [claim.due_at for claim in tick(queue)] == [NOON + timedelta(seconds=90)]


def test_a_sent_or_cancelled_one_shot_is_not_moved(store: Store, queue: Queue) -> None:
    """Once claimed, sent or cancelled, reschedule() says False and changes nothing."""
    store.schedule("t", countdown=0, name="a")
    store.schedule("t", countdown=60, name="b")
    store.cancel("b")
    queue.plan(NOON)
    for name in ("a", "b"):
        before = store.get(name)
        assert store.reschedule(name, LATEST) is False
        assert store.get(name).version == before.version


def test_a_missed_one_shot_is_put_back(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A missed one-shot given another time, or its old one again, runs."""
    for name in ("a", "b"):
        store.schedule("t", countdown=60, name=name, misfire="skip", grace=5)
    clock.advance(600)
    assert tick(queue) == []
    assert store.get("a").state == store.get("b").state == "missed"
    store.change("b", misfire="all")
    assert store.reschedule("a", clock.now() + timedelta(seconds=1)) is True
    assert store.reschedule("b", NOON + timedelta(seconds=60)) is True
    clock.advance(1)
    assert sorted(claim.name for claim in tick(queue)) == ["a", "b"]
    assert sorted(run.state for run in store.runs()) == ["missed", "missed", "sent", "sent"]


def test_a_broken_one_shot_is_mended_by_a_new_time(store: Store, queue: Queue) -> None:
    """A one-shot whose instant can't be read gets one that can."""
    store.schedule("t", countdown=60, name="a")
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE beatstore_entry SET spec = 'soon' WHERE name = 'a'"))
    tick(queue)
    assert store.get("a").state == "broken"
    assert store.reschedule("a", NOON) is True
    assert len(tick(queue)) == 1


def test_a_paused_one_shot_stays_paused_when_moved(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """Moving is not resuming."""
    store.schedule("t", countdown=60, name="a")
    store.pause("a")
    assert store.reschedule("a", NOON + timedelta(seconds=5)) is True
    clock.advance(1)
    assert store.get("a").state == "paused"
    store.resume("a")
    clock.advance(4)
    assert len(tick(queue)) == 1


def test_only_one_shots_are_moved(store: Store) -> None:
    """A recurring entry has no one time; the error says what to call instead."""
    store.add("a", "t", 60)
    with pytest.raises(InvalidEntryError, match=r"store\.change\('a'"):
        store.reschedule("a", LATEST)
    with pytest.raises(InvalidEntryError) as caught:
        store.reschedule("a", datetime(2030, 1, 1))
    assert caught.value.field == "at"
    with pytest.raises(EntryNotFoundError):
        store.reschedule("b", LATEST)
