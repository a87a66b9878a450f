"""What the command line advises where something is missing or wrongly called."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote

import pytest

from beatstore import Store
from beatstore.cli.advice import as_commands
from beatstore.database import drivers
from tests.support.command import Command
from tests.support.marks import both_ways
from tests.support.written import alter


@pytest.mark.parametrize(
    ("module", "driver", "hint"),
    [
        ("psycopg", "postgresql+psycopg", "pip install 'beatstore[postgres]'"),
        ("psycopg2", "postgresql+psycopg2", "pip install psycopg2-binary"),
        ("MySQLdb", "mysql", "pip install mysqlclient"),
        ("mysql", "mysql+mysqlconnector", "pip install mysql-connector-python"),
    ],
)
def test_a_driver_that_is_missing(
    module: str, driver: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install, and the exit code is that of a wrong setting."""
    for name in [one for one in sys.modules if one.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    drivers._watched_psycopg2.cache_clear()  # what an earlier test has imported
    done = Command(f"{driver}://u@127.0.0.1:1/db")("list")
    assert done.code == 2
    assert f"write {hint}" in done.err


@pytest.mark.parametrize(
    ("said", "advised"),
    [
        ("until store.resume('a').", "until `resume a`."),
        ("write store.pause('a b'), then", "write `pause 'a b'`, then"),
        ('store.trigger("it\'s") runs', "`trigger 'it'\"'\"'s'` runs"),
        ("Fix it with store.change('a', …), or", "Fix it with `change a`, or"),
        ("write store.change('a', schedule=…)", "write `change a`"),
        ("store.link('a', …), or store.remove('a')", "`change a --after …`, or `remove a`"),
        ("store.unlink('a', 'b') ends", "`change a --after …` without b ends"),
        ("write After('a', on='done', first_free=True)", "write `--after a:on=done,first_free`"),
        (
            "or give an edge first_free=True.",
            "or write one of its edges as `--after NAME:first_free`.",
        ),
        ("write Every(300)", "write `--every 5m`"),
        ("write Every(86400)", "write `--every 1d`"),
        ("write Every(90)", "write `--every 90s`"),
        ("write Every(0.5)", "write `--every 0.5s`"),
        ("write if_version=3", "write `--if-version 3`"),
        ("see explain().", "see `why`."),
        ("see store.explain('a b'), and", "see `why 'a b'`, and"),
        ("see store.errors('a').", "see `errors a`."),
        ("write store.pause(…) or store.cancel(…)", "write `pause NAME` or `cancel NAME`"),
        ("`celery -A proj beatstore migrate`, or Store.migrate()", "`beatstore --url … migrate`"),
        ("ValueError: store.nothing('a')", "ValueError: store.nothing('a')"),
    ],
)
def test_calls_are_told_as_commands(said: str, advised: str) -> None:
    """Whoever types commands is told commands, with names that a shell can read."""
    assert as_commands(said, of_app=False) == advised
    assert "--url" not in as_commands(said, of_app=True)


def test_errors_and_sentences_advise_commands(migrated_url: str, store: Store) -> None:
    """Errors, warnings and explanations of the command line name no calls."""
    call = Command(migrated_url)
    store.add("a", "t.x", 60)
    store.pause("a")
    assert "use `add --put` to create" in call("add", "a", "t.x", "--every", "5m").err
    assert "until `resume a`." in call("why", "a").out
    assert "until store.resume('a')" in call("why", "a", "--json").json["sentences"][0]
    write = "write store.pause(…) or store.cancel(…)"
    run_id = str(store.trigger("a").id)
    assert "write `pause NAME` or `cancel NAME`" in call("end", run_id, "--as", "failed").err
    assert write in call("end", run_id, "--as", "failed", "--json").json[0]["error"]
    alter(store, "a", state="broken")
    assert "write `resume a`" in call("trigger", "a").err


def test_advised_commands_take_any_name(migrated_url: str, store: Store) -> None:
    """A name with blanks and quotes is one word for the shell, wherever a command is advised."""
    call, name = Command(migrated_url), "it's mine"
    word = quote(name)
    store.add(name, "t.x", 60)
    store.add("it's the last", "t.x", after=[name])
    assert f"`show {word}` shows it, `trigger {word}` runs it now" in call("run", name).err
    assert f"--after {word}, or --all" in call("list", "--limit", "1").err
    assert f"`why {quote('it' + chr(39) + 's the last')}` says" in call("next", "it's the last").err
    store.cancel(name)
    assert f"`why {word}` says more" in call("next", name).err


@both_ways
def test_a_folder_that_is_not_there(way: str, tmp_path: Path) -> None:
    """No migration makes the file of SQLite there, so none is advised."""
    call = Command(f"sqlite:///{tmp_path}/no/such/x.db", way)
    for verb in ("list", "migrate"):
        done = call(verb)
        assert done.code == 3
        assert done.err.endswith(f"the folder {tmp_path}/no/such does not exist\n")


@pytest.mark.parametrize(
    ("way", "command"),
    [("url", "beatstore --url … migrate"), ("app", "celery -A proj beatstore migrate")],
)
def test_the_migration_is_named_as_the_command_was_called(
    way: str, command: str, tmp_path: Path
) -> None:
    """With a URL, the advice is a command with a URL."""
    assert f"`{command}` creates it" in Command(f"sqlite:///{tmp_path}/x.db", way)("list").err
