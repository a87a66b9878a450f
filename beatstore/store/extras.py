"""What is read beside entries where it is asked for: their tags, upstreams and edits.

However many entries there are, this is a statement or two for each thousand of them.

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

#: All that can be asked for.
EXTRAS: tuple[EntryExtra, ...] = get_args(EntryExtra)


def check(include: object) -> set[EntryExtra]:
    """Return what is asked for.

    Raises:
        InvalidEntryError: it is something else.
    """
    given = [include] if isinstance(include, str) else include
    if not isinstance(given, Iterable):
        raise InvalidEntryError("include", given, f"any of {', '.join(EXTRAS)}")
    return {fields.choice("include", name, EXTRAS) for name in given}


def read(tx: Transaction, found: Sequence[Entry], asked: set[EntryExtra]) -> list[Entry]:
    """Return entries with what is asked for."""
    if not asked:
        return list(found)
    # What code declared is compared with the tags and upstreams too.
    of_all = bool(asked & {"tags", "after"})
    beside = stored.beside(tx, [one.id for one in found if of_all or one.declared is not None])
    return [
        with_extras(
            one,
            tags=sorted(beside.tags.get(one.id, ())) if "tags" in asked else None,
            after=beside.after.get(one.id, ()) if "after" in asked else None,
            edited=edited(one, beside) if "edited" in asked else None,
        )
        for one in found
    ]
