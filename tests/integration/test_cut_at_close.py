"""A connection that is cut after the commit: the work is done, and nothing is raised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from beatstore import Store

pytestmark = pytest.mark.every_database


@pytest.fixture
def cut(store: Store) -> Iterator[None]:
    """Let whatever gives a connection back to the pool fail as a driver does."""

    def checkin(connection: DBAPIConnection, _: object) -> None:
        connection.close()
        raise ConnectionResetError("Lost connection to the server")

    engine: Engine = store.database.engine
    event.listen(engine, "checkin", checkin)
    yield
    event.remove(engine, "checkin", checkin)


@pytest.mark.usefixtures("cut")
def test_what_was_committed_counts(store: Store) -> None:
    """An edit whose connection breaks while it is given back is an edit all the same."""
    store.add("a", "t", 60)
    assert store.change("a", description="changed").description == "changed"
