"""Why somebody made a change: a note in the audit.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; MySQL keeps what a broken-off upgrade has made."""
    if not _is_there():
        op.add_column("beatstore_audit", sa.Column("reason", sa.Text))


def downgrade() -> None:
    """Take it away again."""
    if context.is_offline_mode() or _is_there():
        op.drop_column("beatstore_audit", "reason")


def _is_there() -> bool:
    if context.is_offline_mode():
        return False
    schema = op.get_context().version_table_schema
    columns = sa.inspect(op.get_bind()).get_columns("beatstore_audit", schema)
    return any(column["name"] == "reason" for column in columns)
