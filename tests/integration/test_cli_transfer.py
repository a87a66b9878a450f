"""The verbs that carry entries to another database, and the one that draws them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from beatstore import After, Store
from tests.support.command import Command
from tests.support.marks import both_ways, on_sqlite
from tests.support.processes import ROOT

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]


@pytest.fixture
def other(tmp_path: Path) -> Command:
    """Hand out the command line on another database."""
    call = Command(f"sqlite:///{tmp_path / 'other.db'}")
    assert call("migrate").code == 0
    return call


# -- export and load -----------------------------------------------------------------------


@both_ways
def test_what_is_printed_can_be_loaded(call: Command, other: Command, store: Store) -> None:
    """`export | load` carries entries over, and a second time finds them unchanged."""
    store.add("up", "t.up", 60, tags=["x"])
    store.add("down", "t.down", after=["up"])
    written = call("export")
    assert (written.code, written.err) == (0, "")
    assert [json.loads(line).get("name") for line in written.lines] == [None, "up", "down"]
    done = other("load", stdin=written.out)
    assert (done.code, done.out) == (0, "2 created, 0 replaced, 0 unchanged\n")
    assert other("load", stdin=written.out).out == "0 created, 0 replaced, 2 unchanged\n"
    assert other("export").lines[1:] == written.lines[1:]
    assert len(call("export", "--tag", "x").lines) == 2


def test_a_file_is_whole_or_not_there(
    call: Command, other: Command, store: Store, tmp_path: Path
) -> None:
    """`--output` writes a file when all of it is written, and says how many entries it has."""
    store.add("a", "t.a", 60)
    store.trigger("a")
    file = tmp_path / "entries.jsonl"
    done = call("export", "--output", str(file))
    assert (done.code, done.out) == (0, "")
    said = done.err.splitlines()
    assert said[0] == f"beatstore: wrote 1 entry to {file}"
    assert said[1].startswith("beatstore: 1 run is not exported")
    assert other("load", str(file)).code == 0
    nowhere = Command(f"sqlite:///{tmp_path / 'nothing.db'}")
    assert nowhere("export", "-o", str(tmp_path / "none.jsonl")).code == 3
    assert not (tmp_path / "none.jsonl").exists()


def test_a_file_that_cannot_be_written_is_named(call: Command, tmp_path: Path) -> None:
    """As it was given, and not as the file beside it is called."""
    done = call("export", "-o", f"{tmp_path}/no/such.jsonl")
    assert done.code == 1
    assert done.err == f"beatstore: cannot write {tmp_path}/no/such.jsonl: {os.strerror(2)}\n"


@both_ways
def test_a_bad_line_keeps_all_out(call: Command, store: Store, tmp_path: Path) -> None:
    """What is refused is told by its line, and nothing is loaded, or only the others."""
    lines = ['{"name": "a", "task": "t", "schedule": "@daily"}', "nonsense", '{"name": "b"}']
    file = tmp_path / "entries.jsonl"
    file.write_text("\n".join(lines))
    done = call("load", str(file))
    assert (done.code, done.out) == (1, "")
    said = done.err.splitlines()
    assert [line[:17] for line in said] == [
        "beatstore: line 2",
        "beatstore: line 3",
        "beatstore: nothing"[:17],
    ]
    assert store.entries() == []
    dry = call("load", str(file), "--dry-run")
    assert (dry.code, dry.out) == (
        1,
        "1 would be created, 0 would be replaced, 0 unchanged, 2 refused\n",
    )
    assert store.entries() == []
    found = call("load", str(file), "--keep-going", "--json")
    assert found.code == 1
    assert (found.json["created"], list(found.json["refused"])) == (1, ["2", "3"])
    assert [entry.name for entry in store.entries()] == ["a"]


@on_sqlite
def test_many_bad_lines_are_counted(call: Command) -> None:
    """A file of something else is not told line by line."""
    done = call("load", stdin="no\n" * 100)
    assert done.code == 1
    assert len(done.err.splitlines()) == 22
    assert "and 80 more refused lines" in done.err


@on_sqlite
def test_an_entry_that_differs_is_changed_on_request(call: Command, store: Store) -> None:
    """`--replace` makes it as the line says."""
    store.add("a", "t.a", 60)
    changed = call("export").out.replace('"t.a"', '"t.b"')
    done = call("load", stdin=changed)
    assert done.code == 1
    assert "'a' exists already, and differs in task" in done.err
    assert call("load", "--replace", stdin=changed).out == "0 created, 1 replaced, 0 unchanged\n"
    assert store.get("a").task == "t.b"


@on_sqlite
def test_another_format_and_a_missing_file(call: Command) -> None:
    """A later format is refused in one line; a file that is not there is wrong usage."""
    done = call("load", stdin='{"beatstore": 2}')
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert "expected the format 1" in done.err
    assert call("load", "/no/such/file").code == 2


# -- graph ---------------------------------------------------------------------------------


def web(store: Store) -> None:
    """Store a diamond and a pair beside it."""
    store.add("extract", "t", 3600, tags=["etl"])
    store.add("clean", "t", after=["extract"])
    store.add("audit", "t", after=[After("extract", on="done")])
    store.add("report", "t", after=["clean", "audit"])
    store.add("one", "t", 60, paused=True)
    store.add("two", "t", after=["one"])
    store.add("alone", "t", 60)


@both_ways
def test_the_graph_is_drawn(call: Command, store: Store) -> None:
    """Each entry that depends on another has a line, with its state and what is asked."""
    web(store)
    done = call("graph")
    assert done.code == 0
    assert [line.split("  active")[0].split("  paused")[0].rstrip() for line in done.lines[1:]] == [
        "● extract",
        "├─● audit",
        "└─│─● clean",
        "  └─┴─● report",
        "‖ one",
        "└─● two",
    ]
    assert done.lines[2].endswith("extract: done, same due time")
    assert "paused" in done.lines[5]
    assert [line.split()[1] for line in call("graph", "two").lines[1:]] == ["one", "two"]
    assert len(call("graph", "--tag", "etl").lines) == 4


def test_the_graph_in_other_languages(call: Command, store: Store) -> None:
    """Mermaid, DOT and JSON are what the API gives."""
    web(store)
    found = store.graph()
    assert call("graph", "--format", "mermaid").out == found.mermaid()
    assert call("graph", "--format", "dot").out == found.dot()
    for arguments in (["--json"], ["--format", "json"], ["--json", "--format", "dot"]):
        made = call("graph", *arguments).json
        assert [node["name"] for node in made["nodes"]] == [node.name for node in found.nodes]
        assert [edge["on"] for edge in made["edges"]] == [edge.on for edge in found.edges]


@on_sqlite
def test_what_the_graph_refuses(call: Command, store: Store) -> None:
    """Nothing to draw is said; an unknown name is refused; a name and a tag are one too many."""
    assert call("graph").err == "beatstore: no entry depends on another\n"
    assert call("graph", "--tag", "x").err == "beatstore: no entry has the tag 'x'\n"
    assert call("graph", "--json").json == {"nodes": [], "edges": []}
    assert call("graph", "nobody").code == 1
    assert call("graph", "a", "--tag", "b").code == 2


@on_sqlite
def test_too_many_to_draw(call: Command, store: Store) -> None:
    """A graph that nobody could read says how to take a part of it."""
    store.add("up", "t", 60)
    for number in range(100):
        store.add(f"n{number}", "t", after=["up"])
    done = call("graph")
    assert (done.code, done.out) == (1, "")
    assert "101 entries are too many to draw" in done.err
    assert len(call("graph", "n7").lines) == 3
    assert call("graph", "--format", "dot").code == 0


@on_sqlite
def test_a_terminal_is_not_overrun(migrated_url: str, store: Store) -> None:
    """On a narrow terminal a long name is whole, and the lines of the drawing are not broken."""
    store.add("up", "t", 60)
    store.add("x" * 200, "t", after=["up"])
    main, end = pty.openpty()
    code = "import sys; from beatstore.cli import main; sys.argv[0] = 'beatstore'; main()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-c", code, "--url", migrated_url, "graph"]
    done = subprocess.run(command, stdout=end, env=env, timeout=60, check=False)
    os.close(end)
    said = os.read(main, 10_000).decode()
    os.close(main)
    assert done.returncode == 0
    _, up, down, rest = said.splitlines()
    assert up.startswith("● up")
    assert down == "└─● " + "x" * 200
    assert rest.split() == ["active", "up:", "same", "due", "time"]


@on_sqlite
def test_an_old_terminal_gets_ascii(migrated_url: str, store: Store) -> None:
    """Where the encoding has no lines, there are plain characters."""
    store.add("up", "t", 60)
    store.add("down", "t", after=["up"])
    code = "import sys; from beatstore.cli import main; sys.argv[0] = 'beatstore'; main()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, "--url", migrated_url, "graph"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [line[:8].rstrip() for line in done.stdout.splitlines()[1:]] == ["* up", "+-* down"]


@pytest.mark.parametrize("text", ["", "\n"])
def test_nothing_to_load_is_refused(call: Command, text: str) -> None:
    """A file without an entry is not the one that was meant."""
    done = call("load", stdin=text)
    assert (done.code, done.out) == (1, "")
    assert "there is no entry in what was read" in done.err
