"""What tests of export and load compare: the documents of a store, and columns of its entries."""

from __future__ import annotations

from typing import Any

from beatstore import Store

__all__ = ["columns", "without_header"]


def without_header(store: Store, **chosen: Any) -> list[dict[str, Any]]:
    """Return the documents of a store."""
    return [one for one in store.export(**chosen) if "beatstore" not in one]


def columns(store: Store, name: str, *chosen: str) -> tuple[Any, ...]:
    """Return columns of an entry."""
    entry = store.get(name)
    return tuple(getattr(entry, column) for column in chosen)
