"""Why has an entry not run that waits for others? What is said of them, on every database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from beatstore import Once
from beatstore.models import DependencyModel, EntryModel
from tests.support.harness.play import NOON, Play
from tests.support.marks import on_sqlite
from tests.support.nights import (
    ACTIVE,
    EXTRACT_NEXT,
    NEVER,
    NEXT,
    WAITS,
    Night,
    other_reason,
    own_run,
    several,
    up_broken,
    up_cancelled,
    up_failed,
    up_never,
    up_paused,
    up_removed,
    up_retried,
    up_running,
    up_same,
    up_sent,
    up_used,
    up_vanished,
    up_waits,
)
from tests.support.written import write

WAITING: list[tuple[Callable[[Night], None], list[str]]] = [
    (
        up_never,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            f"'extract' must succeed: it has never run; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_failed,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: its last run due 02:00:00 failed at 02:10:00: "
            f"OSError: disk full; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_used,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must end: its last run due 2026-01-14 02:00:00 succeeded at "
            f"2026-01-14 03:00:00; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_running,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: its run due 02:00:00 has been running since 02:00:00 "
            f"(1 h 5 min), on celery@b; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_sent,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must fail: its run due 02:00:00 was sent at 02:00:00 (1 h 5 min ago), and "
            f"no worker has reported it; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_retried,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: attempt 2 of its run due 02:00:00 will be sent at 03:06:00, "
            f"in 1 min, after boom; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_paused,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: it is paused since 01:00:00, by bob.",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_broken,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: it is broken (args: expected a JSON list, got 7).",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_cancelled,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: it is cancelled since 03:05:00, by ann, "
            "and will not run again.",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_waits,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed: it waits for 'fetch' to succeed (for 1 h 5 min); "
            f"{EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_same,
        [
            ACTIVE,
            f"{WAITS} its upstream.",
            "'extract' must succeed, for the same due time: its last run due 02:00:00 succeeded "
            f"at 02:10:00; {EXTRACT_NEXT}",
            NEXT,
            NEVER,
        ],
    ),
    (
        up_removed,
        [
            ACTIVE,
            "Nothing blocks its occurrence of 2026-01-15 03:00 Europe/Berlin (02:00 UTC) "
            "any more: a beat is about to pick it up.",
            NEXT,
            NEVER,
        ],
    ),
    (
        several,
        [
            ACTIVE,
            f"{WAITS} 2 of its 3 upstreams.",
            "'zip' must succeed: it is broken (no).",
            f"'extract' must succeed: it has never run; {EXTRACT_NEXT}",
            "It gives up waiting at 03:15:00.",
            NEXT,
            NEVER,
        ],
    ),
    (
        own_run,
        [
            ACTIVE,
            f"{WAITS} its own run to end (overlap: wait).",
            "The run due 2026-01-14 03:00:00 has been running since 2026-01-14 03:00:00 "
            "(1 d 5 min), on celery@a.",
            NEXT,
        ],
    ),
    (other_reason, [ACTIVE, f"{WAITS} 'ghost' to succeed.", NEXT, NEVER]),
]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("arrange", "sentences"), WAITING, ids=[arrange.__name__ for arrange, _ in WAITING]
)
def test_an_entry_is_explained(
    night: Night, arrange: Callable[[Night], None], sentences: list[str]
) -> None:
    """What it waits for, and what becomes of that, in whole sentences."""
    arrange(night)
    assert night.said() == sentences
    assert str(night.store.explain("load")) == " ".join(sentences)


@on_sqlite
def test_an_upstream_whose_row_vanished_is_named_by_its_runs(night: Night) -> None:
    """SQLite keeps an edge to nowhere where foreign keys are off; the others don't."""
    up_vanished(night)
    assert night.said()[1:3] == [
        f"{WAITS} its upstream.",
        "'extract' must succeed: it was removed.",
    ]


def test_ten_of_many_upstreams_are_told(night: Night) -> None:
    """The rest is counted, in one question."""
    rows = [{"name": f"up{number:05}", "task": "t", "kind": "after"} for number in range(10_000)]
    write(night.store, EntryModel, *({**row, "spec": ""} for row in rows))
    with night.store.database.session() as session:
        ids = session.scalars(select(EntryModel.id).where(EntryModel.kind == "after")).all()
    edges = [{"upstream_id": up, "downstream_id": night.load.id} for up in ids]
    write(night.store, DependencyModel, *edges)
    night.wait(ids[-1])
    found = night.store.explain("load")
    assert found.sentences[1:3] == [
        f"{WAITS} all its 10,000 upstreams.",
        "'up00000' must succeed: it has never run.",
    ]
    assert found.sentences[12:] == ["And 9,990 more.", NEXT, NEVER]
    assert (found.waits_for_count, len(found.waits_for)) == (10_000, 10)


def test_an_entry_without_a_schedule_is_explained(night: Night) -> None:
    """It sleeps until all its upstreams have done what they must; there is no next time."""
    night.store.add("report", "t", after=["load"])
    assert night.store.explain("report").sentences == [
        "'report' is active: after its upstreams, without a schedule.",
        "'report' waits for its upstream.",
        "'load' must succeed, for the same due time: it has never run; it is due next at "
        "2026-01-16 02:00 UTC.",
        "'report' has never run.",
    ]
    night.store.unlink("report", "load")
    with night.store.database.session() as session:
        reason = {"pending_reason": "it has no upstreams; link some", "wake_at": None}
        session.execute(update(EntryModel).where(EntryModel.name == "report").values(**reason))
    assert night.store.explain("report").sentences[1] == (
        "'report' waits because it has no upstreams; link some."
    )


def told(play: Play, name: str) -> str:
    """Return what is said of the only upstream of an entry."""
    [said] = [one for one in play.store.explain(name).sentences if " must " in one]
    return said.partition(": ")[2]


def test_a_finished_upstream_is_told_by_its_run(play: Play) -> None:
    """A one-shot is finished once it is sent; what is said is what became of that run."""
    play.add("extract", Once(NOON + timedelta(hours=1)), max_retries=1, retry_delay=600)
    play.add("load", after=["extract"])
    play.at("13:00")
    play.at("13:01")
    assert play.store.get("extract").state == "finished"
    assert told(play, "load") == (
        "its run due 13:00:00 was sent at 13:00:00 (1 min ago), and no worker has reported it."
    )
    play.end("extract", "failed")
    assert told(play, "load").startswith("attempt 2 of its run due 13:00:00 will be sent at 13:11")
    play.at("13:11")
    play.end("extract", "failed")
    assert told(play, "load").startswith(
        "it is finished, and will not run again; attempt 2 of its last run due 13:00:00 failed at "
    )


def test_a_paused_upstream_may_be_at_work(play: Play) -> None:
    """A pause stops what is not sent yet; a run that is under way may still set free."""
    play.add("extract", "0 * * * *")
    play.add("load", "0 * * * *", after=["extract"])
    play.at("13:00")
    play.store.by("ann").pause("extract")
    assert told(play, "load") == (
        "it is paused since 13:00:00, by ann; its run due 13:00:00 was sent at 13:00:00."
    )
    assert play.end("extract") == ["load"]


def test_each_due_time_that_waits_is_no_stranger(play: Play) -> None:
    """Without a schedule, a due time of the upstreams that waits for one of them is told so."""
    play.add("extract", "0 * * * *")
    for name in ("clean", "enrich"):
        play.add(name, after=["extract"])
    play.add("load", after=["clean", "enrich"])
    for hour in ("13:00", "14:00"):
        play.at(hour)
        play.end("extract")
        play.end("clean")
    found = [play.store.explain("load", NOON + timedelta(hours=hours)) for hours in (1, 2, 3)]
    assert [one.verdict for one in found] == ["waiting", "waiting", "not an occurrence"]
    assert [one.sentences[0] for one in found[:2]] == [
        "The occurrence of 'load' at 2026-01-15 13:00 UTC waits.",
        "The occurrence of 'load' at 2026-01-15 14:00 UTC waits, as does the one due 13:00:00.",
    ]


def test_a_rerun_is_of_the_run_of_its_due_time(play: Play) -> None:
    """Who asks for one more attempt has not triggered the run that it is of."""
    play.add("extract", "0 * * * *")
    play.add("load", "0 * * * *", after=["extract"])
    play.at("13:00")
    play.end("extract", "failed")
    play.at("13:40")
    play.store.rerun(play.last("extract").id)
    play.tick()
    assert told(play, "load").startswith(
        "attempt 2 of its run due 13:00:00 was sent at 13:40:00; it is due next at "
    )
