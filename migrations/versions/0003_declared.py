"""What code says of the entries it owns, kept beside them.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from beatstore.database.migration_types import Json

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; MySQL keeps what a broken-off upgrade has made."""
    if not _is_there():
        op.add_column("beatstore_entry", sa.Column("declared", Json))


def downgrade() -> None:
    """Take it away again."""
    if context.is_offline_mode() or _is_there():
        op.drop_column("beatstore_entry", "declared")


def _is_there() -> bool:
    if context.is_offline_mode():
        return False
    schema = op.get_context().version_table_schema
    columns = sa.inspect(op.get_bind()).get_columns("beatstore_entry", schema)
    return any(column["name"] == "declared" for column in columns)
