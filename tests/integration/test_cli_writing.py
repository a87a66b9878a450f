"""The verbs `add`, `change` and `schedule`, called with an app and without, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from beatstore import Store
from tests.support.command import Command
from tests.support.marks import both_ways, on_sqlite

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]

UTC = timezone.utc
FAR = datetime(2525, 11, 11, 9, 30, tzinfo=UTC)


@both_ways
def test_add_stores_every_argument(call: Command, store: Store) -> None:
    """Each argument of `Store.add` has an option, and what it says is stored."""
    store.add("up", "t.up", "@daily")
    store.add("pre:fix", "t.up", "@daily")
    done = call(
        *("add", "a", "t.a", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin"),
        *("--args", "[1, null]", "--kwargs", '{"k": "v"}'),
        *("--options", '{"queue": "q", "priority": 1}', "--option", "priority=5"),
        *("--option", "routing_key=plain text", "--tag", "x", "--tag", "y"),
        *("--after", "up:on=done,first_free,timeout=5m", "--after", "pre:fix"),
        *("--start-at", "2026-12-24 18:00", "--end-at", "2030-01-01T00:00:00Z"),
        *("--max-runs", "9", "--jitter", "10", "--misfire", "all", "--grace", "2m"),
        *("--overlap", "skip", "--run-timeout", "1h30m", "--max-retries", "4"),
        *("--retry-delay", "1.5", "--retry-backoff", "2", "--retry-jitter", "1d"),
        *("--description", "for people", "--source", "me", "--paused"),
    )
    assert done.code == 0, done.err
    entry = store.get("a")
    assert (entry.kind, entry.spec, entry.timezone) == ("cron", "0 2 * * *", "Europe/Berlin")
    assert (entry.args, entry.kwargs) == ([1, None], {"k": "v"})
    assert entry.options == {"queue": "q", "priority": 5, "routing_key": "plain text"}
    assert entry.start_at == datetime(2026, 12, 24, 17, tzinfo=UTC)
    assert entry.end_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert (entry.max_runs, entry.jitter_s, entry.misfire, entry.grace_s) == (9, 10, "all", 120)
    assert (entry.overlap, entry.run_timeout_s, entry.max_retries) == ("skip", 5400, 4)
    assert (entry.retry_delay_s, entry.retry_backoff, entry.retry_jitter_s) == (1.5, 2, 86400)
    assert (entry.description, entry.source, entry.state) == ("for people", "me", "paused")
    assert store.get("a").tags == ("x", "y")
    edges = {edge.upstream: edge for edge in store.edges("a")}
    assert (edges["up"].on, edges["up"].first_free, edges["up"].timeout_s) == ("done", True, 300)
    assert edges["pre:fix"].on == "success"
    assert store.audit("a")[0].action == "add"


SCHEDULES: dict[str, tuple[list[str], tuple[str, str]]] = {
    "positional": (["0 2 * * *"], ("cron", "0 2 * * *")),
    "cron": (["--cron", "@yearly"], ("cron", "@yearly")),
    "every": (["--every", "1h30m"], ("every", "5400")),
    "at": (["--at", "2525-11-11T10:30:00+01:00"], ("once", FAR.isoformat())),
    "rrule": (["--rrule", "FREQ=MONTHLY;BYDAY=1MO"], ("rrule", "FREQ=MONTHLY;BYDAY=1MO")),
    "solar": (["--solar", "sunset,52.5,13.4"], ("solar", "sunset 52.5 13.4")),
    "after": (["--after", "up"], ("after", "")),
}


@on_sqlite
@pytest.mark.parametrize("kind", SCHEDULES)
def test_add_knows_every_kind_of_schedule(call: Command, store: Store, kind: str) -> None:
    """Each kind of schedule can be written, and the next due times are shown."""
    if kind == "solar":
        pytest.importorskip("ephem")
    store.add("up", "t.up", "@daily")
    given, stored = SCHEDULES[kind]
    done = call("add", "a", "t.a", *given)
    assert done.code == 0, done.err
    entry = store.get("a")
    assert (entry.kind, entry.spec) == stored
    due = [line for line in done.lines if ", in " in line]
    assert len(due) == {"at": 1, "after": 0}.get(kind, 5)


def test_put_creates_and_updates(call: Command, store: Store) -> None:
    """`add --put` makes the entry so, whether it is there or not, and says what it did."""
    given = ["add", "a", "t.a", "@daily", "--put", "--json"]
    assert call(*given).json["done"] == "added"
    assert call(*given).json["done"] == "unchanged"
    assert call(*given, "--grace", "5").json["done"] == "changed"
    assert store.get("a").grace_s == 5
    refused = call("add", "a", "t.a", "@daily")
    assert refused.code == 1
    assert "'a' already exists" in refused.err


@both_ways
def test_change_changes_what_is_named(call: Command, store: Store) -> None:
    """What is not named stays, and a new name, task or schedule is taken over."""
    store.add("a", "t.a", "@daily", args=[1], grace=5, tags=["x"], description="d")
    done = call("change", "a", "--every", "5m", "--tag", "y", "--tag", "z", "--new-name", "b")
    assert done.code == 0, done.err
    entry = store.get("b")
    assert (entry.kind, entry.spec, entry.task, entry.args) == ("every", "300", "t.a", [1])
    assert (entry.grace_s, entry.description, store.get("b").tags) == (5, "d", ("y", "z"))
    done = call("change", "b", "0 4 * * *", "--task", "t.b", "--json")
    assert (done.json["done"], done.json["task"], done.json["spec"]) == (
        *("changed", "t.b", "0 4 * * *"),
    )
    assert call("change", "b", "--task", "t.b", "--json").json["done"] == "unchanged"


CLEARED: dict[str, tuple[dict[str, Any], str, Any]] = {
    "args": ({"args": [1]}, "args", []),
    "kwargs": ({"kwargs": {"k": 1}}, "kwargs", {}),
    "options": ({"options": {"queue": "q"}}, "options", {}),
    "timezone": ({"timezone": "Asia/Tokyo"}, "timezone", "UTC"),
    "start-at": ({"start_at": FAR}, "start_at", None),
    "end-at": ({"end_at": FAR}, "end_at", None),
    "max-runs": ({"max_runs": 3}, "max_runs", None),
    "jitter": ({"jitter": 3}, "jitter_s", 0),
    "misfire": ({"misfire": "skip"}, "misfire", None),
    "grace": ({"grace": 3}, "grace_s", None),
    "overlap": ({"overlap": "wait"}, "overlap", "allow"),
    "run-timeout": ({"run_timeout": 3}, "run_timeout_s", None),
    "max-retries": ({"max_retries": 3}, "max_retries", 0),
    "retry-delay": ({"retry_delay": 3}, "retry_delay_s", 300),
    "retry-backoff": ({"retry_backoff": 3}, "retry_backoff", 1),
    "retry-jitter": ({"retry_jitter": 3}, "retry_jitter_s", 0),
    "description": ({"description": "d"}, "description", None),
}


@on_sqlite
@pytest.mark.parametrize("option", CLEARED)
def test_change_clears(call: Command, store: Store, option: str) -> None:
    """An empty value, and `--no-OPTION`, take back what was set."""
    given, column, cleared = CLEARED[option]
    for form in ([f"--{option}", ""], [f"--no-{option}"]):
        store.put("a", "t.a", "@daily", **given)
        assert getattr(store.get("a"), column) != cleared
        done = call("change", "a", *form)
        assert done.code == 0, done.err
        assert getattr(store.get("a"), column) == cleared


@on_sqlite
def test_change_clears_tags_upstreams_and_the_clock(call: Command, store: Store) -> None:
    """Tags and upstreams can be taken away, and an entry with upstreams can lose its clock."""
    store.add("up", "t.up", "@daily")
    store.add("a", "t.a", "@daily", tags=["x"], after=["up"])
    assert call("change", "a", "--no-tag", "--no-schedule", "--after", "up").code == 0
    assert (store.get("a").tags, store.get("a").kind) == ((), "after")
    assert call("change", "a", "@daily", "--after", "").code == 0
    assert (store.edges("a"), store.get("a").kind) == ([], "cron")


@on_sqlite
def test_change_clears_options_and_gives_one(call: Command, store: Store) -> None:
    """All options of the message can be taken back and one be given, in one call."""
    store.add("a", "t.a", "@daily", options={"queue": "q", "priority": 3})
    assert call("change", "a", "--no-options", "--option", "queue=etl").code == 0
    assert store.get("a").options == {"queue": "etl"}


@both_ways
def test_schedule_sends_once(call: Command, store: Store) -> None:
    """A one-shot is added for a time, or for some time from now, with its arguments."""
    done = call(
        *("schedule", "mail.send", "--at", "2525-11-11 10:30", "--timezone", "Europe/Berlin"),
        *("--args", "[7]", "--option", "queue=q", "--tag", "x", "--name", "m", "--json"),
    )
    assert done.code == 0, done.err
    entry = store.get("m")
    assert (entry.kind, entry.spec) == ("once", FAR.isoformat())
    assert (entry.task, entry.args, entry.options) == ("mail.send", [7], {"queue": "q"})
    assert "2525-11-11 10:30:00+01:00, in zone Europe/Berlin" in done.err
    assert done.json["done"] == "scheduled"
    named = call("schedule", "mail.send", "--in", "2h", "--json").json
    due = datetime.fromisoformat(named["next_due_at"]) - store.now()
    assert timedelta(minutes=119) < due < timedelta(minutes=121)
    assert store.get(named["name"]).task == "mail.send"


@on_sqlite
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["add", "a", "t"], "--after NAME"),
        (["add", "a", "t", "@daily", "--every", "5"], "one schedule"),
        (["add", "a", "t", "--every", "5 parsecs"], "1h30m"),
        (["add", "a", "t", "--every", "5 6"], "1h30m"),
        (["add", "a", "t", "--at", "tomorrow"], "2030-01-31"),
        (["add", "a", "t", "--at", "2027-03-28 02:30", "--timezone", "Europe/Berlin"], "forward"),
        (["add", "a", "t", "--solar", "sunset"], "sunset,52.5,13.4"),
        (["add", "a", "t", "@daily", "--timezone", "Mars"], "Mars"),
        (["add", "a", "t", "@daily", "--args", "{}"], "not a JSON array"),
        (["add", "a", "t", "@daily", "--kwargs", "{"], "not valid JSON"),
        (["add", "a", "t", "@daily", "--args", "[NaN]"], "no NaN"),
        (["add", "a", "t", "@daily", "--option", "queue"], "queue=etl"),
        (["add", "a", "t", "@daily", "--after", "b:first_free=perhaps"], "first_free"),
        (["change", "a"], "Nothing to change."),
        (["schedule", "t"], "either --at TIME or --in DELAY"),
        (["schedule", "t", "--in", "5", "--at", "2030-01-01"], "either --at TIME or --in DELAY"),
        (["pause"], "No entries chosen."),
        (["pause", "a", "--all"], "No entries chosen."),
        (["lsit"], "Did you mean `list`?"),
    ],
)
def test_wrong_usage_says_what_to_write(
    call: Command, store: Store, given: list[str], expected: str
) -> None:
    """What can't be understood is refused with exit code 2, and nothing is written."""
    done = call(*given)
    assert (done.code, done.out) == (2, "")
    assert expected in done.err
    assert store.names() == []


@on_sqlite
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["add", "a", "t", "61 * * * *"], "0-59"),
        (["add", "a", "t", "@daily", "--option", "queue=5"], "options['queue']"),
        (["add", "a", "t", "@daily", "--option", "quee=x"], "write 'queue'"),
        (["add", "a", "t", "@daily", "--after", "nobody"], "'nobody'"),
        (["add", "a", "t", "@daily", "--after", "nobody:on=don"], "success"),
        (["add", " a", "t", "@daily"], "name"),
        (["add", "a", "t", "--every", "0"], "0.1"),
        (["add", "a", "t", "@daily", "--jitter", "9" * 400], "jitter"),
    ],
)
def test_what_is_refused_says_why(
    call: Command, store: Store, given: list[str], expected: str
) -> None:
    """What the API refuses is one line on stderr and exit code 1, and nothing is written."""
    done = call(*given)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("beatstore: ")
    assert len(done.err.splitlines()) == 1
    assert expected in done.err
    assert store.names() == []
