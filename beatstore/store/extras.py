"""Read the tags, upstreams and edits of entries, if they are requested.

This takes one statement for each thousand entries.

Each function joins the open transaction it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from beatstore.database.rows import Transaction
from beatstore.definition import fields
from beatstore.errors import InvalidEntryError
from beatstore.records import Entry, with_extras
from beatstore.store.sync import stored
from beatstore.store.sync.entry import edited
from beatstore.types import EntryExtra

__all__ = ["EXTRAS", "check", "read"]

#: Everything that can be requested.
EXTRAS: tuple[EntryExtra, ...] = get_args(EntryExtra)


def check(include: object) -> set[EntryExtra]:
    """Return what is requested.

    Raises:
        InvalidEntryError: it is not one of `EXTRAS`.
    """
    given = [include] if isinstance(include, str) else include
    if not isinstance(given, Iterable):
        raise InvalidEntryError("include", given, f"any of {', '.join(EXTRAS)}")
    return {fields.choice("include", name, EXTRAS) for name in given}


def read(tx: Transaction, found: Sequence[Entry], asked: set[EntryExtra]) -> list[Entry]:
    """Return entries with what is requested."""
    if not asked:
        return list(found)
    # `edited` compares the tags and upstreams with those that code declared.
    of_all = bool(asked & {"tags", "after"})
    needing = [one.id for one in found if of_all or one.declared is not None]
    related = stored.related(tx, needing)
    return [
        with_extras(
            one,
            tags=sorted(related.tags.get(one.id, ())) if "tags" in asked else None,
            after=related.after.get(one.id, ()) if "after" in asked else None,
            edited=edited(one, related) if "edited" in asked else None,
        )
        for one in found
    ]
