"""The verbs that pause, resume, trigger, cancel and remove entries, on every database."""

from __future__ import annotations

import getpass
from datetime import datetime, timezone

import pytest
from sqlalchemy import update

import beatstore.cli.bulk
from beatstore import Once, Store
from beatstore.models import EntryModel
from tests.support.command import Command
from tests.support.marks import both_ways, on_sqlite

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]

UTC = timezone.utc
FAR = datetime(2525, 11, 11, 9, 30, tzinfo=UTC)


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
