"""The tables as mapped classes, for code that reads and writes rows through its own session.

    from beatstore.models import EntryModel

    session.add(EntryModel(name="nightly", task="etl.extract", kind="cron", spec="0 2 * * *"))

Beat plans a committed row at its next tick. Nothing checks the row before that: beat sets an
invalid row to `broken`, with the reason in its column `error`. `Store.add` checks first.

`Base` holds the metadata of all tables, for an application's own Alembic environment.
"""

from __future__ import annotations

from beatstore.database.models import (
    AuditModel,
    Base,
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
    "AuditModel",
    "Base",
    "BeatModel",
    "DependencyModel",
    "EntryModel",
    "RunModel",
    "TagModel",
    "TokenModel",
    "WaitModel",
    "WorkerModel",
]
