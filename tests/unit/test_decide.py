"""The misfire rule, case by case, without a database."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from beatstore.config import Settings
from beatstore.rules.decide import BURST, COUNT_LIMIT, decide
from beatstore.rules.decision import Decision, PlannedRun
from beatstore.rules.due import jitter_offset
from tests.support.cost import Cost

SETTINGS = Settings(default_timezone="UTC")


def at(text: str) -> datetime:
    """Read "09:30" or "2026-01-02 09:30:15" as an instant in UTC; a bare time is 1 March 2026."""
    full = text if "-" in text else f"2026-03-01 {text}"
    return datetime.fromisoformat(full).replace(tzinfo=timezone.utc)


@dataclass
class Row:
    """The columns of an entry, with the defaults of a new one."""

    id: int = 1
    kind: str = "cron"
    spec: str = "0 * * * *"
    timezone: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    jitter_s: float = 0.0
    misfire: str | None = None
    grace_s: float | None = None
    overlap: str = "allow"
    run_timeout_s: float | None = None
    state: str = "active"
    error: str | None = None
    cursor_at: datetime | None = None
    next_due_at: datetime | None = None
    pending_due_at: datetime | None = None
    pending_since: datetime | None = None
    run_count: int = 0
    last_run_at: datetime | None = None
    created_at: datetime = field(default_factory=lambda: at("00:30"))
    args: Any = field(default_factory=list)
    kwargs: Any = field(default_factory=dict)
    options: Any = field(default_factory=dict)

    def after(self, decision: Decision) -> Row:
        """Return the row as the store would write it after `decision`."""
        sent = [run.due_at for run in decision.runs if run.state == "claimed"]
        return replace(
            self,
            state=decision.state,
            error=decision.error,
            cursor_at=decision.cursor_at,
            next_due_at=decision.next_due_at,
            pending_due_at=decision.pending_due_at,
            pending_since=decision.pending_since,
            run_count=self.run_count + len(sent),
            last_run_at=max(sent, default=self.last_run_at),
        )


def sent(decision: Decision) -> list[datetime]:
    """Return the due times that are to be sent."""
    return [run.due_at for run in decision.runs if run.state == "claimed"]


def missed(decision: Decision) -> list[PlannedRun]:
    """Return the records of what is not."""
    return [run for run in decision.runs if run.state == "missed"]


OUTAGE = Row(cursor_at=at("09:00"), grace_s=300)
"""Hourly, last accounted for at 09:00; beat was away from 09:30 to 12:02."""
BACK = at("12:02")


def test_coalesce_makes_one_run_of_a_backlog() -> None:
    """A backlog gives exactly one run, due at its latest occurrence; it says what it stands for."""
    decision = decide(replace(OUTAGE, misfire="coalesce"), BACK, SETTINGS)
    (run,) = decision.runs
    assert (run.due_at, run.state) == (at("12:00"), "claimed")
    assert (run.first_missed_at, run.missed_count) == (at("10:00"), 2)
    assert decision.cursor_at == at("12:00")
    assert decision.next_due_at == decision.wake_at == at("13:00")


def test_skip_records_misfires_and_runs_what_is_within_grace() -> None:
    """Under skip the late ones are one `missed` row with first and count; the punctual one runs."""
    decision = decide(replace(OUTAGE, misfire="skip"), BACK, SETTINGS)
    assert sent(decision) == [at("12:00")]
    (record,) = missed(decision)
    assert (record.due_at, record.first_missed_at, record.missed_count) == (
        at("11:00"),
        at("10:00"),
        2,
    )
    assert record.reason is not None
    assert "2 h 2 min late" in record.reason
    assert decision.cursor_at == at("12:00")


def test_skip_with_nothing_within_grace_runs_nothing() -> None:
    """When all are late, skip sends nothing and accounts for all of them."""
    decision = decide(replace(OUTAGE, misfire="skip"), at("12:20"), SETTINGS)
    assert sent(decision) == []
    assert missed(decision)[0].missed_count == 3
    assert decision.cursor_at == at("12:00")


def test_skip_without_any_grace_is_broken() -> None:
    """An entry that would skip whatever is due says so, wherever the two values come from."""
    row = replace(OUTAGE, misfire="skip", grace_s=0)
    always = Settings(default_timezone="UTC", default_misfire="skip", default_grace=0)
    for entry, settings in ((row, SETTINGS), (replace(row, misfire=None, grace_s=None), always)):
        decision = decide(entry, BACK, settings)
        assert decision.state == "broken"
        assert decision.error is not None
        assert decision.error.startswith("grace_s")
    assert decide(replace(row, misfire="coalesce"), BACK, SETTINGS).state == "active"
    assert decide(replace(row, grace_s=0.001), BACK, SETTINGS).state == "active"


@pytest.mark.parametrize("end", ["11:30", "12:00", "12:01"])
def test_skip_counts_nothing_behind_end_at(end: str) -> None:
    """What would be due after `end_at` is no occurrence, and is not counted as missed."""
    row = replace(OUTAGE, misfire="skip", end_at=at(end))
    decision = decide(row, at("20:00"), SETTINGS)
    (record,) = decision.runs
    last = at("11:00") if end == "11:30" else at("12:00")
    assert (record.state, record.due_at, record.first_missed_at) == ("missed", last, at("10:00"))
    assert record.missed_count == (2 if end == "11:30" else 3)
    assert (decision.state, decision.cursor_at) == ("finished", last)


@pytest.mark.parametrize("policy", ["skip", "coalesce", "all"])
def test_each_occurrence_before_end_at_is_accounted_for_once(policy: str) -> None:
    """Whenever beat looks again, rows and counts together are the occurrences until the end."""
    row = replace(OUTAGE, misfire=policy, end_at=at("13:20"))
    for minutes in range(150, 600, 7):
        now = at("09:30") + timedelta(minutes=minutes)
        decision = decide(row, now, SETTINGS)
        counted = len(sent(decision)) + sum(run.missed_count for run in decision.runs)
        assert counted == min(int((now - at("09:00")).total_seconds() // 3600), 4)
        assert max(run.due_at for run in decision.runs) <= at("13:20")


def test_all_runs_each_oldest_first() -> None:
    """Under all each occurrence runs, oldest first."""
    decision = decide(replace(OUTAGE, misfire="all"), BACK, SETTINGS)
    assert sent(decision) == [at("10:00"), at("11:00"), at("12:00")]
    assert missed(decision) == []


def test_all_records_the_excess_over_the_catch_up_limit() -> None:
    """Beyond catch_up_limit, `all` counts in one row what it did not run."""
    settings = replace(SETTINGS, catch_up_limit=2)
    row = replace(OUTAGE, misfire="all")
    decision = decide(row, at("14:30"), settings)
    assert sent(decision) == [at("10:00"), at("11:00")]
    (record,) = missed(decision)
    assert (record.due_at, record.first_missed_at, record.missed_count) == (
        at("14:00"),
        at("12:00"),
        3,
    )
    assert decision.cursor_at == at("14:00")


@pytest.mark.parametrize("policy", ["skip", "coalesce", "all"])
def test_within_grace_each_occurrence_runs_whatever_the_policy(policy: str) -> None:
    """None older than grace: each occurrence runs, so a slow tick loses no second."""
    row = Row(spec="* * * * * *", cursor_at=at("09:00:00"), misfire=policy, grace_s=60)
    decision = decide(row, at("09:00:05"), SETTINGS)
    assert len(sent(decision)) == 5
    assert missed(decision) == []


def test_grace_is_inclusive() -> None:
    """An occurrence exactly `grace` old is not a misfire; a microsecond older is."""
    row = Row(cursor_at=at("09:00"), misfire="skip", grace_s=60)
    assert sent(decide(row, at("10:01"), SETTINGS)) == [at("10:00")]
    assert sent(decide(row, at("10:01") + timedelta(microseconds=1), SETTINGS)) == []


def test_a_single_late_occurrence_coalesces_into_itself() -> None:
    """One late occurrence runs late, and stands for no other."""
    decision = decide(Row(cursor_at=at("09:00")), at("10:30"), SETTINGS)
    (run,) = decision.runs
    assert (run.due_at, run.first_missed_at, run.missed_count) == (at("10:00"), None, 0)


def test_the_setting_is_the_default_of_policy_and_grace() -> None:
    """NULL in misfire and grace_s means what the settings say."""
    settings = replace(SETTINGS, default_misfire="skip", default_grace=7200.0)
    assert sent(decide(OUTAGE_DEFAULT, at("10:59"), settings)) == [at("10:00")]
    assert sent(decide(OUTAGE_DEFAULT, at("13:30"), settings)) == [at("12:00"), at("13:00")]


OUTAGE_DEFAULT = Row(cursor_at=at("09:00"))


def test_the_first_run_is_the_first_occurrence_after_creation() -> None:
    """A new entry does not fire for the time before it existed."""
    assert decide(Row(), at("00:59"), SETTINGS).runs == ()
    assert sent(decide(Row(), at("01:00"), SETTINGS)) == [at("01:00")]


def test_the_first_run_waits_for_start_at_and_may_be_it() -> None:
    """With start_at, the first run is the first occurrence not before it."""
    row = Row(start_at=at("05:00"))
    early = decide(row, at("03:30"), SETTINGS)
    assert (early.runs, early.wake_at) == ((), at("05:00"))
    assert sent(decide(row, at("05:00"), SETTINGS)) == [at("05:00")]


def test_an_interval_begins_at_start_at_or_one_period_after_creation() -> None:
    """An interval's first run is start_at itself; without one, a period after its creation."""
    row = Row(kind="every", spec="600", start_at=at("05:00"))
    assert decide(row, at("00:31"), SETTINGS).next_due_at == at("05:00")
    assert decide(replace(row, start_at=None), at("00:31"), SETTINGS).next_due_at == at("00:40")


def test_end_at_is_the_last_possible_occurrence() -> None:
    """An occurrence at end_at runs; after it the entry is finished."""
    row = Row(cursor_at=at("09:00"), end_at=at("10:00"))
    decision = decide(row, at("10:00"), SETTINGS)
    assert sent(decision) == [at("10:00")]
    assert (decision.state, decision.wake_at) == ("finished", None)


def test_max_runs_is_never_exceeded() -> None:
    """A backlog runs no more than what is left of max_runs, and finishes the entry."""
    row = Row(cursor_at=at("09:00"), misfire="all", max_runs=5, run_count=3)
    decision = decide(row, BACK, SETTINGS)
    assert sent(decision) == [at("10:00"), at("11:00")]
    assert decision.state == "finished"


def test_a_one_shot_runs_late_unless_told_to_skip() -> None:
    """A one-shot found late runs, or under skip becomes `missed`, with a record."""
    row = Row(kind="once", spec=at("09:00").isoformat())
    late = decide(row, at("11:00"), SETTINGS)
    assert (sent(late), late.state, late.wake_at) == ([at("09:00")], "finished", None)
    skipped = decide(replace(row, misfire="skip"), at("11:00"), SETTINGS)
    assert (sent(skipped), skipped.state) == ([], "missed")
    assert missed(skipped)[0].due_at == at("09:00")


def test_a_one_shot_older_than_its_row_still_runs() -> None:
    """A one-shot whose time passed before its row was committed is not lost."""
    row = Row(kind="once", spec=at("00:10").isoformat())
    assert sent(decide(row, at("00:31"), SETTINGS)) == [at("00:10")]


def test_a_one_shot_that_slept_through_its_time_is_missed() -> None:
    """Resuming a one-shot after its time does not fire it; it is `missed`, and says why."""
    row = Row(kind="once", spec=at("09:00").isoformat(), cursor_at=at("10:00"))
    decision = decide(row, at("10:00"), SETTINGS)
    assert (sent(decision), decision.state) == ([], "missed")
    assert "paused" in str(missed(decision)[0].reason)


def test_a_finished_one_shot_stays_finished() -> None:
    """A look at a one-shot that has run makes no second run."""
    row = Row(kind="once", spec=at("09:00").isoformat(), cursor_at=at("09:00"), run_count=1)
    decision = decide(replace(row, last_run_at=at("09:00")), at("10:00"), SETTINGS)
    assert (decision.runs, decision.state) == ((), "finished")


@pytest.mark.parametrize("cursor_at", [None, at("10:00")])
def test_a_one_shot_that_ran_before_its_time_may_be_missed(cursor_at: datetime | None) -> None:
    """What was triggered, or sent before it was put off, is no run of its due time."""
    row = Row(kind="once", spec=at("09:00").isoformat(), run_count=1, last_run_at=at("08:00"))
    row = replace(row, cursor_at=cursor_at, misfire="skip", grace_s=60)
    decision = decide(row, at("10:00"), SETTINGS)
    assert ([run.due_at for run in missed(decision)], decision.state) == ([at("09:00")], "missed")


@pytest.mark.parametrize("state", ["paused", "finished", "missed", "cancelled", "broken"])
def test_nothing_but_an_active_entry_is_sent(state: str) -> None:
    """An entry in another state gets no run and is not looked at again."""
    decision = decide(replace(OUTAGE, state=state), BACK, SETTINGS)
    assert (decision.runs, decision.wake_at, decision.state) == ((), None, state)


def test_a_clock_set_back_doubles_nothing() -> None:
    """An hour back after a run: nothing is due until the clock has passed it again."""
    row = Row(cursor_at=at("10:00"))
    decision = decide(row, at("09:05"), SETTINGS)
    assert decision.runs == ()
    assert decision.cursor_at == at("10:00")
    assert decision.wake_at == at("11:00")


def test_a_clock_set_forward_and_back_loses_nothing() -> None:
    """What came due in an hour that was jumped over runs once, and not again."""
    row = Row(cursor_at=at("09:00"), misfire="all")
    jumped = decide(row, at("11:30"), SETTINGS)
    assert sent(jumped) == [at("10:00"), at("11:00")]
    assert decide(row.after(jumped), at("10:30"), SETTINGS).runs == ()
    assert sent(decide(row.after(jumped), at("12:00"), SETTINGS)) == [at("12:00")]


def test_jitter_delays_the_sending_and_not_the_due_time() -> None:
    """Jitter moves wake_at by a fixed share of itself; due_at and cadence stay."""
    row = Row(id=7, cursor_at=at("09:00"), jitter_s=600)
    offset = jitter_offset(7, 600)
    assert timedelta(0) < offset < timedelta(seconds=600)
    early = decide(row, at("10:00"), SETTINGS)
    assert (early.runs, early.next_due_at) == ((), at("10:00"))
    assert early.wake_at == at("10:00") + offset
    assert sent(decide(row, at("10:00") + offset, SETTINGS)) == [at("10:00")]


def test_jitter_spreads_entries() -> None:
    """Different entries get different offsets, all over the range."""
    offsets = {jitter_offset(entry_id, 100).total_seconds() // 10 for entry_id in range(200)}
    assert offsets == set(range(10))


def test_a_long_grace_is_worked_off_in_bursts() -> None:
    """However many occurrences are within grace, one look is bounded and the next goes on."""
    row = Row(spec="* * * * *", cursor_at=at("00:00"), grace_s=86400)
    seen: list[datetime] = []
    for _ in range(20):
        decision = decide(row, at("08:00"), SETTINGS)
        assert len(decision.runs) <= BURST
        seen += sent(decision)
        row = row.after(decision)
        assert decision.wake_at is not None
        if decision.wake_at > at("08:00"):
            break
    assert seen == [at("00:00") + timedelta(minutes=minute) for minute in range(1, 481)]


def test_counts_are_exact_to_a_thousand() -> None:
    """Up to 1,000 missed occurrences are counted; more are 1,001, which reads as "1000+"."""
    row = Row(spec="* * * * *", cursor_at=at("2026-02-01 00:00"), misfire="skip")
    few = decide(row, at("2026-02-01 16:40:30"), SETTINGS)
    assert missed(few)[0].missed_count == 1000 - 1
    many = decide(row, at("2026-02-28 00:00"), SETTINGS)
    assert missed(many)[0].missed_count == COUNT_LIMIT + 1


@pytest.mark.parametrize("policy", ["skip", "coalesce", "all"])
def test_a_year_of_minutes_is_decided_in_milliseconds(policy: str) -> None:
    """A minutely cron after a year away is decided in under 10 ms."""
    row = Row(
        spec="* * * * *",
        timezone="Europe/Berlin",
        cursor_at=at("2025-03-01 00:00"),
        misfire=policy,
    )
    decide(row, at("2026-03-01 00:00:30"), SETTINGS)  # parsed once
    spent = []
    for second in range(5):
        with Cost() as cost:
            decide(row, at("2026-03-01 00:00:31") + timedelta(seconds=second), SETTINGS)
        spent.append(cost.seconds)
    assert min(spent) < 0.010


@pytest.mark.parametrize(
    ("field_name", "value", "words"),
    [
        ("spec", "61 * * * *", "61"),
        ("spec", "0 0 31 2 *", "0 0 31 2 *"),
        ("spec", "", "spec"),
        ("kind", "nonsense", "kind"),
        ("kind", "sometimes", "kind"),
        ("timezone", "Mars/Olympus", "Mars/Olympus"),
        ("misfire", "later", "misfire"),
        ("grace_s", -1.0, "grace_s"),
        ("jitter_s", float("inf"), "jitter_s"),
        ("run_timeout_s", "soon", "run_timeout_s"),
        ("max_runs", 1.5, "max_runs"),
        ("args", {"a": 1}, "args"),
        ("kwargs", [1], "kwargs"),
        ("options", "x", "options"),
        ("options", {"headers": [1]}, "headers"),
    ],
)
def test_what_cannot_be_decided_is_broken_and_says_why(
    field_name: str, value: object, words: str
) -> None:
    """A bad row becomes `broken`, out of the way, with an error that names what is wrong."""
    decision = decide(replace(OUTAGE, **{field_name: value}), BACK, SETTINGS)  # type: ignore[arg-type]
    assert (decision.state, decision.runs, decision.wake_at) == ("broken", (), None)
    assert words in str(decision.error)


@pytest.mark.parametrize(
    ("field_name", "value"),
    [
        ("kind", "nonsense"),
        ("misfire", "caolesce"),
        ("grace_s", -1.0),
        ("jitter_s", float("inf")),
        ("run_timeout_s", "soon"),
        ("max_runs", 1.5),
        ("args", {"a": 1}),
        ("kwargs", [1]),
        ("options", {"headers": [1]}),
    ],
)
def test_the_error_of_a_broken_entry_says_what_to_write(field_name: str, value: object) -> None:
    """It says what was given, what was expected, and what to write instead."""
    decision = decide(replace(OUTAGE, **{field_name: value}), BACK, SETTINGS)  # type: ignore[arg-type]
    said = str(decision.error)
    assert said.startswith(field_name)
    assert ": expected " in said
    assert ", got " in said
    assert "; write " in said
