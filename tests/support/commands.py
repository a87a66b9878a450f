"""What tests of the commands ask of processes and databases."""

from __future__ import annotations

from sqlalchemy import create_engine, inspect, text

from beatstore import Store
from tests.support.brokers import Broker
from tests.support.processes import Process
from tests.support.ticks import running_beats
from tests.support.wait import wait_until

__all__ = ["is_migrated", "refused", "sent_entries", "set_revision", "tables", "wait_for_rows"]


def sent_entries(broker: Broker) -> list[str]:
    """Take all messages, and return the entries they are of."""
    return [message.headers["beatstore_entry"] for message in broker.drain()]


def wait_for_rows(store: Store, count: int = 1) -> None:
    """Wait until so many beats have written their rows."""
    wait_until(lambda: len(running_beats(store)) == count, 30, f"{count} beats")


def refused(process: Process) -> str:
    """Wait until a process has ended with an error, and return the line in which it says why."""
    assert process.wait() not in (0, None)
    output = process.output()
    assert "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if "beatstore: " in line]
    return line.partition("beatstore: ")[2]


# -- starting ------------------------------------------------------------------------------


def tables(url: str) -> list[str]:
    """Return the names of all tables of a database."""
    engine = create_engine(url)
    found = inspect(engine).get_table_names()
    engine.dispose()
    return sorted(found)


def is_migrated(url: str) -> bool:
    """Say whether the tables are there."""
    return "beatstore_entry" in tables(url)


def set_revision(url: str, revision: str) -> None:
    """Write another revision into a migrated database."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE beatstore_version SET version_num = :n"), {"n": revision})
    engine.dispose()
