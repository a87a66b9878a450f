"""The ledger: tokens of shared due times, and what is left to do about a run.

Revision ID: 0004
Revises: 0003

A token says that an upstream's run of one due time has ended, and how. It is the account of
downstreams with `align="same"`, so that clearing old runs forgets nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from beatstore.dialects import Instant, Name, db_now

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COLUMNS: dict[str, Callable[[], sa.Column[Any]]] = {
    "tries": lambda: sa.Column("tries", sa.Integer, server_default="0", nullable=False),
    "expires_at": lambda: sa.Column("expires_at", Instant),
    "follow_up": lambda: sa.Column("follow_up", Name(16)),
}


def upgrade() -> None:
    """Add everything that is not there; MySQL keeps what a broken-off upgrade has made."""
    there = _names()
    for name, column in _COLUMNS.items():
        if f"beatstore_run.{name}" not in there:
            op.add_column("beatstore_run", column())
    if "beatstore_token" not in there:
        _create_token()


def downgrade() -> None:
    """Take it all away again."""
    op.drop_table("beatstore_token", if_exists=True)
    there = None if context.is_offline_mode() else _names()
    for name in _COLUMNS:
        if there is None or f"beatstore_run.{name}" in there:
            op.drop_column("beatstore_run", name)


def _names() -> set[str]:
    """Name the tables of ours that exist, and the columns of runs."""
    if context.is_offline_mode():
        return set()
    inspector = sa.inspect(op.get_bind())
    schema = op.get_context().version_table_schema
    columns = inspector.get_columns("beatstore_run", schema)
    found = {f"beatstore_run.{column['name']}" for column in columns}
    return found | set(inspector.get_table_names(schema))


def _create_token() -> None:
    options: dict[str, Any] = {}
    for dialect in ("mysql", "mariadb"):
        options[f"{dialect}_engine"] = "InnoDB"
        options[f"{dialect}_charset"] = "utf8mb4"
        options[f"{dialect}_collate"] = "utf8mb4_bin"
    op.create_table(
        "beatstore_token",
        sa.Column("downstream_id", sa.BigInteger().with_variant(sa.Integer, "sqlite")),
        sa.Column("due_at", Instant),
        sa.Column("upstream_id", sa.BigInteger),
        sa.Column("outcome", Name(16), nullable=False),
        sa.Column("arrived_at", Instant, server_default=db_now(), nullable=False),
        sa.Column("taken", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("downstream_id", "due_at", "upstream_id", name="pk_beatstore_token"),
        sa.ForeignKeyConstraint(
            ["downstream_id"],
            ["beatstore_entry.id"],
            name="fk_beatstore_token_downstream_id",
            ondelete="CASCADE",
        ),
        **options,
    )
    op.create_index("ix_beatstore_token_due_at", "beatstore_token", ["due_at"])
