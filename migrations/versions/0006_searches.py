"""Indexes for what people ask: entries in a state other than active, of code, waiting, or stuck.

On PostgreSQL and SQLite an active entry that people have added, and that waits for nothing but its
time, is in none of them.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ASLEEP = (
    "(wake_at IS NULL AND state = 'active' AND "
    "(kind <> 'after' OR pending_since IS NOT NULL OR pending_reason IS NOT NULL))"
)

#: The name, the columns, and the rows on PostgreSQL and SQLite.
_INDEXES = (
    ("ix_beatstore_entry_state_name", "state", "name", "state <> 'active'"),
    ("ix_beatstore_entry_source_name", "source", "name", "source <> 'api'"),
    ("ix_beatstore_entry_pending_since", "pending_since", "pending_since IS NOT NULL"),
    ("ix_beatstore_entry_asleep", "id", _ASLEEP),
)


def upgrade() -> None:
    """Create the indexes; MySQL keeps what a broken-off upgrade has made."""
    there = _there()
    for index, *columns, condition in _INDEXES:
        if index not in there:
            where = sa.text(condition)
            # For YugabyteDB, as in revision 0001.
            ascending = [sa.text(f"{columns[0]} ASC"), *columns[1:]]
            op.create_index(
                index, "beatstore_entry", ascending, postgresql_where=where, sqlite_where=where
            )


def downgrade() -> None:
    """Take them away again."""
    there = _there()
    for index, *_ in _INDEXES:
        if context.is_offline_mode() or index in there:
            op.drop_index(index, "beatstore_entry")


def _there() -> set[str | None]:
    if context.is_offline_mode():
        return set()
    schema = op.get_context().version_table_schema
    indexes = sa.inspect(op.get_bind()).get_indexes("beatstore_entry", schema)
    return {one["name"] for one in indexes}
