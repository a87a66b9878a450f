"""The verb `show`, called with an app and without, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import text, update
from werkzeug.test import Client

from beatstore import After, Cron, Every, Store
from beatstore.models import EntryModel
from beatstore.web import Dashboard
from tests.support.command import Command
from tests.support.marks import both_ways, on_sqlite
from tests.support.written import alter

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]


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


@on_sqlite
@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ("grace_s", "grace never"),
        ("jitter_s", "delayed by up to never"),
        ("run_timeout_s", "never"),
        ("retry_delay_s", "delay never"),
        ("retry_jitter_s", "jitter up to never"),
        ("retry_backoff", "backoff never"),
        ("max_runs", "at most never runs"),
        ("run_count", "never"),
        ("success_seq", "never succeeded"),
        ("version", "version never"),
    ],
)
def test_show_and_next_take_any_cell(call: Command, store: Store, column: str, shown: str) -> None:
    """What plain SQL wrote into a column of numbers is shown as it stands; no verb fails of it."""
    store.add("a", "t.a", Every(60), max_retries=2, retry_backoff=2, max_runs=5)
    alter(store, "a", done_seq=1)
    with store.database.session() as session:
        session.execute(text(f"UPDATE beatstore_entry SET {column} = 'never'"))
        session.commit()
    assert shown in call("show", "a").out
    for verb in (["next", "a"], ["why", "a"], ["list"], ["show", "a", "--json"]):
        assert "shows where" not in call(*verb).err


@on_sqlite
@pytest.mark.parametrize("column", ["attempt", "missed_count"])
def test_a_run_takes_any_cell(call: Command, store: Store, column: str) -> None:
    """One odd row keeps neither itself nor the others from being shown, here and in the browser."""
    store.add("a", "t.a", Every(60))
    run_id = store.trigger("a").id
    browser = Client(Dashboard(store))
    with store.database.session() as session:
        odd = f"UPDATE beatstore_run SET {column} = 'never', first_missed_at = due_at"
        session.execute(text(odd))
        session.commit()
    assert "never" in call("run", str(run_id)).out
    for verb in (["runs"], ["runs", "--sort", "due"], ["errors"], ["show", "a"], ["why", "a"]):
        assert "shows where" not in call(*verb).err
    assert "never" in browser.get(f"/run?id={run_id}").text
    for path in ("/runs", "/entry?name=a", "/", "/upcoming"):
        assert browser.get(path).status_code == 200
