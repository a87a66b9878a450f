"""Lines of JSON that nobody should load: each is refused with a reason, or comes out again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatstore import Store
from tests.support.hostile import CRON, ISO, RRULE, ZONES, examples, jsons, texts, worded

pytestmark = [
    pytest.mark.parametrize("backend", ["sqlite"], indirect=True),
    pytest.mark.by_clock,
]

#: A document in which everything is good, and everything that can be said is said.
GOOD: dict[str, Any] = {
    "name": "job",
    "task": "t",
    "args": [1],
    "kwargs": {"a": 1},
    "options": {"queue": "q"},
    "schedule": {"kind": "cron", "spec": "0 2 * * *", "timezone": "UTC"},
    "start_at": "2026-01-01T00:00:00+00:00",
    "end_at": "2036-01-01T00:00:00+00:00",
    "max_runs": 5,
    "jitter": 1.0,
    "misfire": "all",
    "grace": 5.0,
    "overlap": "wait",
    "run_timeout": 5.0,
    "max_retries": 1,
    "retry_delay": 5.0,
    "retry_backoff": 2.0,
    "retry_jitter": 1.0,
    "tags": ["x"],
    "after": [{"name": "up", "on": "done", "timeout": 5.0}],
    "description": "d",
    "source": "s",
    "state": "active",
    "error": None,
    "declared": {"a": 1},
    "progress": {
        "created_at": "2026-01-01T00:00:00+00:00",
        "cursor_at": "2026-01-02T02:00:00+00:00",
        "run_count": 3,
        "pending_due_at": "2026-01-02T02:00:00+00:00",
        "upstreams": {"up": [0, 0]},
    },
}
UP = {"name": "up", "task": "t", "schedule": "@daily"}

#: Each value in it, by the way there.
PLACES = [
    *((key,) for key in GOOD),
    *(("schedule", key) for key in ("kind", "spec", "timezone")),
    *(("after", 0, key) for key in ("name", "on", "timeout", "first_free", "align")),
    *(("progress", key) for key in (*GOOD["progress"], "last_run_at", "success_seq")),
    *(("progress", "upstreams", "up"), ("tags", 0), ("options", "queue"), ("colour",)),
]

values = st.one_of(
    jsons(), texts(), worded(CRON), worded(ISO), worded(RRULE), st.sampled_from(ZONES)
)


def changed(place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """Return the document with one value changed."""
    made = json.loads(json.dumps(GOOD))
    at = made
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    return made


@examples(150)
@given(place=st.sampled_from(PLACES), value=values)
def test_a_document_is_refused_or_comes_out_again(store: Store, place: Any, value: Any) -> None:
    """Whatever stands in one place of a document, it is refused by its line, or is stored so."""
    document = changed(place, value)
    report = store.load([UP, document], keep_going=True)
    assert set(report.refused) <= {2}
    assert all(reason and "\n" not in reason for reason in report.refused.values())
    stored = [one for one in store.export() if one.get("name") not in (None, "up")]
    assert len(stored) == 1 - len(report.refused)
    if stored:
        # Loaded and exported, it is what it was: nothing was cut, rounded or guessed.
        assert store.load(store.export()).unchanged == 2
        assert store.load([UP, document]).unchanged == 2
    for entry in store.entries():
        if entry.name != "up":
            store.remove(entry.name)


@examples(150)
@given(line=st.one_of(texts(), st.binary(max_size=200), jsons()))
def test_a_line_is_refused_or_empty(store: Store, line: Any) -> None:
    """What is no document at all is refused, and keeps no good one from being loaded."""
    report = store.load([UP, line], keep_going=True)
    assert report.created + report.unchanged == 1
    assert set(report.refused) <= {2}
