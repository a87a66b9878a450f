"""The tables, for statements of SQLAlchemy's Core, and lists in pieces that one statement takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

from sqlalchemy import Table

from beatstore.database.models import (
    AuditModel,
    BeatModel,
    DependencyModel,
    EntryModel,
    RunModel,
    TagModel,
    TokenModel,
    WaitModel,
    WorkerModel,
)

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

AUDIT = cast(Table, AuditModel.__table__)
BEAT = cast(Table, BeatModel.__table__)
DEPENDENCY = cast(Table, DependencyModel.__table__)
ENTRY = cast(Table, EntryModel.__table__)
RUN = cast(Table, RunModel.__table__)
TAG = cast(Table, TagModel.__table__)
TOKEN = cast(Table, TokenModel.__table__)
WAIT = cast(Table, WaitModel.__table__)
WORKER = cast(Table, WorkerModel.__table__)

Item = TypeVar("Item")

#: How many values go into one statement.
_CHUNK = 1000


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield ids, names or rows in lists that one statement can take."""
    found = list(items)
    for at in range(0, len(found), _CHUNK):
        yield found[at : at + _CHUNK]
