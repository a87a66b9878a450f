"""What a database holds of beatstore, as its catalogue says."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from beatstore import Settings, Store
from beatstore.database.dialects import dialect_of
from beatstore.database.models import REVISION, VERSION_TABLE, Base
from beatstore.models import RunModel
from tests.support.written import MINUTE, NOON, run, write

pytestmark = pytest.mark.every_database


def test_a_migrated_database(store: Store) -> None:
    """It has all tables, their revision, and each trigger that migrations make."""
    found = store.storage()
    kind = dialect_of(store.database.engine.dialect)
    assert found.revision == REVISION
    assert found.database == kind.label
    assert int(found.version.split(".")[0]) >= 3
    assert [one.name for one in found.tables] == sorted([*Base.metadata.tables, VERSION_TABLE])
    assert set(found.triggers) == kind.triggers
    assert found.missing_triggers == ()
    assert found.retention == Settings().retention
    assert found.size
    assert found.size > 0


def test_sizes_are_estimates(store: Store) -> None:
    """A table that grows has more rows and bytes, where the database has looked."""
    entry = store.add("a", "t", 60)
    write(store, RunModel, *(run(entry, NOON + at * MINUTE) for at in range(2000)))
    kind = dialect_of(store.database.engine.dialect)
    with store.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        table = "TABLE beatstore_run" if kind.name in ("mysql", "mariadb") else "beatstore_run"
        connection.execute(text(f"ANALYZE {table}"))
    sizes = {one.name: one for one in store.storage().tables}
    run_table = sizes["beatstore_run"]
    assert run_table.rows == pytest.approx(2000, rel=0.2)
    assert run_table.size is None or run_table.size > 100_000
    assert (run_table.size is None) == (not kind.is_server)


def test_a_trigger_that_is_gone(store: Store) -> None:
    """A trigger that somebody has dropped is named."""
    on_table = " ON beatstore_entry" if store.storage().database == "PostgreSQL" else ""
    with store.database.engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER beatstore_entry_edit{on_table}"))
    found = store.storage()
    assert found.missing_triggers == ("beatstore_entry_edit",)
    assert "beatstore_entry_edit" not in found.triggers


def test_it_joins_a_reading(store: Store) -> None:
    """The catalogue can be asked in a transaction that only reads."""
    with store.reading() as session:
        assert store.storage(session=session).revision == REVISION
