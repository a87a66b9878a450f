"""How a beat sends its messages, and why not by a faster step, for `status`.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; MySQL keeps what a broken-off upgrade has made."""
    if not _is_there():
        op.add_column("beatstore_beat", sa.Column("step", sa.Text))


def downgrade() -> None:
    """Take it away again."""
    if context.is_offline_mode() or _is_there():
        op.drop_column("beatstore_beat", "step")


def _is_there() -> bool:
    if context.is_offline_mode():
        return False
    schema, found = op.get_context().version_table_schema, sa.inspect(op.get_bind())
    if not found.has_table("beatstore_beat", schema):
        return False  # a downgrade broke off behind it
    return any(one["name"] == "step" for one in found.get_columns("beatstore_beat", schema))
