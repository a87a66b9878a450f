"""The verb that moves over from another scheduler."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner, Result

from beatstore import Store
from beatstore.cli import beatstore
from tests.support.harness.base import entry_states
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.theirs import ALCHEMY, DJANGO, LONG_AGO, Theirs, both, clocked, cron, every

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.by_turns("package")]


def imported(store: Store, theirs: Theirs, *arguments: str, code: int = 0) -> Result:
    """Call the verb as `beatstore --url … import …`."""
    url = store.database.url.render_as_string(hide_password=False)
    given = ["--url", url, "import", "--from", theirs.package, *arguments]
    result = CliRunner().invoke(beatstore, given)
    assert result.exit_code == code, result.output
    return result


@both
@on_sqlite
def test_the_verb_tells_what_it_did(theirs: Theirs, at_noon: Store) -> None:
    """People see each outcome with its reason, and nothing is written by a dry run."""
    theirs.write(
        cron("one"),
        cron("bad", args="[1"),
        clocked("gone", LONG_AGO, enabled=False),
        cron("starts", start_time="2099-01-01T00:00:00+00:00"),
    )
    said = imported(at_noon, theirs, "--dry-run", code=1).stdout
    assert entry_states(at_noon) == {}
    for words in ("refused    bad     args: expected JSON", "left out   gone    it is disabled"):
        assert words in said
    assert (
        "not exact  starts  start_time: its scheduler may run it at 2099-01-01 00:00:00 UTC" in said
    )
    summary = "2 created, 1 refused, 1 left out, 1 not exact"
    assert said.splitlines()[-1].startswith(f"Dry run, nothing was written: {summary}, from")
    assert "Done: 2 created" in imported(at_noon, theirs, code=1).stdout
    assert entry_states(at_noon) == {"one": "active", "starts": "active"}
    theirs.sql(f"DELETE FROM {theirs.tasks} WHERE name = 'bad'")
    again = imported(at_noon, theirs)
    assert "2 unchanged, 1 left out, 1 not exact" in again.stdout


@both
@on_sqlite
def test_the_verb_reports_to_programs(theirs: Theirs, at_noon: Store) -> None:
    """With --json all that is reported is one object."""
    theirs.write(cron("one"), cron("bad", args="[1"), clocked("gone", LONG_AGO, enabled=False))
    done = json.loads(imported(at_noon, theirs, "--json", "--paused", code=1).stdout)
    assert (done["source"], done["dry_run"], done["created"]) == (theirs.package, False, ["one"])
    assert list(done["refused"]) == ["bad"]
    assert list(done["left_out"]) == ["gone"]
    assert [done[key] for key in ("updated", "deactivated", "unchanged")] == [[], [], []]
    assert (done["kept"], done["not_exact"]) == ({}, [])
    assert entry_states(at_noon) == {"one": "paused"}


@both
@on_sqlite
def test_the_app_says_what_it_knows(
    theirs: Theirs, at_noon: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an app, what is in beat_schedule is left to it, and its starting deadline counts."""
    theirs.write(cron("one"), cron("in-code"), every("two", 5, "minutes"))
    app: Any = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.beatstore_url = theirs.url
    app.conf.beat_cron_starting_deadline = 120
    app.conf.beat_schedule = {"in-code": {"task": "proj.t", "schedule": 60.0}}
    if theirs.package == ALCHEMY:
        app.conf.beat_dburi = theirs.url
    context = SimpleNamespace(app=app, no_color=True)
    given = ["import", "--from", theirs.package, "--json"]
    result = CliRunner().invoke(beatstore, given, obj=context)
    app.close()
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["left_out"].keys() == {"in-code"}
    assert {entry.name: entry.grace_s for entry in at_noon.entries()} == {"one": 120, "two": None}


@both
@on_postgresql
def test_no_password_is_shown(package: str, at_noon: Store) -> None:
    """Neither the report nor an error has the password of their database."""
    url = "postgresql+psycopg://me:s3cr3t-w0rd@127.0.0.1:1/nowhere"
    store_url = at_noon.database.url.render_as_string(hide_password=False)
    given = ["--url", store_url, "import", "--from", package, "--url", url]
    result = CliRunner().invoke(beatstore, given)
    assert result.exit_code == 3
    assert "s3cr3t" not in result.output
    assert "127.0.0.1" in result.output


@on_sqlite
@pytest.mark.parametrize("package", [DJANGO])
def test_missing_tables_end_the_verb(theirs: Theirs, at_noon: Store) -> None:
    """Tables that are not there end the verb with one line that names them."""
    result = imported(at_noon, theirs, code=3)
    assert "no table 'django_celery_beat_periodictask'" in result.output
    assert len(result.output.splitlines()) == 1
