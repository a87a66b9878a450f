"""The verbs about what ran and what will: next, runs, errors, rerun, why, audit."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import pytest

from beatstore import After, Cron, Once, Store
from beatstore.models import RunModel
from tests.support.command import Command
from tests.support.marks import both_ways, on_sqlite
from tests.support.written import DAY, HOUR, MINUTE, alter, run, write

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]

UTC = timezone.utc
FAR = datetime(2525, 11, 11, 9, 30, tzinfo=UTC)


def history(store: Store) -> datetime:
    """Store an entry `a` with five runs, hourly until an hour ago, and `b` with one; say when."""
    now = store.now().replace(microsecond=0)
    far = "0 0 29 2 *"  # what is printed does not change from one minute to the next
    a, b = store.add("a", "t.a", far, tags=["x"]), store.add("b", "t.b", far)
    states = ["succeeded", "failed", "succeeded", "lost", "succeeded"]
    told: dict[str, dict[str, Any]] = {
        "failed": {"error": "ValueError: no\nreally", "traceback": "line 1\nline 2"},
        "lost": {"reason": "worker w stopped sending heartbeats"},
        "succeeded": {"worker": "celery@w"},
    }
    for back, state in enumerate(states, 1):
        at = now - back * HOUR
        times = {"sent_at": at, "started_at": at, "finished_at": at + MINUTE}
        write(store, RunModel, run(a, at, state=state, **times, **told[state]))
    write(store, RunModel, run(b, now - 90 * MINUTE))
    return now


# -- next ----------------------------------------------------------------------------------


@both_ways
def test_next_merges_all_entries(call: Command, store: Store) -> None:
    """The due times of all entries stand in one list, with what sends them and when."""
    store.add("often", "t.often", 3600)
    store.add("far", "t.far", Once(store.now() + 90 * MINUTE))
    done = call("next", "--count", "3")
    assert done.code == 0
    title, *lines = done.lines
    assert title.split() == ["when", "(UTC)", "name", "task", "note"]
    assert [line.split()[-2] for line in lines] == ["often", "far", "often"]
    assert "in 59 min" in lines[0]
    rows = call("next", "--json", "--count", "2", "--name", "o*").json
    assert [row["name"] for row in rows] == ["often", "often"]
    assert set(rows[0]) == {"name", "task", "due_at", "send_at", "state", "reason"}


def test_next_of_one_entry(call: Command, store: Store) -> None:
    """With a name it is that entry's schedule; of a paused one too, which is said."""
    store.add("daily", "t.a", Cron("0 9 * * *", "Europe/Berlin"), paused=True)
    window = ("--start", "2525-01-01T00:00Z", "--until", "2525-01-03T00:00Z")
    done = call("next", "daily", "--json", *window)
    assert [row["due_at"] for row in done.json] == [
        "2525-01-01T08:00:00+00:00",
        "2525-01-02T08:00:00+00:00",
    ]
    assert "paused" in done.err
    shown = call("next", "daily", "--count", "1", "--timezone", "Asia/Tokyo", *window[:2])
    assert shown.lines[1].startswith("2525-01-01 17:00:00")


def test_next_says_what_is_held_back(call: Command, store: Store) -> None:
    """What is due already comes first, with the reason; where nothing is, that is said."""
    assert call("next").err == "beatstore: no due times\n"
    store.add("late", "t.a", Once(store.now() - HOUR))
    store.add("spread", "t.b", Once(FAR), jitter=1000)
    _, late, spread = call("next").lines
    assert late.endswith("overdue")
    assert "due 2525-11-11 09:30:00, delayed by jitter" in spread


@on_sqlite
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nobody"], 1),
        (["a", "--tag", "x"], 2),
        (["--count", "0"], 2),
        (["--until", "yesterday"], 2),
        (["--start", "2030-01-02T00:00Z", "--until", "2030-01-01T00:00Z"], 1),
    ],
)
def test_what_next_refuses(call: Command, store: Store, arguments: list[str], code: int) -> None:
    """A name that is not there is refused, and a question that makes no sense is wrong usage."""
    store.add("a", "t.a", 60)
    assert call("next", *arguments).code == code


# -- runs ----------------------------------------------------------------------------------


@both_ways
def test_runs_are_listed_newest_first(call: Command, store: Store) -> None:
    """Due time, state, how long it took, worker and reason stand in a line each."""
    history(store)
    done = call("runs", "a")
    assert done.code == 0
    assert len(done.lines) == 6
    assert "1 h ago" in done.lines[1]
    assert done.lines[1].split()[-3:] == ["min", "celery@w", "1"]
    assert done.lines[2].endswith("really")
    assert done.lines[4].endswith("worker w stopped sending heartbeats")


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], [6, 5, 4, 3, 2, 1]),
        (["a", "--state", "failed", "--state", "lost"], [2, 4]),
        (["--since", "100 min"], [6, 1]),
        (["--until", "3h10m ago"], [5, 4]),
        (["--tag", "x", "--worker", "celery@w", "--since", "4h30m"], [3, 1]),
        (["--task", "t.b"], [6]),
        (["--limit", "4"], [6, 5, 4, 3]),
        (["--limit", "2", "--before", "5"], [4, 3]),
        (["--limit", "2", "--before", "3"], [2, 1]),
        (["a", "--limit", "2", "--before", "3"], [4, 5]),
        (["--since", "2525-01-01"], []),
    ],
)
def test_runs_are_filtered_and_paged(
    call: Command, store: Store, arguments: list[str], ids: list[int]
) -> None:
    """Each filter keeps to some; a page ends with how to go on."""
    history(store)
    done = call("runs", "--json", *arguments)
    assert [row["id"] for row in done.json] == ids
    pages_on = "--limit" in arguments and ids[-1] not in (1, 5)
    assert ("more runs follow" in done.err) == pages_on


@on_sqlite
def test_all_runs_are_read_in_pages(
    call: Command, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--all` goes on to the end, and says nothing of further pages."""
    monkeypatch.setattr("beatstore.cli.runs._PAGE", 2)
    history(store)
    done = call("runs", "--all", "--json")
    assert [row["id"] for row in done.json] == [6, 5, 4, 3, 2, 1]
    assert done.err == ""
    assert [row["id"] for row in call("runs", "a", "--all", "--json").json] == [1, 2, 3, 4, 5]


@on_sqlite
@pytest.mark.parametrize("given", ["soon", "2 fortnights", "9" * 12 + "d", "1h 5"])
def test_a_time_that_is_none(call: Command, given: str) -> None:
    """A time that can't be read, or before all time, is wrong usage."""
    assert call("runs", "--since", given).code == 2


# -- errors and rerun ----------------------------------------------------------------------


def test_errors_of_an_entry_and_of_all(call: Command, store: Store) -> None:
    """The last runs that went wrong are shown with the last line of what was raised."""
    history(store)
    done = call("errors", "a")
    assert [line.split()[-1] for line in done.lines[1:]] == ["really", "heartbeats"]
    assert [row["id"] for row in call("errors", "--json").json] == [4, 2]
    assert call("errors", "--since", "3h", "--json").json[0]["traceback"] == "line 1\nline 2"
    assert call("errors", "--tag", "y").err == "beatstore: no errors\n"
    assert call("errors", "nobody").code == 1


@on_sqlite
def test_errors_with_the_traceback(call: Command, store: Store) -> None:
    """`--traceback` shows all of it, line by line, under the run it is of."""
    history(store)
    first, *rest = call("errors", "a", "--traceback").lines
    assert first.startswith("a, due ")
    assert first.endswith("attempt 1 failed (run 2)")
    assert rest[:3] == ["    line 1", "    line 2", ""]
    assert rest[-1] == "    worker w stopped sending heartbeats"


@both_ways
def test_rerun_sends_what_is_over_again(call: Command, store: Store) -> None:
    """Each run gets a next attempt; what can't is told, and makes the exit code 1."""
    history(store)
    done = call("rerun", "2", "4")
    assert done.code == 0
    assert [line.split(": ")[1] for line in done.lines] == ["attempt 2, run 7", "attempt 2, run 8"]
    done = call("rerun", "--json", "2", "1", "99")
    assert done.code == 1
    assert [row["error"] is None for row in done.json] == [False, True, False]
    assert done.json[1]["attempt"] == 2
    assert [run.state for run in store.runs("a", state="claimed")] == ["claimed"] * 3


@both_ways
def test_end_ends_what_nobody_reports(call: Command, store: Store) -> None:
    """A run that is sent ends as it is said; what can't is told, and makes the exit code 1."""
    history(store)
    sent = [run.id for run in store.runs(state=["sent", "started"])]
    done = call("end", str(sent[0]), "--as", "failed", "--reason", "purged")
    assert done.code == 0
    assert done.lines[0].endswith("attempt 1, failed")
    assert [run.reason for run in store.runs() if run.id == sent[0]] == ["ended by hand: purged"]
    done = call("end", "--json", str(sent[0]), "99", "--as", "cancelled")
    assert done.code == 1
    assert ["this one is failed" in row["error"] for row in done.json] == [True, False]
    assert call("end", "1", "--as", "lost").code == 2


# -- one run -------------------------------------------------------------------------------


@both_ways
def test_a_run_with_everything(call: Command, store: Store) -> None:
    """`run` tells the times, attempts, worker, error and arguments, by the id of run or task."""
    now = history(store)
    store.change("a", args=[7], max_retries=1)
    again = store.rerun(2)
    for given in ("2", store.run(2).run.task_id):
        done = call("run", given)
        assert done.code == 0, done.err
        told = dict(line.split(":", 1) for line in done.lines if not line.startswith(" "))
        told = {title: value.strip() for title, value in told.items()}
        assert (told["run"], told["entry"], told["state"]) == ("2", "a", "failed")
        assert told["due (UTC)"].startswith(f"{now - 2 * HOUR:%Y-%m-%d %H:%M:%S}, 2 h ")
        assert (told["took"], told["arguments"]) == ("1 min", "[7]")
        assert told["next (UTC)"] == f"attempt 2, run {again.id}, is claimed"
        assert told["error"] == "ValueError: no"
        assert told["traceback"] == "line 1"
        assert done.lines[-1].strip() == "line 2"
    facts = call("run", "2", "--json").json
    assert [one["id"] for one in facts["attempts"]] == [2, again.id]
    assert facts["entry"] == {"name": "a", "task": "t.a", "args": [7], "kwargs": {}, "options": {}}
    assert facts["traceback"] == "line 1\nline 2"


@on_sqlite
def test_what_comes_after_a_run(call: Command, store: Store) -> None:
    """`run` says what follows: when a beat looks again, or that nothing does, and what to write."""
    history(store)
    assert "none: max_retries is 0; `rerun 2` sends" in call("run", "2").out
    store.change("a", max_retries=2)
    assert "all 2 retries are used" in call("run", "2").out
    made = store.trigger("a")
    assert "at the next tick of a beat" in call("run", str(made.id)).out
    store.remove("b")
    assert "b (removed)" in call("run", "6").out


@on_sqlite
def test_a_name_is_no_run(call: Command, store: Store) -> None:
    """Who writes the name of an entry is told the verbs for that."""
    history(store)
    alter(store, "a", run_count=5)
    assert "`runs a` lists its runs, `trigger a` runs it now" in call("run", "a").err
    assert call("run", "99").code == 1
    done = call("run", "b")
    assert done.code == 1
    assert "`trigger b`" in done.err


@both_ways
def test_runs_are_named_by_the_ids_of_tasks(call: Command, store: Store) -> None:
    """`rerun` and `end` find a run by its task."""
    history(store)
    task_ids = {run.id: run.task_id for run in store.runs()}
    assert call("rerun", task_ids[2]).lines[0].endswith("attempt 2, run 7")
    assert call("end", task_ids[6], "--as", "failed").lines[0].endswith("attempt 1, failed")
    assert call("rerun", "nobody").code == 1


def test_runs_are_sorted_and_paged(call: Command, store: Store) -> None:
    """`--sort` puts the longest or the latest first, through all pages."""
    history(store)
    rows = call("runs", "--sort", "runtime", "--json").json
    assert [row["id"] for row in rows] == [5, 4, 3, 2, 1]
    first = call("runs", "--sort", "runtime", "--json", "--limit", "2")
    assert "more runs follow: --before 4" in first.err
    on = call("runs", "--sort", "runtime", "--json", "--before", "4")
    assert [row["id"] for row in on.json] == [3, 2, 1]
    assert [row["id"] for row in call("runs", "--sort", "due", "--json").json] == [1, 6, 2, 3, 4, 5]
    assert call("runs", "--sort", "name").code == 2


def test_lists_say_that_there_is_more(call: Command, store: Store) -> None:
    """Whatever a limit cut, a remark says so and how to go on; programs' output is untouched."""
    history(store)
    for verb, on in (
        (["runs", "--limit", "1"], "--before 6"),
        (["errors", "--limit", "1"], "--limit 2"),
        (["errors", "a", "--limit", "1"], "--limit 2"),
        (["errors", "a", "--limit", "1", "--traceback"], "--limit 2"),
        (["audit", "--limit", "1"], "--before 2"),
        (["next", "--count", "1"], "--count 2"),
        (["next", "a", "--count", "1"], "--count 2"),
        (["list", "--limit", "1"], "--after a, or --all"),
    ):
        for extra in ([], ["--json"]):
            done = call(*verb, *extra)
            assert re.search(rf"follow.*{re.escape(on)}", done.err), verb
            assert not extra or len(done.json) == 1
    for verb in (["runs"], ["errors"], ["audit"], ["list"], ["next", "--until", "2h"]):
        assert "follow" not in call(*verb).err


# -- why nothing comes ---------------------------------------------------------------------


def test_next_says_why_nothing_comes(call: Command, store: Store) -> None:
    """Of an entry that is not due it says what it waits for, or what ended it; JSON is empty."""
    now = store.now()
    store.add("up", "t", DAY)
    store.add("down", "t", after=[After("up", on="done")])
    store.add("over", "t", DAY, end_at=now + 2 * DAY)
    alter(store, "over", end_at=now - DAY)
    store.add("spent", "t", DAY, max_runs=2)
    alter(store, "spent", run_count=2)
    store.add("gone", "t", Once(FAR))
    store.cancel("gone")
    store.add("odd", "t", DAY)
    alter(store, "odd", state="broken", error="spec: it is nonsense")
    store.add("lone", "t", after="up")
    store.unlink("lone", "up")
    for name, said in (
        ("down", "it runs after up (done, same due time); `why down` says more"),
        ("over", "over has no more due times: its end_at was "),
        ("spent", "spent has no more due times: all its 2 runs (max_runs) were sent"),
        ("gone", "gone is cancelled, so it has no due times"),
        ("odd", "odd is broken, so it has no due times: spec: it is nonsense. Fix it with `change"),
        ("lone", "no schedule and no upstream, so it is never due"),
    ):
        done = call("next", name)
        assert (done.code, done.out) == (0, "")
        assert said in done.err, name
        assert call("next", name, "--json").json == []
    done = call("next", "up", "--until", f"{now + MINUTE:%Y-%m-%d %H:%M:%S}")
    assert "up is not due before that time; next due " in done.err
    store.pause("down")
    assert "same due time), once it is resumed" in call("next", "down").err


# -- why and audit -------------------------------------------------------------------------


def test_spans_are_written_one_way(call: Command, store: Store) -> None:
    """`add`, `show`, `list` and `why` all write the same period of a schedule."""
    assert "every 1 h 30 min" in call("add", "a", "t", "--every", "5400").out
    for given in (("show", "a"), ("list",), ("why", "a")):
        assert "every 1 h 30 min" in call(*given).out, given


@both_ways
def test_why_says_it_in_sentences(call: Command, store: Store) -> None:
    """What explain() says is printed; of one due time with `--at`; of an unknown name not."""
    now = history(store)
    *said, zone = call("why", "a").lines
    assert said == store.explain("a").sentences
    assert zone == "Times are in UTC."
    at = now - 2 * HOUR
    done = call("why", "a", "--at", at.isoformat())
    assert done.lines[:-1] == store.explain("a", at).sentences
    found = call("why", "a", "--at", at.isoformat(), "--json").json
    assert (found["verdict"], found["run"]["id"]) == ("failed", 2)
    assert found["at"] == at.isoformat()
    assert call("why", "nobody").code == 1


@on_sqlite
def test_a_time_without_an_offset_is_read_in_the_zone(call: Command, store: Store) -> None:
    """It is what the clock shows in `--timezone`, and that is said."""
    store.add("a", "t.a", Once(FAR))
    done = call("why", "a", "--at", "2525-11-11 18:30", "--timezone", "Asia/Tokyo", "--json")
    assert done.json["at"] == FAR.isoformat()
    assert "Asia/Tokyo" in done.err


def test_audit_shows_who_changed_what(call: Command, store: Store) -> None:
    """The newest change comes first, in words for people and in columns for programs."""
    ann = store.by("ann")
    ann.add("a", "t.a", 60)
    ann.change("a", schedule=90, description="new")
    store.add("b", "t.b", "@daily")
    _, change, add = call("audit", "a").lines
    assert change.split()[2:5] == ["ann", "change", "a"]
    assert "spec 60 → 90" in change
    assert "description none → new" in change
    assert add.endswith("t.a every 1 min")
    rows = call("audit", "--json", "--limit", "2").json
    assert [(row["action"], row["entry"]) for row in rows] == [("add", "b"), ("change", "a")]
    assert rows[1]["after"]["spec"] == "90"
    done = call("audit", "--limit", "1")
    assert f"--before {rows[0]['id']}" in done.err
    assert [
        row["entry"] for row in call("audit", "--before", str(rows[0]["id"]), "--json").json
    ] == ["a", "a"]
    assert call("audit", "nobody").err == "beatstore: no changes\n"
