"""Decisions that entries with equal rules share are those of each entry alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from beatstore.config import Settings
from beatstore.rules import alike
from beatstore.rules.decide import Look, decide
from tests.unit.test_decide import Row, at, sent

SETTINGS = Settings(default_timezone="UTC")

PLAIN = Row(cursor_at=at("09:00"), grace_s=300, misfire="skip")

#: What makes another decision at ten o'clock, by itself.
CHANGES: dict[str, dict[str, Any]] = {
    "another expression": {"spec": "5 * * * *"},
    "another zone": {"timezone": "Asia/Kathmandu"},
    "begins later": {"start_at": at("10:30")},
    "is over": {"end_at": at("09:30")},
    "is further": {"cursor_at": at("10:00")},
    "is far behind": {"cursor_at": at("07:00")},
    "never looked at": {"cursor_at": None, "created_at": at("10:00")},
    "has one run left": {"max_runs": 4, "run_count": 3},
    "jitter": {"jitter_s": 600.0},
    "waits": {"pending_due_at": at("09:00"), "cursor_at": at("08:00")},
    "counts from its start": {"kind": "every", "spec": "2700"},
    "is paused": {"state": "paused"},
    "a misfire that is none": {"misfire": "skp"},
    "an overlap that is none": {"overlap": "skp"},
    "a grace that is none": {"grace_s": -1.0},
    "a timeout that is none": {"run_timeout_s": -1.0},
    "a count that is none": {"run_count": "5"},
    "arguments that are none": {"args": {}},
}


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "_known", {})


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_entry_that_differs_has_its_own_decision(change: dict[str, Any]) -> None:
    """Each column that matters keeps an entry from the decision about another one."""
    now, other = at("10:00"), replace(PLAIN, **change)
    alone = decide(other, now, SETTINGS)
    alike._known.clear()
    shared = decide(PLAIN, now, SETTINGS)
    assert sent(shared) == [now]
    assert alone != shared
    assert decide(other, now, SETTINGS) == alone


def test_a_wait_that_is_over_has_its_own_decision() -> None:
    """Its run says how long it waited."""
    waits = replace(PLAIN, overlap="wait")
    shared = decide(waits, at("10:00"), SETTINGS)
    waited = replace(waits, pending_since=at("09:00"))
    assert decide(waited, at("10:00"), SETTINGS) != shared


@pytest.mark.parametrize("setting", ["default_timezone", "default_misfire", "default_grace"])
def test_other_settings_make_other_decisions(setting: str) -> None:
    """What a NULL in a column stands for is part of the rule."""
    row = replace(PLAIN, misfire=None, grace_s=None)
    others = {"default_timezone": "Asia/Kathmandu", "default_misfire": "all", "default_grace": 1.0}
    changed = replace(SETTINGS, **{setting: others[setting]})
    times = [at("10:00"), at("10:00").replace(second=30)]
    alone = [decide(row, now, changed) for now in times]
    alike._known.clear()
    for now in times:
        decide(row, now, SETTINGS)
    assert [decide(row, now, changed) for now in times] == alone


def test_entries_with_one_rule_share_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made once, and used until the next occurrence, or until it would be a misfire."""
    made: list[datetime] = []
    look = Look.at

    def counted(entry: Row, now: datetime, *rest: Any) -> Look:
        made.append(now)
        return look(entry, now, *rest)

    monkeypatch.setattr(Look, "at", counted)
    first = decide(PLAIN, at("10:00"), SETTINGS)
    assert sent(first) == [at("10:00")]
    for number, time in enumerate(("10:00", "10:02", "10:05")):
        other = replace(PLAIN, id=2 + number, run_count=number, created_at=at("08:00"))
        assert decide(other, at(time), SETTINGS) is first
    assert len(made) == 1
    assert sent(decide(PLAIN, at("2026-03-01 10:05:01"), SETTINGS)) == []
    assert decide(PLAIN, at("2026-03-01 09:59:59"), SETTINGS).runs == ()
    assert len(made) == 3


def test_a_shared_decision_ends_with_the_next_occurrence() -> None:
    """Where two are due, both are decided."""
    patient = replace(PLAIN, grace_s=86_400.0)
    assert len(sent(decide(patient, at("10:59"), SETTINGS))) == 1
    assert len(sent(decide(patient, at("11:00"), SETTINGS))) == 2


def test_the_shared_decisions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of yesterday's rules do not stay for good."""
    monkeypatch.setattr(alike, "_MOST", 10)
    for minute in range(50):
        row = replace(PLAIN, spec=f"{minute} * * * *", cursor_at=at("09:59"))
        assert len(sent(decide(row, at(f"10:{minute:02}"), SETTINGS))) == 1
        assert len(alike._known) <= 10
