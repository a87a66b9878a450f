"""However the time line is cut into looks, no occurrence is lost or doubled."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beatstore.config import Settings
from beatstore.rules import alike
from beatstore.rules.decide import COUNT_LIMIT, decide
from beatstore.schedules import parse
from tests.support.thorough import tries
from tests.unit.test_decide import Row

START = datetime(2026, 3, 28, 20, tzinfo=timezone.utc)  # the night Berlin's clocks go forward

SPECS = st.sampled_from(
    [
        ("cron", "*/7 * * * *"),
        ("cron", "30 2 * * *"),
        ("cron", "0 */2 * * *"),
        ("cron", "*/20 * * * * */15"),
        ("every", "420"),
        ("every", "97.5"),
        ("rrule", "FREQ=HOURLY;INTERVAL=3"),
    ]
)


@settings(max_examples=tries(150), deadline=None)
@given(
    spec=SPECS,
    policy=st.sampled_from(["skip", "coalesce", "all"]),
    grace=st.sampled_from([0.0, 60.0, 3600.0, 1e6]),
    jitter=st.sampled_from([0.0, 45.0]),
    steps=st.lists(st.integers(-1800, 20000), min_size=1, max_size=25),
)
def test_every_occurrence_is_accounted_for_once(
    spec: tuple[str, str], policy: str, grace: float, jitter: float, steps: list[int]
) -> None:
    """Sent, folded into a run, or counted as missed: each occurrence exactly once, in order."""
    assume(policy != "skip" or grace)  # refused: it would never run
    row = Row(
        kind=spec[0],
        spec=spec[1],
        timezone="Europe/Berlin",
        created_at=START,
        misfire=policy,
        grace_s=grace,
        jitter_s=jitter,
    )
    config = Settings(catch_up_limit=10**6)
    now, accounted, keys = START, 0, []
    for step in [*steps, 0]:
        now += timedelta(seconds=step)
        for _ in range(200):
            decision = decide(row, now, config)
            for run in decision.runs:
                assert run.missed_count <= COUNT_LIMIT
                keys.append(run.due_at)
                accounted += run.missed_count if run.state == "missed" else 1 + run.missed_count
            row = row.after(decision)
            assert decision.wake_at is not None
            if decision.wake_at > now:
                break
        else:
            raise AssertionError("the backlog was not worked off")
    schedule = parse(spec[0], spec[1], "Europe/Berlin", START)
    through = row.cursor_at or START
    expected = schedule.between(START, through, 10**6)
    assert accounted == len(expected)
    assert len(set(keys)) == len(keys)
    assert keys == sorted(keys)
    latest = max(START, now)
    assert not schedule.between(through, latest - timedelta(seconds=jitter), 1)


@settings(max_examples=tries(60), deadline=None)
@given(steps=st.lists(st.integers(1, 4000), min_size=1, max_size=30))
def test_an_extra_look_changes_nothing(steps: list[int]) -> None:
    """Looking again at the same instant, or early, sends nothing twice."""
    row, now = Row(spec="*/5 * * * *", created_at=START), START
    for step in steps:
        now += timedelta(seconds=step)
        first = decide(row, now, Settings())
        row = row.after(first)
        again = decide(row, now, Settings())
        assert again.runs == ()
        assert again == replace(first, runs=())


PLAIN = {
    "spec": st.sampled_from(["*/20 * * * *", "5 * * * *"]),
    "cursor_at": st.sampled_from([START, START + timedelta(minutes=20)]),
    "misfire": st.sampled_from([None, "skip", "coalesce", "all"]),
    "grace_s": st.sampled_from([None, 60.0, 1500.0, 1e6]),
    "overlap": st.sampled_from(["allow", "skip", "wait"]),
}

OTHERS = PLAIN | {
    "spec": st.just("*/20 * * * *"),
    "timezone": st.sampled_from([None, "Europe/Berlin", "Asia/Kolkata"]),
    "start_at": st.sampled_from([None, START + timedelta(minutes=30)]),
    "end_at": st.sampled_from([None, START + timedelta(minutes=90)]),
    "max_runs": st.sampled_from([None, 1, 5]),
    "run_count": st.sampled_from([0, 1, 4]),
    "jitter_s": st.sampled_from([0.0, 600.0]),
    "pending_due_at": st.sampled_from([None, START + timedelta(minutes=20)]),
    "pending_since": st.sampled_from([None, START]),
    "created_at": st.sampled_from([START - timedelta(days=1), START + timedelta(minutes=10)]),
    "state": st.sampled_from(["active", "active", "paused"]),
}

EVERY = OTHERS | {"kind": st.just("every"), "spec": st.just("1200")}

ENTRIES = st.one_of(*(st.builds(Row, **columns) for columns in (PLAIN, PLAIN, OTHERS, EVERY)))


@settings(max_examples=tries(400, 200), deadline=None)
@given(
    rows=st.lists(ENTRIES, min_size=1, max_size=12),
    nows=st.lists(st.integers(0, 150), min_size=1, max_size=6),
    zone=st.sampled_from(["UTC", "Europe/London", "Asia/Kathmandu"]),
    misfire=st.sampled_from(["coalesce", "all"]),
)
def test_a_shared_decision_is_that_of_the_entry_alone(
    rows: list[Row], nows: list[int], zone: str, misfire: str
) -> None:
    """Whatever was decided before, of other entries and at other instants."""
    for config in (Settings(), Settings(default_timezone=zone, default_misfire=misfire)):
        for minute in nows:
            now = START + timedelta(minutes=minute)
            together = [decide(row, now, config) for row in rows]
            alone = []
            for row in rows:
                alike._known.clear()
                alone.append(decide(row, now, config))
            assert together == alone
            for row in rows:  # so that the next instant meets decisions of this one
                decide(row, now, config)
