"""A user of the database who lacks a right on beatstore's tables."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone

import pytest
from sqlalchemy import create_engine, make_url
from werkzeug.test import Client

from beatstore import DeniedError, Once, Store
from beatstore.database.dialects import dialect_at
from beatstore.database.tables import RUN
from beatstore.errors import StoreError
from beatstore.models import Base
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports
from beatstore.web import Actor, Dashboard
from tests.support.brokers import Broker
from tests.support.command import Command
from tests.support.harness.inprocess import names, note_app, running, tick_until_idle
from tests.support.harness.ticks import tick
from tests.support.marks import on_postgresql, on_servers

ADVICE = "use a user that may, or GRANT SELECT, INSERT, UPDATE, DELETE"
PAST = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)

Run = Callable[[str], None]


@contextmanager
def somebody(url_of_owner: str, grants: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Run]]:
    """Make a user with these rights, each on a table or on `*` for all.

    Return the user's URL, and what executes a statement as the owner: `{user}` and `{here}` in it
    are the user and what stands before the name of a table.
    """
    url = make_url(url_of_owner)
    user = f"somebody_{uuid.uuid4().hex[:12]}"
    is_server_of_roles = dialect_at(url).protocol == "postgresql"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        here, grantee = f"`{url.database}`.", f"{user}@'%%'"
        if is_server_of_roles:
            here, grantee = "", user

        def run(statement: str) -> None:
            connection.exec_driver_sql(statement.format(user=grantee, here=here))

        run("CREATE ROLE {user}" if is_server_of_roles else "CREATE USER {user} IDENTIFIED BY 'x'")
        for rights, table in grants:
            every = table == "*" and is_server_of_roles
            on = "ALL TABLES IN SCHEMA public" if every else f"{here}{table}"
            run(f"GRANT {rights} ON {on} TO {{user}}")
        theirs = url.set(username=user, password="x")
        if is_server_of_roles:
            theirs = url.update_query_dict({"options": f"-c role={user}"})
        try:
            yield theirs.render_as_string(hide_password=False), run
        finally:
            if is_server_of_roles:
                run("DROP OWNED BY {user}")
            run("DROP ROLE {user}" if is_server_of_roles else "DROP USER {user}")
    engine.dispose()


@pytest.fixture
def reader(migrated_url: str) -> Iterator[str]:
    """Return the URL of the database with a user who may read only; it has an entry `a`."""
    with closing(Store(migrated_url)) as store:
        store.add("a", "t.x", 60)
    with somebody(migrated_url, [("SELECT", "*")]) as (theirs, _):
        yield theirs


@on_servers
def test_the_api_names_the_right(reader: str) -> None:
    """Writing raises an error of beatstore's that says what to grant; reading works."""
    with closing(Store(reader)) as store:
        assert [entry.name for entry in store.entries()] == ["a"]
        with pytest.raises(DeniedError) as refused:
            store.pause("a")
    assert str(refused.value).endswith(ADVICE)
    assert "denied" in refused.value.said


@on_servers
@pytest.mark.parametrize("verb", ["pause a", "trigger a", "add b t.x --every 1h", "remove a --yes"])
def test_the_command_says_it_in_a_line(reader: str, verb: str) -> None:
    """The line has what the database said and what to do, and no SQL."""
    done = Command(reader)(*verb.split())
    assert done.code == 1
    [line] = done.err.splitlines()
    assert "this user may not read and write the tables of beatstore" in line
    assert line.endswith(ADVICE)
    assert "SQL" not in line
    assert len(line) < 500


@on_servers
def test_the_dashboard_refuses(reader: str) -> None:
    """A form that the database's user may not carry out gets 403 and the same words."""
    with closing(Store(reader)) as store:
        browser = Client(Dashboard(store, authorize=lambda _: Actor("anna", can_write=True)))
        answer = browser.post("/entry/act", data={"name": "a", "action": "pause"})
    assert answer.status_code == 403
    assert ADVICE in answer.text


def all_but_new_runs() -> list[tuple[str, str]]:
    """Return all rights but that to insert runs, and on PostgreSQL those on sequences."""
    tables = [table.name for table in Base.metadata.sorted_tables] + ["beatstore_version"]
    grants = [("SELECT, INSERT, UPDATE, DELETE", one) for one in tables if one != RUN.name]
    return [*grants, ("SELECT, UPDATE, DELETE", RUN.name)]


def grant_sequences(url: str, run: Run) -> None:
    """Grant what PostgreSQL asks for besides."""
    if url.startswith("postgresql"):
        run("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user}")


@on_servers
def test_a_worker_keeps_what_it_may_not_write(migrated_url: str) -> None:
    """A failure that asks for a next attempt waits for the right to insert it."""
    with closing(Store(migrated_url)) as store:
        store.add("a", "tests.note", Once(PAST), max_retries=1)
        queue = Queue(store.database, store.settings, "beat")
        [claim] = tick(queue)
        queue.close()
        failed = Report(Origin(claim.run_id, claim.task_id), "failed", time.monotonic(), "w@h")
        with somebody(migrated_url, all_but_new_runs()) as (theirs, run):
            grant_sequences(migrated_url, run)
            with closing(Store(theirs)) as denied:
                reports = Reports(denied.database, denied.settings)
                # What a worker waits for, and writes again.
                with pytest.raises(StoreError, match="denied"):
                    reports.write([failed])
                run(f"GRANT INSERT ON {{here}}{RUN.name} TO {{user}}")
                reports.write([failed])
                reports.close()
        assert [one.state for one in store.runs("a")] == ["claimed", "failed"]


@on_servers
def test_a_beat_waits_for_a_right_and_breaks_no_entry(
    migrated_url: str, memory_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """A right that is missing is no fault of the rows: it is said once, and nothing is lost."""
    with closing(Store(migrated_url)) as store:
        store.add("a", "tests.note", Once(PAST))
        store.add("b", "tests.note", Once(PAST))
    with somebody(migrated_url, all_but_new_runs()) as (theirs, run):
        grant_sequences(migrated_url, run)
        app = note_app(memory_broker, theirs, result_expires=None, beatstore_listen=False)
        with running(app) as scheduler:
            assert all(scheduler.tick() > 0 for _ in range(4))
            assert [entry.state for entry in scheduler.store.entries()] == ["active"] * 2
            run(f"GRANT INSERT ON {{here}}{RUN.name} TO {{user}}")
            tick_until_idle(scheduler)
    assert sorted(names(memory_broker.drain())) == ["a", "b"]
    said = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert [one.levelname for one in said] == ["ERROR", "WARNING"]
    assert "denied" in said[0].getMessage()


@on_postgresql
def test_a_sequence_is_granted_in_its_own_way(migrated_url: str) -> None:
    """A right on the sequence of a table is named as such: one on the table does not help."""
    every = [("SELECT, INSERT, UPDATE, DELETE", "*")]
    with somebody(migrated_url, every) as (theirs, run), closing(Store(theirs)) as store:
        with pytest.raises(DeniedError) as refused:
            store.add("a", "t.x", 60)
        assert str(refused.value).endswith("or GRANT USAGE ON ALL SEQUENCES IN SCHEMA …")
        run("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user}")
        store.add("a", "t.x", 60)
