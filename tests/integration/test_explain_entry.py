"""Why has an entry not run? Each situation of it, and what is said, on every database."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.nights import (
    ACTIVE,
    NEVER,
    NEXT,
    THREE,
    Night,
    broken,
    cancelled,
    claimed,
    ended,
    finished,
    folded,
    gone_wrong,
    jittered,
    never,
    no_beat,
    no_beat_ever,
    no_setup,
    overdue,
    paused,
    paused_by_hand,
    ran,
    retried,
    running,
    silent,
    silent_workers,
    skipped,
    suspected,
    written_by_hand,
)
from tests.support.written import HOUR, MINUTE

SITUATIONS: list[tuple[Callable[[Night], None], list[str]]] = [
    (never, [ACTIVE, NEXT, NEVER]),
    (
        ran,
        [
            ACTIVE,
            NEXT,
            "The run due 03:00:00 succeeded at 03:03:00, sent 2 s late, after 2 min 57 s, "
            "on celery@a.",
            "The run due 2026-01-14 03:00:00 failed at 2026-01-14 03:01:00: ValueError: boom.",
            "4 occurrences, from 2026-01-10 03:00:00 to 2026-01-13 03:00:00, were missed: misfire: "
            "first seen 2 h late, grace is 60 s, policy skip.",
        ],
    ),
    (
        folded,
        [
            ACTIVE,
            NEXT,
            "The run due 03:00:00 succeeded at 03:05:00, sent 4 min late. It also covers "
            "3 earlier occurrences, from 2026-01-12 03:00:00: misfire: first seen 3 d late, "
            "grace is 60 s, policy coalesce.",
        ],
    ),
    (skipped, [ACTIVE, NEXT, "The occurrence of 03:00:00 was skipped: upstream 'extract' failed."]),
    (
        gone_wrong,
        [
            ACTIVE,
            NEXT,
            "The run due 03:00:00 was lost at 03:04:00: worker celery@a stopped sending "
            "heartbeats.",
            "The run triggered at 02:00:00 succeeded at 02:00:00.",
            "The run due 2026-01-14 03:00:00 was cancelled at 2026-01-14 03:00:00: revoked.",
        ],
    ),
    (
        paused,
        [
            "'load' is paused since 02:50:00, by ann. It sends nothing until store.resume('load').",
            "If it were resumed now, it would be due next at "
            "2026-01-16 03:00 Europe/Berlin (02:00 UTC).",
            NEVER,
        ],
    ),
    (
        paused_by_hand,
        [
            "'load' is paused. It sends nothing until store.resume('load').",
            "If it were resumed now, it would be due next at "
            "2026-01-16 03:00 Europe/Berlin (02:00 UTC).",
            NEVER,
        ],
    ),
    (
        broken,
        [
            "'load' is broken: spec: nonsense.",
            "Fix it with store.change('load', …), or try again with store.resume('load').",
            NEVER,
        ],
    ),
    (finished, ["'load' is finished: all its 3 runs were sent.", NEVER]),
    (
        ended,
        [
            "'load' is finished: nothing more was due until its end, "
            "2026-01-15 02:00 Europe/Berlin (01:00 UTC).",
            NEVER,
        ],
    ),
    (cancelled, ["'load' is cancelled since 01:00:00, by bob.", NEVER]),
    (
        overdue,
        [
            ACTIVE,
            "It has been overdue since 03:00:00 (5 min): no beat has picked it up.",
            "One beat is alive, but may be busy or stuck: see store.status().",
            NEXT,
            NEVER,
        ],
    ),
    (
        written_by_hand,
        [
            ACTIVE,
            "It has been overdue since 03:00:00 (5 min): no beat has picked it up.",
            "One beat is alive, but may be busy or stuck: see store.status().",
            NEXT,
            NEVER,
        ],
    ),
    (
        no_beat,
        [
            ACTIVE,
            "It has been overdue since 03:00:00 (5 min): no beat has picked it up.",
            "No beat is alive: the last heartbeat was at 01:05:00.",
            NEXT,
            NEVER,
        ],
    ),
    (
        no_beat_ever,
        [
            ACTIVE,
            "No beat is alive, and none is on record: start one with "
            "`celery -A … beat --scheduler beatstore:DBScheduler`.",
            NEXT,
            NEVER,
        ],
    ),
    (
        running,
        [
            ACTIVE,
            "The run due 03:00:00 has been running since 03:00:02 (4 min 58 s), on celery@a.",
            NEXT,
        ],
    ),
    (
        suspected,
        [
            ACTIVE,
            "The run due 03:00:00 has been running since 03:00:00 (5 min), on celery@a, "
            "which has stopped reporting.",
            NEXT,
        ],
    ),
    (
        silent,
        [
            ACTIVE,
            "The run due 03:00:00 was sent at 03:00:01 (4 min 59 s ago), "
            "and no worker has reported it.",
            "Perhaps no worker listens to queue 'etl', or the one that took it lacks "
            "beatstore.setup(app).",
            "It has no run_timeout, so it is never marked lost.",
            NEXT,
        ],
    ),
    (
        silent_workers,
        [
            ACTIVE,
            "The run due 03:00:00 was sent at 03:00:00 (5 min ago), and no worker has reported it.",
            "Perhaps no worker listens to its queue, or the one that took it lacks "
            "beatstore.setup(app).",
            "If no worker reports by 04:00:00, it is marked lost.",
            "No worker that reports outcomes is alive.",
            NEXT,
        ],
    ),
    (
        no_setup,
        [
            ACTIVE,
            NEXT,
            "The run due 03:00:00 was sent at 03:00:00 (5 min ago), and no worker has reported it.",
            "Outcomes of sent runs are unknown: no worker has ever reported one; "
            "call beatstore.setup(app) in the module of the Celery app, or start a worker.",
        ],
    ),
    (
        retried,
        [
            ACTIVE,
            "Attempt 2 of the run due 03:00:00 will be sent at 03:10:00, in 5 min, "
            "after ValueError: boom.",
            NEXT,
            "The run due 03:00:00 failed at 03:01:00: ValueError: boom.",
        ],
    ),
    (claimed, [ACTIVE, "The run due 03:00:00 is about to be sent.", NEXT]),
    (jittered, [ACTIVE, f"{NEXT[:-1]}; it is sent 25 s later (jitter).", NEVER]),
]


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("arrange", "sentences"), SITUATIONS, ids=[arrange.__name__ for arrange, _ in SITUATIONS]
)
def test_an_entry_is_explained(
    night: Night, arrange: Callable[[Night], None], sentences: list[str]
) -> None:
    """Each situation in whole sentences, in the order in which a person asks."""
    arrange(night)
    assert night.said() == sentences
    assert str(night.store.explain("load")) == " ".join(sentences)


def test_a_run_of_a_paused_entry_needs_a_beat(night: Night) -> None:
    """What was triggered is sent though its entry is paused, if there is a beat to send it."""
    paused(night)
    night.store.trigger("load")
    assert not [said for said in night.said() if "beat" in said]
    night.beat(7200)
    assert night.said()[1] == "No beat is alive: the last heartbeat was at 01:05:00."
    assert "is about to be sent" in night.said()[2]


def test_more_runs_than_are_told(night: Night) -> None:
    """Three of those that have not ended, the ones that run first, and that there are more."""
    for number in range(5):
        at = THREE - number * HOUR
        night.run(at, state="started", sent_at=at, started_at=at, worker="celery@a")
    night.run(THREE - MINUTE, sent_at=THREE - MINUTE)
    said = night.said()
    assert [sentence[:21] for sentence in said[1:4]] == [
        "The run due 03:00:00 ",
        "The run due 02:00:00 ",
        "The run due 01:00:00 ",
    ]
    assert said[4] == "It has more runs that have not ended."
