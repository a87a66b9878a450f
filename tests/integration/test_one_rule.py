"""A rule that stands in Python and in SQL says the same, and all who ask about it agree."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import select, update

from beatstore import After, Once
from beatstore.database.tables import ENTRY, RUN, WAIT
from beatstore.models import DependencyModel, EntryModel, RunModel
from beatstore.rules import outcomes
from beatstore.rules.reasons import RERUN_ANYWAY, reworded
from beatstore.schedules.instants import EPOCH
from beatstore.store import links
from beatstore.tick import edges
from beatstore.tick.endings import reworded_reason
from tests.support.harness.play import NOON, Play

HOUR = timedelta(hours=1)


def write(play: Play, name: str, **columns: Any) -> None:
    """Write columns of an entry past the API, and have it looked at."""
    with play.store.database.session() as session:
        session.execute(update(EntryModel).where(EntryModel.name == name).values(**columns))
        session.commit()


def test_one_shots_are_the_same_in_sql(play: Play) -> None:
    """What is a one-shot, and what will not run again, is asked of rows and in statements."""
    for number, (kind, max_runs, state) in enumerate(
        product(
            ["once", "after", "cron"],
            [None, 1, 2],
            ["active", "paused", "finished", "missed", "cancelled"],
        )
    ):
        play.add(f"e{number}", "0 0 * * *")
        spec = {"once": Once(NOON).spec, "after": "", "cron": "0 0 * * *"}[kind]
        write(play, f"e{number}", kind=kind, spec=spec, max_runs=max_runs, state=state)
    shot, over = edges.one_shot(ENTRY).label("shot"), edges.not_running_again(ENTRY).label("over")
    with play.store.database.session() as session:
        for row in session.execute(select(ENTRY, shot, over)):
            assert bool(row.shot) is outcomes.is_one_shot(row), row.name
            assert bool(row.over) is links.will_not_run_again(row), row.name


def test_a_new_reason_keeps_the_note_of_a_user_in_both(play: Play) -> None:
    """Whoever words the reason of a run anew keeps that a user asked for it, and nothing else."""
    play.add("a", "0 * * * *")
    play.at("13:00")
    given = [
        *(None, "", "triggered", "triggered: rerun", "triggered; ended by hand"),
        *("triggered: rerun; revoked", "misfire: triggered", "waited 2 s; triggered", "rerun"),
        f"{RERUN_ANYWAY}, of attempt 1",
    ]
    said = []
    with play.store.database.session() as session:
        for reason in given:
            session.execute(update(RunModel).values(reason=reason))
            session.execute(update(RunModel).values(reason=reworded_reason("the 100 % of it")))
            said.append(session.scalar(select(RUN.c.reason)))
    assert said == [reworded(reason, "the 100 % of it") for reason in given]


@pytest.mark.parametrize("state", ["succeeded", "failed", "lost", "cancelled", "skipped"])
@pytest.mark.parametrize("reason", ["upstream 'up' failed", "overlap: its run has not ended"])
@pytest.mark.parametrize("claimed_by", [None, "beat"])
def test_what_a_sweep_counts_is_a_failure_to_an_edge(
    play: Play, state: str, reason: str, claimed_by: str | None
) -> None:
    """A run that beat has ended counts as a failure if, and only if, edges see one."""
    play.add("up", "0 * * * *")
    play.at("13:00")
    ended = {"state": state, "reason": reason, "claimed_by": claimed_by, "wake_at": NOON}
    with play.store.database.session() as session:
        session.execute(update(RunModel).values(**ended))
        outcome = session.scalar(select(edges.outcome_of(RUN)))
        session.commit()
    play.tick()
    assert play.store.get("up").failure_seq == (outcome == "failure")
    assert play.store.get("up").success_seq == 0


def test_a_one_shot_before_its_start_is_missed_by_all_accounts(play: Play) -> None:
    """Nothing is due before `start_at`: a one-shot neither, whoever is asked."""
    play.add("once", Once(NOON + HOUR))
    write(play, "once", start_at=NOON + 2 * HOUR)
    assert [one.name for one in play.store.upcoming()] == []
    assert play.store.preview("once", 1) == []
    assert play.at("13:30") == []
    assert play.store.get("once").state == "missed"
    assert play.last("once").reason == "its time is before start_at"


def test_an_entry_is_not_due_at_the_instant_at_which_it_was_made(play: Play) -> None:
    """What a beat will never send is not called due by `explain`."""
    play.add("hourly", "0 * * * *")
    answer = play.store.explain("hourly", at=NOON)
    assert answer.verdict == "not created", answer
    play.at("12:05")
    assert play.store.explain("hourly", at=NOON).verdict == "not created"
    assert play.history("hourly") == []


def test_nothing_is_told_of_due_times_before_the_start(play: Play) -> None:
    """A due time that is accounted for by `start_at` is not waited for, and no row says so."""
    play.add("up", "*/10 * * * *")
    play.at("12:10")
    play.end("up")
    play.add("down", "*/10 * * * *", start_at=NOON + HOUR, after=[After("up", align="same")])
    write(play, "down", created_at=NOON, wake_at=EPOCH)
    play.at("12:15")
    with play.store.database.session() as session:
        assert session.scalars(select(WAIT.c.due_at)).all() == []


def test_an_edge_made_free_by_hand_does_not_hold_for_ever(play: Play) -> None:
    """An edge for the same due time whose first run is free counts as satisfied everywhere."""
    play.add("up", "0 * * * *")
    play.add("down", "0 * * * *", after=[After("up", align="same")])
    play.at("13:00")
    assert play.store.explain("down").waits_for_count == 1
    with play.store.database.session() as session:
        session.execute(update(DependencyModel).values(consumed_seq=-1, first_free=True))
        session.execute(update(EntryModel).where(EntryModel.name == "down").values(wake_at=None))
        session.commit()
    write(play, "down", blocked_by=play.store.get("up").id, wake_at=None)
    assert play.store.explain("down").waits_for_count == 0
    assert play.queue.upkeep.wake_forgotten() == 1
    assert "down" in play.tick()
