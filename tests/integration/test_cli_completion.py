"""What a shell completes of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from beatstore import Store
from tests.support.command import Command
from tests.support.marks import on_sqlite

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.any_database]


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
