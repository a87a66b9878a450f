"""What a person sees on a terminal, whatever it can show, and gives back to the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from beatstore import After, Cron, Every, Once, Run, Store
from beatstore.cli import VERBS
from beatstore.models import RunModel
from tests.support.command import Command
from tests.support.marks import on_sqlite
from tests.support.processes import ROOT
from tests.support.written import HOUR, MINUTE, alter, run, write

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]

UTC = timezone.utc
MAIN = "import sys; from beatstore.cli import main; sys.argv[0] = 'beatstore'; main()"
NAME = "prüfung-der-bestände-日本-[red]-" + "x" * 30


@pytest.fixture
def call(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Hand out the command line as on a terminal of 80 columns."""
    monkeypatch.setattr("beatstore.cli.output.terminal_width", lambda: 80)
    return Command(migrated_url)


def scene(store: Store) -> dict[str, Run]:
    """Store an entry of each kind, and runs; return those by their states."""
    now = store.now()
    up = store.add(NAME, "t.up", Cron("*/5 * * * *", "Europe/Berlin"), overlap="skip", tags=["x"])
    store.add(
        "down", "t.down", after=[NAME, After("far", on="done")] if store.names(name="far") else NAME
    )
    store.add("far", "t.far", Once(datetime(2525, 11, 11, 9, 30, tzinfo=UTC)))
    store.add("often", "project.app.tasks.often", Every(30), paused=True)
    at = now.replace(microsecond=0) - HOUR
    reason = f"overlap: its run due {at.isoformat()} has not ended, policy skip"
    times = {"sent_at": at + MINUTE, "started_at": at + MINUTE, "finished_at": at + 2 * MINUTE}
    rows = [
        run(
            up,
            at,
            state="failed",
            worker="celery@w",
            error="ValueError: né\n" + "no " * 60,
            **times,
        ),
        run(up, at + MINUTE, state="skipped", reason=reason),
        run(up, at + 2 * MINUTE, state="succeeded", worker="celery@w", **times),
    ]
    write(store, RunModel, *rows)
    store.trigger("often")
    return {one.state: one for one in store.runs()}


# -- tables --------------------------------------------------------------------------------


def test_names_states_and_ids_are_whole_at_80_columns(call: Command, store: Store) -> None:
    """In every table a long name is whole, also one with wide characters, and so is the rest."""
    made = scene(store)
    for verb in (["list"], ["runs"], ["next", "--count", "3"], ["errors"], ["audit"], ["graph"]):
        done = call(*verb)
        assert done.code == 0, done.err
        assert NAME in done.out, verb
        for line in done.lines:
            wide = len(line) + sum(char in "日本" for char in line)
            assert wide <= 80 or NAME in line, line
    shown = call("runs").out
    for state, one in made.items():
        assert re.search(rf"\b{state}\b.* {one.id}\b", shown), state
    # A long reason stands below, and none of it is lost.
    assert " ".join(shown.split()).count("no no no") > 0
    assert "policy skip" in shown


def test_short_instants(call: Command, store: Store) -> None:
    """No year where that is near, no seconds where they are 0, and columns without a value go."""
    made = scene(store)
    heading, first, *_ = call("runs", NAME).lines
    due = made["succeeded"].due_at
    assert heading.split()[:3] == ["due", "(UTC)", "state"]
    assert heading.split()[-2:] == ["worker", "id"]
    assert "entry" not in heading
    assert "attempt" not in heading
    said = f"{due:%m-%d %H:%M}" + (f":{due:%S}" if due.second else "")
    assert first.startswith(f"{said}, 58 min ago")
    assert "2525-11-11 09:30, in 49" in call("list").out


def test_what_is_left_out_is_said(
    call: Command, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns for which there is no room are named, beside the table."""
    scene(store)
    monkeypatch.setattr("beatstore.cli.output.terminal_width", lambda: 60)
    done = call("list")
    assert "the terminal is too narrow for: " in done.err
    assert "task" in done.err
    assert "project.app" not in done.out
    monkeypatch.setattr("beatstore.cli.output.terminal_width", lambda: None)
    assert "project.app.tasks.often" in call("list").out


@on_sqlite
def test_a_pipe_has_a_line_for_each_row(
    call: Command, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a pipe go all columns, whole, whatever the rows hold, and always the same text."""
    monkeypatch.setattr("beatstore.cli.output.terminal_width", lambda: None)
    scene(store)
    title, *rows = call("runs").lines
    assert title.split()[:4] == ["entry", "due", "(UTC)", "state"]
    assert title.split()[4:] == ["attempt", "late", "took", "worker", "id", "reason"]
    assert len(rows) == 4
    assert any("no no no" in row for row in rows)
    assert call("audit").lines == call("audit").lines


def test_100_000_rows_take_little_memory(call: Command) -> None:
    """A table is printed as its rows come: no more of them are held than a page."""
    from beatstore.cli.output import View
    from beatstore.cli.table import Column

    held = most = 0

    class Row(dict[str, object]):
        def __init__(self, number: int) -> None:
            nonlocal held, most
            super().__init__(id=number, late="" if number < 1500 else "x")
            held += 1
            most = max(most, held)

        def __del__(self) -> None:
            nonlocal held
            held -= 1

    import click

    with click.Context(click.Command("x")) as context:
        store = Store("sqlite://")
        view = View(context, store=store)
        columns = (Column("id", right=True), Column("late"))
        view.rows(columns, (Row(number) for number in range(100_000)), nothing="")
    assert most <= 2000


# -- encodings -----------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        pytest.param({"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.heavy),
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "C"],
)
def test_no_encoding_makes_a_verb_fail(
    env: dict[str, str], migrated_url: str, store: Store, tmp_path: Path
) -> None:
    """Where stdout has no UTF-8, each verb prints what it can, and JSON says the same."""
    made = scene(store)
    calls = [
        *(["list"], ["runs"], ["errors", "--traceback"], ["audit"], ["next"], ["status"]),
        *(["show", NAME], ["why", NAME], ["next", "down"], ["run", str(made["failed"].id)]),
        *(["graph"], ["graph", "--format", "mermaid"], ["graph", "--format", "dot"]),
        *(["export"], ["show", "né-日"], ["lsit"], [], ["--version"]),
        *([verb, "--help"] for section in VERBS.values() for verb in section),
        *([verb, "--json"] for verb in ("list", "runs", "audit", "graph", "errors")),
        *(["pause", NAME], ["resume", NAME, "--json"]),
    ]
    code = (
        "import sys\n"
        "from beatstore.cli import beatstore\n"
        f"for given in {calls!r}:\n"
        "    try: beatstore(given, prog_name='beatstore')\n"
        "    except SystemExit as ended: print(f'<{ended.code}>', flush=True)\n"
        "    sys.stdout.flush()"
    )
    (tmp_path / "calls.py").write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "calls.py"],
        cwd=tmp_path,
        env={**os.environ, **env, "PYTHONPATH": str(ROOT), "BEATSTORE_URL": migrated_url},
        capture_output=True,
        timeout=110,
        check=False,
    )
    encoding = env.get("PYTHONIOENCODING", "ascii")
    said, told = done.stdout.decode(encoding), done.stderr.decode("ascii", "replace")
    assert "Traceback (" not in told, told
    assert done.returncode == 0, told
    printed = re.split(r"<(\d)>\n", said)
    codes = [int(code) for code in printed[1::2]]
    refused = [calls.index(["show", "né-日"]), calls.index(["lsit"])]
    assert [at for at, code in enumerate(codes) if code and calls[at]] == refused, codes
    parts = dict(zip(map(tuple, calls), printed[::2], strict=False))
    names = [row["name"] for row in json.loads(parts["list", "--json"])]
    assert NAME in names
    assert [row["entry_name"] for row in json.loads(parts["errors", "--json"])] == [NAME]
    assert "&#26085;" in parts["graph", "--format", "dot"]
    assert "#26085;" in parts["graph", "--format", "mermaid"]


@on_sqlite
def test_a_name_is_found_in_the_c_locale(migrated_url: str, store: Store, tmp_path: Path) -> None:
    """What is typed on a terminal whose locale is C is the same name."""
    store.add("prüfung", "t", 60)
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MAIN, "--url", migrated_url, "show", "prüfung", "--json"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "prüfung"


# -- times that are pasted -----------------------------------------------------------------


@pytest.mark.parametrize("zone_name", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("width", [80, None])
def test_what_runs_shows_why_takes(
    call: Command,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    zone_name: str,
    width: int | None,
) -> None:
    """Copied from `runs` into `why --at`, in the same zone, it is the very run.

    Also in the hour that a clock shows twice, and of a run that is due within a second.
    """
    entry = store.add("a", "t.a", "*/30 * * * *", timezone="Europe/Berlin")
    now = store.now()
    begin = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
    hours = [begin + half * timedelta(minutes=30) for half in range(6)] if now > begin else []
    # Not at one of the entry's due times, which would be the answer for their whole second.
    between = now.replace(minute=17, microsecond=123_456)
    dues = [*hours, between - HOUR, between - timedelta(days=300)]
    alter(store, "a", created_at=datetime(2020, 1, 1, tzinfo=UTC))
    write(store, RunModel, *(run(entry, at, state="succeeded", finished_at=at) for at in dues))
    monkeypatch.setattr("beatstore.cli.output.terminal_width", lambda: width)
    lines = call("runs", "a", "--timezone", zone_name).lines[1:]
    cells = [re.split(r"  +", line) for line in lines]
    shown = [row[0] if width else row[1] for row in cells]
    assert len(set(shown)) == len(dues)
    for cell, one in zip(shown, store.runs("a"), strict=True):
        for said in (cell, cell.partition(",")[0]):
            done = call("why", "a", "--at", said, "--timezone", zone_name, "--json")
            assert done.code == 0, done.err
            assert done.json["run"] is not None, said
            assert done.json["run"]["id"] == one.id, said


def test_what_next_shows_why_takes(call: Command, store: Store) -> None:
    """The due times of `next`, waiting and half-second ones included, are found by `why --at`."""
    store.add("a", "t.a", Once(store.now() + timedelta(days=2, microseconds=500)))
    store.add("b", "t.b", "0 2 29 2 *")
    for line in call("next", "--count", "2").lines[1:]:
        said, name = re.split(r"  +", line)[:2]
        done = call("why", name, "--at", said, "--json")
        assert done.json["verdict"] == "future", said


def test_every_option_takes_what_is_shown(call: Command, store: Store) -> None:
    """`add`, `change`, `schedule`, `runs` and `next` read the short form as `why` does."""
    at = (store.now() + timedelta(days=30)).replace(second=0, microsecond=0)
    said = f"{at:%m-%d %H:%M}"
    later = f"{at + timedelta(days=9):%m-%d %H:%M}, in 39 d"
    add = call("add", "a", "t.a", "@daily", "--start-at", said, "--end-at", later, "--json")
    assert add.json["start_at"] == at.isoformat()
    assert add.json["end_at"] == (at + timedelta(days=9)).isoformat()
    assert " means " in add.err
    assert call("schedule", "t.b", "--at", f"{said} UTC", "--json").json["next"] == [at.isoformat()]
    change = call("change", "a", "--no-start-at", "--end-at", f"{at:%Y-%m-%d %H:%M:%S}", "--json")
    assert change.json["end_at"] == at.isoformat()
    begin = f"{at - timedelta(days=1):%m-%d %H:%M}"
    assert call("next", "--start", begin, "--until", f"{at + MINUTE:%m-%d %H:%M}").code == 0
    assert call("runs", "--since", said, "--json").json == []
    assert call("why", "a", "--at", "31-12 25:00").code == 2


# -- reasons -------------------------------------------------------------------------------


def test_reasons_are_told_in_the_zone(call: Command, store: Store) -> None:
    """An instant in a reason stands in the zone that is asked for; JSON has it as it is stored."""
    made = scene(store)["skipped"]
    at = made.due_at - MINUTE
    stored = f"its run due {at.isoformat()} has not ended"
    there = at.astimezone(timezone(timedelta(hours=9)))
    said = f"{there:%m-%d %H:%M}" + (f":{there:%S}" if there.second else "")
    tokyo = ("--timezone", "Asia/Tokyo")
    for verb in (["runs", "--state", "skipped"], ["run", str(made.id)], ["show", NAME]):
        done = call(*verb, *tokyo)
        told = " ".join(done.out.split())
        assert f"its run due {said} has not ended" in told, verb
        assert "(Asia/Tokyo)" in done.out
    assert call("runs", "--json", "--state", "skipped", *tokyo).json[0]["reason"].count(stored) == 1
    told = " ".join(call("why", NAME, "--at", made.due_at.isoformat(), *tokyo).out.split())
    assert f"its run due {there:%Y-%m-%d} " in told
    assert "Asia/Tokyo" in told
    assert "+00:00" not in told


def test_what_waits_is_told_in_the_zone(call: Command, store: Store) -> None:
    """So are the reason of a wait, and the warnings of `status`, which name the zone."""
    store.add("a", "t.a", "@daily", overlap="wait")
    at = store.now().replace(microsecond=0) - HOUR
    reason = f"waits: its run due {at.isoformat()} has not ended"
    alter(store, "a", pending_due_at=at, pending_since=at, pending_reason=reason, wake_at=at)
    store.add("late", "t.b", Once(store.now() - 2 * HOUR))
    alter(store, "late", wake_at=at, updated_at=at)
    there = at.astimezone(timezone(timedelta(hours=9)))
    said = f"{there:%m-%d %H:%M}" + (f":{there:%S}" if there.second else "")
    shown = " ".join(call("show", "a", "--timezone", "Asia/Tokyo").out.split())
    assert f"its run due {said} has not ended" in shown
    status = " ".join(call("status", "--timezone", "Asia/Tokyo").out.split())
    assert f"been overdue since {said} Asia/Tokyo: start one" in status


def test_sentences_name_the_zone(call: Command, store: Store) -> None:
    """An instant that stands under no title has the name of its zone behind it."""
    made = scene(store)["failed"]
    store.add("over", "t", "@daily", end_at=store.now() + 48 * HOUR)
    alter(store, "over", end_at=store.now() - 2 * HOUR)
    tokyo = ("--timezone", "Asia/Tokyo")
    for done in (call("errors", "--traceback", *tokyo), call("next", "over", *tokyo)):
        assert " Asia/Tokyo, " in done.out + done.err
    assert " UTC, " in call("rerun", str(made.id)).out
    assert " UTC, " in call("prune", "--yes").out
