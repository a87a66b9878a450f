"""The stories that simulations are tried with: a diamond on a January night, and its times."""

from __future__ import annotations

from datetime import datetime, timezone

from beatstore import Store, testing

__all__ = ["MIDNIGHT", "at", "diamond", "times"]

UTC = timezone.utc
MIDNIGHT = datetime(2026, 1, 15, tzinfo=UTC)


def at(text: str, day: int = 15) -> datetime:
    """Return a time of a day in January."""
    hour, minute = text.split(":")
    return datetime(2026, 1, day, int(hour), int(minute), tzinfo=UTC)


def times(ledger: testing.Ledger) -> list[str]:
    """Return when each row was due, by the clock on the wall."""
    return [f"{row.due_at:%H:%M}" for row in ledger]


def diamond(store: Store) -> None:
    """Add extract, then clean and enrich beside each other, then load."""
    store.add("extract", "etl.extract", "0 2 * * *")
    store.add("clean", "etl.clean", after=["extract"])
    store.add("enrich", "etl.enrich", after=["extract"], max_retries=2, retry_delay=600)
    store.add("load", "etl.load", after=["clean", "enrich"])
