"""Triggers of MySQL and MariaDB outlive the account that made them: named, and made anew."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from beatstore import Store
from beatstore.errors import SchemaError, UnavailableError

pytestmark = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)

DEFINERS = """
    SELECT DISTINCT definer FROM information_schema.triggers
    WHERE trigger_schema = DATABASE() ORDER BY definer
"""
COUNT = "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = DATABASE()"


class Accounts:
    """Accounts that may do everything in one database, and nothing elsewhere."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self.names = [f"beatstore_{uuid.uuid4().hex[:12]}" for _ in range(2)]
        for name in self.names:
            self.run(f"CREATE USER {name}@'%' IDENTIFIED BY 'x'")
            self.run(f"GRANT ALL ON {self.url.database}.* TO {name}@'%'")

    def store(self, name: str) -> Store:
        return Store(self.url.set(username=name, password="x"))

    def run(self, statement: str) -> list[Any]:
        with self.engine.connect() as connection:
            result = connection.execute(text(statement))
            return list(result.scalars()) if result.returns_rows else []

    def close(self) -> None:
        for name in self.names:
            self.run(f"DROP USER IF EXISTS {name}@'%'")
        self.engine.dispose()


@pytest.fixture
def accounts(database_url: str) -> Iterator[Accounts]:
    accounts = Accounts(database_url)
    yield accounts
    accounts.close()


@pytest.fixture
def gone(accounts: Accounts) -> str:
    """Have one account migrate and be dropped; return the other's name."""
    migrating, working = accounts.names
    with closing(accounts.store(migrating)) as store:
        store.migrate()
    with closing(accounts.store(working)) as store:
        store.check()
        store.put("a", "t", 60)
        store.put("b", "t", after=["a"])
    accounts.run(f"DROP USER {migrating}@'%'")
    return working


@pytest.mark.parametrize("admin", [True, False])
def test_the_check_names_them(accounts: Accounts, gone: str, admin: bool) -> None:
    """A check says which triggers are refused and what to run, whether or not it sees accounts."""
    store = Store(accounts.url) if admin else accounts.store(gone)
    with closing(store), pytest.raises(SchemaError) as refused:
        store.check()
    said = str(refused.value)
    assert "beatstore_entry_edit" in said
    assert "beatstore_dependency_delete" in said
    assert accounts.names[0] in said
    assert "beatstore migrate" in said


@pytest.mark.parametrize("admin", [True, False])
def test_a_migration_makes_them_anew(accounts: Accounts, gone: str, admin: bool) -> None:
    """To migrate tables that are up to date gives their triggers to an account that lives."""
    with closing(accounts.store(gone)) as store:
        with pytest.raises(UnavailableError, match="definer"):
            store.change("a", schedule=timedelta(seconds=70))
        [before] = accounts.run(COUNT)
        with closing(Store(accounts.url)) if admin else closing(accounts.store(gone)) as migrating:
            migrating.migrate()
        assert accounts.run(COUNT) == [before]
        [definer] = accounts.run(DEFINERS)
        assert accounts.names[0] not in definer
        store.check()
        store.change("a", schedule=timedelta(seconds=80))
        edited = "UPDATE beatstore_entry SET wake_at = NULL WHERE name = 'a'"
        accounts.run(edited)
        accounts.run("UPDATE beatstore_entry SET misfire = 'all' WHERE name = 'a'")
        assert store.get("a").wake_at is not None, "the trigger is there, and works"


def test_those_of_a_living_account_stay(accounts: Accounts) -> None:
    """Who sees that the account lives leaves its triggers alone."""
    with closing(accounts.store(accounts.names[0])) as store:
        store.migrate()
    with closing(Store(accounts.url)) as store:
        store.migrate()
        store.check()
    [definer] = accounts.run(DEFINERS)
    assert accounts.names[0] in definer


def test_an_account_that_may_not_make_triggers(accounts: Accounts) -> None:
    """Where the server refuses to make triggers, a migration leaves them as they are."""
    with closing(accounts.store(accounts.names[0])) as store:
        store.migrate()
    [before] = accounts.run(COUNT)
    other = accounts.names[1]
    accounts.run(f"REVOKE TRIGGER ON {accounts.url.database}.* FROM {other}@'%'")
    with closing(accounts.store(other)) as store:
        store.migrate()
        store.check()
    assert accounts.run(COUNT) == [before]
