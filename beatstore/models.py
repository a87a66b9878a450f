"""The tables as mapped classes, for those who read and write rows through their own session.

    from beatstore.models import EntryModel

    session.add(EntryModel(name="nightly", task="etl.extract", kind="cron", spec="0 2 * * *"))

Beat plans what is committed at its next tick. Nothing is checked before that: a row that can't
be used becomes `broken`, with the reason in its column `error`. `Store.add` checks first.

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
