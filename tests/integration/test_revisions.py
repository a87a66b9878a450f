"""The revision of the tables: asked for at every start, reached once, by any way of asking."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from beatstore.database import migrate
from beatstore.database.dialects import mysql
from beatstore.database.engine import Database, unavailable
from beatstore.database.models import REVISION, VERSION_TABLE, Base
from beatstore.errors import SchemaError
from tests.support.marks import on_mariadb

ROOT = Path(__file__).resolve().parents[2]


def execute(database: Database, *statements: str) -> None:
    """Run plain SQL and commit it."""
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def tables(database: Database) -> set[str]:
    """Name the tables there are."""
    with database.engine.connect() as connection:
        return set(sa.inspect(connection).get_table_names())


def plain_url(database: Database) -> str:
    """Write the URL out, password and all."""
    return database.url.render_as_string(hide_password=False)


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without beatstore's settings, and with the checkout."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BEATSTORE_")}
    return {**clean, "PYTHONPATH": str(ROOT), **more}


def alembic(*arguments: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the alembic command in a checkout."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# Asking


def test_the_newest_migration_is_the_revision_the_models_name() -> None:
    """A migration added without raising models.REVISION, or the reverse, is caught."""
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    assert scripts.get_heads() == [REVISION]


def test_revisions_are_numbered_in_order() -> None:
    """`check` can tell an older revision from a newer one by its number."""
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    found = [script.revision for script in scripts.walk_revisions()]
    assert found == [f"{number:04d}" for number in range(len(found), 0, -1)]


def test_missing_tables_are_named_with_the_command_to_run(database: Database) -> None:
    """An empty database is refused in one line, which ends with what to run."""
    assert migrate.revision_of(database) is None
    with pytest.raises(SchemaError) as caught:
        migrate.check(database)
    assert str(caught.value) == (
        f"{database.safe_url}: no beatstore tables here, and this version needs revision "
        f"{REVISION}: run `celery -A proj beatstore migrate`, or Store.migrate()"
    )
    assert tables(database) == set()


def test_older_tables_are_named_with_the_command_to_run(database: Database) -> None:
    """Tables of an older revision are refused in one line, which ends with what to run."""
    migrate.upgrade(database)
    execute(database, f"UPDATE {VERSION_TABLE} SET version_num = '0000'")
    with pytest.raises(SchemaError) as caught:
        migrate.check(database)
    assert str(caught.value) == (
        f"{database.safe_url}: beatstore's tables are of revision 0000, and this version needs "
        f"revision {REVISION}: run `celery -A proj beatstore migrate`, or Store.migrate()"
    )


@pytest.mark.parametrize("newer", ["0999", "a1b2c3"])
def test_newer_tables_are_left_alone(database: Database, newer: str) -> None:
    """Tables of a revision not known here are refused by `check` and by `upgrade` alike."""
    migrate.upgrade(database)
    execute(database, f"UPDATE {VERSION_TABLE} SET version_num = '{newer}'")
    for ask in (migrate.check, migrate.upgrade):
        with pytest.raises(SchemaError) as caught:
            ask(database)
        assert str(caught.value) == (
            f"{database.safe_url}: these tables are of revision {newer}, newer than this "
            f"beatstore knows ({REVISION}): upgrade beatstore"
        )
    assert migrate.revision_of(database) == newer


def test_a_password_is_not_in_the_message() -> None:
    """The line that a beat prints can be shown to anybody."""
    database = Database("postgresql+psycopg://user:s3cret@db.example/beat", schema="sched")
    assert "s3cret" not in migrate._mismatch(database, None)
    assert "db.example/beat, schema sched: " in migrate._mismatch(database, None)


def test_a_database_that_does_not_answer_is_not_a_missing_table() -> None:
    """A connection error is let through as it is, for the caller to wait and retry."""
    database = Database("postgresql+psycopg://user@127.0.0.1:1/none")
    with pytest.raises(sa.exc.OperationalError) as caught:
        migrate.check(database)
    assert unavailable(caught.value)


def test_asking_does_not_import_alembic(tmp_path: Path) -> None:
    """What a beat asks at start costs no import of Alembic; nor does an idle upgrade."""
    url = f"sqlite:///{tmp_path}/beat.db"
    database = Database(url)
    migrate.upgrade(database)
    database.dispose()
    code = (
        "import sys; from beatstore.database import migrate; "
        "from beatstore.database.engine import Database; "
        f"database = Database({url!r}); migrate.check(database); migrate.upgrade(database); "
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)


# Reaching it together


_UPGRADE = """
import sys
from beatstore.database import migrate
from beatstore.database.dialects import MySQL, PostgreSQL
from beatstore.database.engine import Database
import alembic.command
if sys.argv[2:]:
    # What a server does whose locks are functions without effect.
    MySQL.wait_for_migrations = PostgreSQL.wait_for_migrations = lambda *args: None
print("ready", flush=True)
sys.stdin.readline()
migrate.upgrade(Database(sys.argv[1]))
"""


@pytest.mark.heavy
@pytest.mark.parametrize("without", [[], ["lock"]], ids=["locked", "unlocked"])
def test_four_processes_migrate_at_once(database: Database, without: list[str]) -> None:
    """Of several processes that migrate at once, one does it, and none fails; nor without a lock.

    Some servers, and a pooler, have the function of the lock and no lock behind it.
    """
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _UPGRADE, plain_url(database), *without],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    errors = [racer.communicate(timeout=120)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, "\n".join(errors)
    migrate.check(database)
    assert tables(database) == {*Base.metadata.tables, VERSION_TABLE}


def test_four_threads_migrate_at_once(database: Database) -> None:
    """Threads of one process may migrate at once too, though Alembic itself can't."""
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate.upgrade, [database] * 4)) == [None] * 4
    migrate.check(database)


@on_mariadb
def test_waiting_for_another_process_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On MySQL, a process that never finishes its upgrade is reported, not waited for for ever."""
    monkeypatch.setattr(mysql, "_TURN_S", 0)
    with migrate.locked(database), pytest.raises(SchemaError, match="another process"):
        migrate.upgrade(database)
    migrate.upgrade(database)
    migrate.check(database)


# The alembic command


def test_alembic_upgrade_head_in_a_checkout(database: Database) -> None:
    """`alembic upgrade head` takes the database from BEATSTORE_URL, and down goes as well."""
    url = plain_url(database)
    done = alembic("upgrade", "head", BEATSTORE_URL=url)
    assert done.returncode == 0, done.stderr
    migrate.check(database)
    done = alembic("-x", f"url={url}", "downgrade", "base", BEATSTORE_URL="sqlite://")
    assert done.returncode == 0, done.stderr
    assert tables(database) == set()


def test_alembic_without_a_url_says_what_to_write() -> None:
    """Without a database there is one line that says how to name it, and no traceback."""
    done = alembic("upgrade", "head")
    assert done.returncode != 0
    printed = done.stdout + done.stderr
    assert printed.count("\n") == 1
    assert "BEATSTORE_URL" in printed
    assert "-x url=" in printed


@pytest.mark.heavy
def test_alembic_writes_a_script_that_makes_the_same(database: Database) -> None:
    """The SQL of `alembic upgrade head --sql`, run by hand, makes tables that pass the check."""
    done = alembic("upgrade", "head", "--sql", BEATSTORE_URL=plain_url(database))
    assert done.returncode == 0, done.stderr
    _run_script(database, done.stdout)
    migrate.check(database)
    assert tables(database) == {*Base.metadata.tables, VERSION_TABLE}
    assert alembic("check", BEATSTORE_URL=plain_url(database)).returncode == 0
    done = alembic("downgrade", f"{REVISION}:base", "--sql", BEATSTORE_URL=plain_url(database))
    _run_script(database, done.stdout)
    assert tables(database) <= {VERSION_TABLE}


def _run_script(database: Database, script: str) -> None:
    if database.engine.dialect.name == "sqlite":
        connection = sqlite3.connect(database.url.database or "")
        connection.executescript(script)
        connection.close()
        return
    statements = [part.strip() for part in re.split(r";$", script, flags=re.MULTILINE)]
    if database.engine.dialect.name == "postgresql":
        statements = [script]
    with database.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        for statement in filter(None, statements):
            driver.cursor().execute(statement)
        driver.commit()


@pytest.mark.parametrize("kind", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_script_for_a_schema_names_it(kind: str) -> None:
    """With a schema, the script puts every object into it, the version table too."""
    done = alembic(
        "upgrade", "head", "--sql", BEATSTORE_URL=f"{kind}://u@h/d", BEATSTORE_SCHEMA="sched"
    )
    assert done.returncode == 0, done.stderr
    first = "USE sched;" if kind.startswith("mysql") else "SET LOCAL search_path TO sched;"
    assert done.stdout.index(first) < done.stdout.index("CREATE TABLE")
    assert f"CREATE TABLE sched.{VERSION_TABLE}" in done.stdout


@pytest.mark.heavy
def test_new_revisions_are_numbered(database: Database, tmp_path: Path) -> None:
    """`alembic revision` names the next number, and --autogenerate writes in the frozen types."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "migrations", checkout / "migrations")
    shutil.copy(ROOT / "alembic.ini", checkout)
    versions = checkout / "migrations" / "versions"
    number = f"{int(REVISION) + 1:04d}"
    url = plain_url(database)
    migrate.upgrade(database)
    done = alembic("revision", "--autogenerate", "-m", "idle", cwd=checkout, BEATSTORE_URL=url)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert not list(versions.glob(f"{number}*"))
    missing = {"beat": ["heartbeat_at", "tick_s"], "run": ["parts", "tries", "worker", "traceback"]}
    for table, columns in missing.items():
        for column in columns:
            execute(database, f"ALTER TABLE beatstore_{table} DROP COLUMN {column}")
    execute(database, "DROP TABLE beatstore_tag")
    done = alembic("revision", "--autogenerate", "-m", "pulse", cwd=checkout, BEATSTORE_URL=url)
    assert done.returncode == 0, done.stderr
    written = (versions / f"{number}_pulse.py").read_text()
    compile(written, "pulse", "exec")
    types = re.findall(r"Column\('(\w+)', ([\w.()]+),(?: server_default=(now))?", written)
    assert {name: (kind, default) for name, kind, default in types} == {
        "heartbeat_at": ("Instant", "now"),
        "tick_s": ("sa.Float(53)", ""),
        "parts": ("Json", ""),
        "tries": ("sa.Integer", ""),
        "worker": ("Name(255)", ""),
        "traceback": ("sa.Text", ""),
        "entry_id": ("BigId", ""),
        "tag": ("Name(64)", ""),
    }
    done = alembic("upgrade", "head", cwd=checkout, BEATSTORE_URL=url)
    assert migrate.revision_of(database) == number, done.stderr
    done = alembic("check", cwd=checkout, BEATSTORE_URL=url)
    assert done.returncode == 0, done.stderr
