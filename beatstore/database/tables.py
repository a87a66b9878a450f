"""The tables, for statements of SQLAlchemy's Core, and lists in pieces that one statement takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

from sqlalchemy import Table

from beatstore.database.models import Audit, Beat, Dependency, Entry, Run, Tag, Token, Wait, Worker

__all__ = [
    "AUDIT",
    "BEAT",
    "DEPENDENCY",
    "ENTRY",
    "RUN",
    "TAG",
    "TOKEN",
    "WAIT",
    "WORKER",
    "chunks",
]

AUDIT = cast(Table, Audit.__table__)
BEAT = cast(Table, Beat.__table__)
DEPENDENCY = cast(Table, Dependency.__table__)
ENTRY = cast(Table, Entry.__table__)
RUN = cast(Table, Run.__table__)
TAG = cast(Table, Tag.__table__)
TOKEN = cast(Table, Token.__table__)
WAIT = cast(Table, Wait.__table__)
WORKER = cast(Table, Worker.__table__)

Item = TypeVar("Item")

#: How many values go into one statement.
_CHUNK = 1000


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield ids, names or rows in lists that one statement can take."""
    found = list(items)
    for at in range(0, len(found), _CHUNK):
        yield found[at : at + _CHUNK]
