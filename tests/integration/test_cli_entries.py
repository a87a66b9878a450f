"""The verbs about entries, called with an app and without, on every database."""

from __future__ import annotations

import getpass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

import beatstore.cli.bulk
from beatstore import After, Cron, Declared, Every, Once, Store
from beatstore.models import EntryModel
from tests.support.command import Command, Done
from tests.support.marks import both_ways, on_sqlite

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]

UTC = timezone.utc
FAR = datetime(2525, 11, 11, 9, 30, tzinfo=UTC)


def names(done: Done) -> list[str]:
    """Return the names that `--json` printed."""
    return [row["name"] for row in done.json]


def cells(line: str) -> list[str]:
    """Return the cells of a line of a table."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


# -- list ----------------------------------------------------------------------------------


@both_ways
def test_list_shows_what_matters(call: Command, store: Store) -> None:
    """Name, task, schedule, next due time, state and tags stand in a line each."""
    store.add("nightly", "etl.run", "0 2 * * *", timezone="Europe/Berlin", tags=["etl", "b"])
    store.add("later", "mail.send", Once(FAR))
    done = call("list")
    assert done.code == 0
    title, later, nightly = map(cells, done.lines)
    assert title[:4] == ["name", "task", "schedule", "next due (UTC)"]
    assert later[:3] == ["later", "mail.send", "once 2525-11-11 09:30:00"]
    assert later[3].startswith("2525-11-11 09:30:00, in 49")
    assert nightly[:3] == ["nightly", "etl.run", "cron 0 2 * * * Europe/Berlin"]
    assert nightly[-2:] == ["active", "b, etl"]


def test_list_for_programs(call: Command, store: Store) -> None:
    """`--json` is an array with the columns of each entry, instants in UTC."""
    store.add("a", "t.a", Once(FAR), tags=["x"], description="hello")
    (row,) = call("list", "--json", "--timezone", "Asia/Tokyo").json
    assert row == {
        **{"name": "a", "task": "t.a", "kind": "once", "spec": "2525-11-11T09:30:00+00:00"},
        **{"timezone": "UTC", "next_due_at": "2525-11-11T09:30:00+00:00", "state": "active"},
        **{"last_run_at": None, "run_count": 0, "tags": ["x"], "edited": [], "source": "api"},
        "description": "hello",
    }


@on_sqlite
def test_list_in_another_zone(call: Command, store: Store) -> None:
    """Times are shown in the zone that is asked for, and the title names it."""
    store.add("a", "t.a", Once(FAR))
    done = call("list", "--timezone", "Asia/Tokyo")
    assert "next due (Asia/Tokyo)" in done.lines[0]
    assert "2525-11-11 18:30:00" in done.lines[1]


@on_sqlite
def test_the_zone_of_the_settings_is_shown(migrated_url: str, store: Store) -> None:
    """With an app, times are shown in its zone."""
    store.add("a", "t.a", Once(FAR))
    done = Command(migrated_url, "app", timezone="Asia/Tokyo")("list")
    assert "next due (Asia/Tokyo)" in done.lines[0]


@both_ways
def test_list_filters(call: Command, store: Store) -> None:
    """`--tag`, `--state`, `--name` with globs and `--source` narrow the list, together too."""
    store.add("etl_a", "t.a", "@daily", tags=["x"])
    store.add("etl_b", "t.b", "@daily", tags=["x", "y"], paused=True)
    store.add("Etl_c", "t.c", "@daily", source="mine")
    assert names(call("list", "--json", "--tag", "x")) == ["etl_a", "etl_b"]
    assert names(call("list", "--json", "--state", "paused")) == ["etl_b"]
    assert names(call("list", "--json", "--name", "etl_*")) == ["etl_a", "etl_b"]
    assert names(call("list", "--json", "--name", "?tl_?", "--tag", "y")) == ["etl_b"]
    assert names(call("list", "--json", "--source", "mine")) == ["Etl_c"]
    assert call("list", "--state", "asleep").code == 2


def test_list_goes_on_page_by_page(call: Command, store: Store) -> None:
    """A page ends with how to go on, which leads through all entries, once each."""
    for number in range(5):
        store.add(f"e{number}", "t.e", "@daily")
    found, after = [], ""
    for _ in range(3):
        done = call("list", "--json", "--limit", "2", "--after", after)
        found += names(done)
        after = found[-1]
        assert ("--after" in done.err) == (len(found) < 5)
    assert found == [f"e{number}" for number in range(5)]
    assert f"--after '{found[1]}'" in call("list", "--limit", "2").err


@on_sqlite
def test_list_all_reads_page_by_page(
    call: Command, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--all` shows every entry, though no more than a page is read at a time."""
    monkeypatch.setattr("beatstore.cli.entries._PAGE", 2)
    for number in range(5):
        store.add(f"e{number}", "t.e", "@daily", tags=[f"t{number}"])
    done = call("list", "--all", "--json", "--limit", "1")
    assert [(row["name"], row["tags"]) for row in done.json] == [
        (f"e{number}", [f"t{number}"]) for number in range(5)
    ]
    assert done.err == ""
    assert len(call("list", "--all").lines) == 6


def test_what_differs_from_its_code_is_marked(call: Command, store: Store) -> None:
    """An entry that somebody edited or paused is listed with the fields that differ."""
    code = [Declared(name, "t.a", "@daily", tags=["x"]) for name in "abc"]
    store.sync(code, source="mine")
    store.change("a", grace=5, tags=["y"])
    store.pause("c")
    store.add("own", "t.a", "@daily")
    rows = {row["name"]: row["edited"] for row in call("list", "--json").json}
    assert {name: sorted(edited) for name, edited in rows.items()} == {
        **{"a": ["grace", "tags"], "b": [], "c": ["state"], "own": []},
    }
    assert call("list").lines[3].endswith(" x     state")
    (line,) = [line for line in call("show", "a").lines if line.startswith("differs")]
    assert line.partition(":")[2].strip() in ("grace, tags", "tags, grace")


@both_ways
def test_an_empty_list_says_so(call: Command) -> None:
    """Where there is nothing, people are told so beside the output, and programs get []."""
    done = call("list")
    assert (done.code, done.out) == (0, "")
    assert done.err == "beatstore: no entries\n"
    assert call("list", "--tag", "x").err == "beatstore: no entry matches\n"
    assert call("list", "--json").json == []


@on_sqlite
def test_no_cell_steers_the_terminal(call: Command, store: Store) -> None:
    """What a row holds that could move the cursor or break a line is shown harmlessly."""
    store.add("a", "t.a", "@daily", description="two\nlines")
    with store.database.session() as session:
        session.execute(update(EntryModel).values(task="\x1b[2Jt\nx"))
    done = call("list")
    assert len(done.lines) == 2
    assert "\\x1b[2Jt x" in done.lines[1]
    assert "\x1b" not in call("show", "a").out


# -- show ----------------------------------------------------------------------------------


@both_ways
def test_show_tells_everything(call: Command, store: Store) -> None:
    """The call, the schedule, policies, edges, runs and next due times of an entry are shown."""
    store.add("up", "t.up", "@daily")
    store.add(
        *("mid", "t.mid", Cron("0 2 * * *", "Europe/Berlin")),
        **{"args": [1], "kwargs": {"k": 2}, "options": {"queue": "q"}, "tags": ["x"]},
        **{"after": [After("up", on="done")], "max_retries": 3, "retry_delay": 60},
        **{"max_runs": 7, "jitter": 5, "misfire": "skip", "grace": 90, "overlap": "wait"},
        **{"run_timeout": 3600, "description": "what it is for"},
    )
    store.add("down", "t.down", after=["mid"])
    store.trigger("mid")
    store.change("mid", description="for this")
    done = call("show", "mid")
    assert done.code == 0
    told = dict(line.split(":", 1) for line in done.lines if not line.startswith(" "))
    told = {title: value.strip() for title, value in told.items()}
    assert told["task"] == "t.mid"
    assert told["arguments"] == '[1] {"k": 2}'
    assert told["options"] == '{"queue": "q"}'
    assert told["schedule"] == "cron 0 2 * * * Europe/Berlin"
    assert told["in words"] == "every day at 02:00"
    assert told["within"] == "at most 7 runs, delayed by up to 5 s (jitter)"
    assert told["misfire"] == "skip, grace 1 min 30 s"
    assert told["overlap"] == "wait"
    assert told["run timeout"] == "1 h"
    assert told["retries"] == "3, delay 1 min"
    assert told["after"] == "up (done)"
    assert told["before"] == "down"
    assert told["state"] == "active"
    assert told["runs"] == "1"
    assert told["last run (UTC)"].endswith((" ago", "now"))
    assert told["last runs (UTC)"].endswith("claimed: triggered")
    assert told["tags"] == "x"
    assert told["description"] == "for this"
    assert told["edited (UTC)"].endswith("1 edit")
    assert sum(" in " in line and ":00:00," in line for line in done.lines) == 5


@pytest.mark.parametrize(("overlap", "shown"), [("allow", False), ("skip", True)])
def test_show_tells_the_timeout_in_force(
    call: Command, store: Store, overlap: str, shown: bool
) -> None:
    """Also where it is that of the settings, which entries with overlap have."""
    store.add("a", "t.a", Every(60), overlap=overlap)
    assert ("1 d (from beatstore_overlap_timeout)" in call("show", "a").out) is shown


def test_show_for_programs(call: Command, store: Store) -> None:
    """`--json` has all columns, the edges, the next five due times and the last five runs."""
    store.add("up", "t.up", "@daily")
    store.add("a", "t.a", Every(60), after=["up"])
    made = [store.trigger("a") for _ in range(6)]
    shown = call("show", "a", "--json").json
    assert (shown["name"], shown["kind"], shown["spec"]) == ("a", "every", "60")
    assert [edge["name"] for edge in shown["after"]] == ["up"]
    assert shown["words"].startswith("every minute since 20")
    assert len(shown["next"]) == 5
    first = datetime.fromisoformat(shown["next"][0])
    assert first.utcoffset() == timedelta(0)
    assert datetime.fromisoformat(shown["next"][1]) - first == timedelta(minutes=1)
    assert [run["id"] for run in shown["runs"]] == [run.id for run in reversed(made[1:])]


def test_show_copes_with_a_row_that_can_not_be_read(call: Command, store: Store) -> None:
    """An entry whose row was spoilt by hand is shown, with what is wrong with it."""
    store.add("a", "t.a", "@daily")
    with store.database.session() as session:
        broken = {"spec": "nonsense", "state": "broken", "error": "spec: it is nonsense"}
        session.execute(update(EntryModel).values(**broken))
    done = call("show", "a")
    assert done.code == 0
    assert "cron nonsense" in done.out
    assert "in words" not in done.out
    assert "broken: spec: it is nonsense" in done.out
    assert call("list").code == 0


@both_ways
def test_what_is_not_there_is_named(call: Command, store: Store) -> None:
    """A name that is not there is an error of one line, with the nearest one."""
    store.add("nightly", "t.a", "@daily")
    for verb in (["show", "nightyl"], ["change", "nightyl", "--task", "t"], ["pause", "nightyl"]):
        done = call(*verb)
        assert (done.code, done.out) == (1, "")
        assert "no entry is named 'nightyl'; did you mean 'nightly'?" in done.err
        assert len(done.err.splitlines()) == 1


# -- add, change, schedule -----------------------------------------------------------------


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


# -- pause, resume, remove, trigger, cancel ------------------------------------------------


@both_ways
def test_pause_and_resume(call: Command, store: Store) -> None:
    """Entries are paused and resumed by name, and what was done is told for each."""
    for name in "abc":
        store.add(name, "t.a", "@daily")
    done = call("pause", "a", "b", "a")
    assert (done.code, done.lines) == (0, ["a: paused", "b: paused"])
    assert [entry.name for entry in store.entries(state="paused")] == ["a", "b"]
    assert call("resume", "a", "--json").json == [{"name": "a", "state": "active", "error": None}]
    assert store.get("a").state == "active"


def test_pausing_what_is_over_says_so(call: Command, store: Store) -> None:
    """An entry that is over is not paused, and the verb says that it is unchanged."""
    store.add("over", "t.a", Once(FAR))
    store.cancel("over")
    done = call("pause", "over")
    assert (done.code, done.lines) == (0, ["over: cancelled, unchanged"])
    assert call("pause", "over", "--json").json == [
        {"name": "over", "state": "cancelled", "error": None}
    ]


def test_one_that_is_refused_stops_no_other(call: Command, store: Store) -> None:
    """The others are done, the refused one is told on stderr, and the exit code is 1."""
    store.add("a", "t.a", "@daily", paused=True)
    store.add("over", "t.a", Once(FAR))
    store.cancel("over")
    done = call("resume", "nobody", "over", "a")
    assert (done.code, done.lines) == (1, ["a: active"])
    assert [line.split(": ")[1] for line in done.err.splitlines()] == ["nobody", "over"]
    rows = call("resume", "nobody", "a", "--json")
    assert rows.code == 1
    assert "no entry is named" in rows.json[0]["error"]
    assert rows.json[1] == {"name": "a", "state": "active", "error": None}


@both_ways
def test_by_filter(call: Command, store: Store) -> None:
    """A filter names the entries that the verb is for: pausing leaves alone what is over."""
    store.add("etl_a", "t.a", "@daily", tags=["etl"])
    store.add("etl_b", "t.a", "@daily", tags=["etl"])
    store.add("etl_over", "t.a", "@daily", tags=["etl"])
    store.add("other", "t.a", "@daily")
    store.cancel("etl_over")
    assert call("pause", "--tag", "etl", "--yes").lines == ["etl_a: paused", "etl_b: paused"]
    assert call("resume", "--name", "*_b", "-y").lines == ["etl_b: active"]
    assert call("resume", "--all", "--yes").lines == ["etl_a: active"]
    assert call("remove", "--state", "cancelled", "--yes").lines == ["etl_over: removed"]
    assert store.names() == ["etl_a", "etl_b", "other"]
    nothing = call("pause", "--tag", "nothing", "--yes")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "beatstore: no entry matches\n")
    assert call("pause", "--tag", "nothing", "--json").json == []


def test_trigger(call: Command, store: Store) -> None:
    """An entry is run now, and the run is told."""
    store.add("a", "t.a", "@daily")
    done = call("trigger", "a")
    (run,) = store.runs("a")
    assert (done.code, done.lines) == (0, [f"a: triggered (run {run.id})"])
    (row,) = call("trigger", "a", "--json").json
    assert store.runs("a")[0].task_id == row["task_id"]


@both_ways
def test_cancel_says_whether_it_was_in_time(call: Command, store: Store) -> None:
    """What was not sent yet is cancelled; what was is too late, with exit code 1."""
    store.schedule("t.a", at=FAR, name="far")
    store.schedule("t.a", at=FAR, name="gone")
    with store.database.session() as session:
        session.execute(
            update(EntryModel).where(EntryModel.name == "gone").values(state="finished")
        )
    done = call("cancel", "far", "--yes")
    assert (done.code, done.lines) == (0, ["far: cancelled"])
    done = call("cancel", "gone", "--yes")
    assert (done.code, done.out) == (1, "")
    assert done.err == "beatstore: gone: too late to cancel: it is already finished\n"


def test_a_far_task_is_cancelled_by_its_id(call: Command, store: Store) -> None:
    """The entry of a call that was stored for later has the name of its task id."""
    task_id = "0f7c3a52-4c6c-4b4e-9a57-1d5c6a1c2b3d"
    store.schedule({"task": "t.a", "options": {"task_id": task_id}}, at=FAR)
    done = call("cancel", task_id, "--yes")
    assert (done.code, done.lines) == (0, [f"{task_id}: cancelled"])


@on_sqlite
@pytest.mark.parametrize(
    ("given", "question"),
    [
        (["remove", "a"], "Remove 'a'?"),
        (["cancel", "a", "b"], "Cancel 2 entries?"),
        (["pause", "--name", "*"], "Pause 2 entries?"),
        (["trigger", "--all"], "Trigger 2 entries?"),
    ],
)
def test_dangerous_verbs_ask(
    call: Command,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    question: str,
) -> None:
    """Who answers no has done nothing, and with nobody to answer nothing is done either."""
    store.add("a", "t.a", "@daily")
    store.add("b", "t.b", "@daily")
    before = [(entry.name, entry.state, entry.version) for entry in store.entries()]
    alone = call(*given)
    assert (alone.code, alone.out) == (1, "")
    assert "--yes" in alone.err
    monkeypatch.setattr(beatstore.cli.bulk, "can_ask", lambda: True)
    no = call(*given, stdin="n\n")
    # Older versions of click show on stdout what was typed.
    assert (no.code, no.out.strip()) in ((1, ""), (1, "n"))
    assert question in no.err
    assert "nothing was changed" in no.err
    assert [(entry.name, entry.state, entry.version) for entry in store.entries()] == before
    assert store.runs() == []
    yes = call(*given, stdin="y\n")
    assert yes.code == 0
    assert len([line for line in yes.lines if ": " in line]) == (
        1 if given == ["remove", "a"] else 2
    )


@on_sqlite
def test_the_audit_names_who_called(call: Command, store: Store) -> None:
    """What the command line changes is put down to the user of the operating system."""
    store.by("somebody else").add("a", "t.a", "@daily")
    call("pause", "a")
    newest, oldest = store.audit("a")
    assert oldest.actor == "somebody else"
    assert newest.actor == getpass.getuser()


# -- in the shell --------------------------------------------------------------------------


def shell(call: Command, words: str) -> list[str]:
    """Return what the shell offers after these words."""
    from click.shell_completion import ShellComplete

    from beatstore.cli import beatstore

    *before, last = [*call.arguments, *words.split(" ")]
    complete = ShellComplete(beatstore, {}, "beatstore", "_BEATSTORE_COMPLETE")
    return [item.value for item in complete.get_completions(before, last)]


@on_sqlite
def test_names_are_completed(call: Command, store: Store) -> None:
    """Verbs, options, choices and the names of entries are completed, 50 at most."""
    for number in range(60):
        store.add(f"etl_{number}", "t.a", "@daily")
    store.add("other", "t.a", "@daily")
    assert {"pause", "list"} <= set(shell(call, ""))
    assert shell(call, "pau") == ["pause"]
    assert shell(call, "list --stat") == ["--state"]
    assert shell(call, "list --state fin") == ["finished"]
    assert shell(call, "show oth") == ["other"]
    assert shell(call, "pause etl_1 oth") == ["other"]
    assert shell(call, "change x --after oth") == ["other"]
    assert len(shell(call, "show ")) == 50


def test_completion_is_silent_without_a_database(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A database that is away, or not there, completes to nothing and prints nothing."""
    away = Command("postgresql+psycopg://user:secret@127.0.0.1:1/db")
    assert shell(away, "show x") == []
    absent = tmp_path / "absent.db"
    assert shell(Command(f"sqlite:///{absent}"), "show x") == []
    assert not absent.exists()
    assert capfd.readouterr() == ("", "")
