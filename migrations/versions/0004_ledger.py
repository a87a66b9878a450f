"""The ledger: tokens of shared due times, what is left to do about a run, and orderly ends.

Revision ID: 0004
Revises: 0003

A token says that an upstream's run of one due time has ended, and how. It is the account of
downstreams with `align="same"`, so that clearing old runs forgets nothing. `stopped_at` tells
a beat or worker that was stopped in order from one that fell silent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from beatstore.database.migration_types import Instant, Name, now

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COLUMNS: dict[tuple[str, str], Callable[[], sa.Column[Any]]] = {
    ("beatstore_run", "tries"): lambda: sa.Column(
        "tries", sa.Integer, server_default="0", nullable=False
    ),
    ("beatstore_run", "expires_at"): lambda: sa.Column("expires_at", Instant),
    ("beatstore_run", "follow_up"): lambda: sa.Column("follow_up", Name(16)),
    ("beatstore_beat", "stopped_at"): lambda: sa.Column("stopped_at", Instant),
    ("beatstore_worker", "stopped_at"): lambda: sa.Column("stopped_at", Instant),
}

_INDEXES_OF_WAIT: dict[str, list[Any]] = {
    "ix_beatstore_wait_downstream_id_state_due_at": ["downstream_id", "state", "due_at"],
    # For YugabyteDB, as in revision 0001.
    "ix_beatstore_wait_due_at": [sa.text("due_at ASC")],
}


def upgrade() -> None:
    """Add everything that is not there; MySQL keeps what a broken-off upgrade has made."""
    there = _names()
    for (table, name), column in _COLUMNS.items():
        if f"{table}.{name}" not in there:
            op.add_column(table, column())
    if "beatstore_token" not in there:
        _create_token()
    if "beatstore_wait" not in there:
        _create_wait()
    for index, columns in _INDEXES_OF_WAIT.items():
        if index not in there:
            op.create_index(index, "beatstore_wait", columns)
    _keep_waiting()


def downgrade() -> None:
    """Take it all away again."""
    op.drop_table("beatstore_wait", if_exists=True)
    op.drop_table("beatstore_token", if_exists=True)
    there = None if context.is_offline_mode() else _names()
    for table, name in _COLUMNS:
        if there is None or f"{table}.{name}" in there:
            op.drop_column(table, name)


def _names() -> set[str]:
    """Name the tables of ours that exist, the columns of those that get more, and indexes."""
    if context.is_offline_mode():
        return set()
    inspector = sa.inspect(op.get_bind())
    schema = op.get_context().version_table_schema
    found = set(inspector.get_table_names(schema))
    for table in found & {table for table, _ in _COLUMNS}:
        found |= {f"{table}.{column['name']}" for column in inspector.get_columns(table, schema)}
    if "beatstore_wait" in found:
        found |= {str(index["name"]) for index in inspector.get_indexes("beatstore_wait", schema)}
    return found


def _options() -> dict[str, Any]:
    options: dict[str, Any] = {}
    for dialect in ("mysql", "mariadb"):
        options[f"{dialect}_engine"] = "InnoDB"
        options[f"{dialect}_charset"] = "utf8mb4"
        options[f"{dialect}_collate"] = "utf8mb4_bin"
    return options


def _key(table: str) -> list[Any]:
    """Return the columns that name a due time of a downstream, and the downstream's key."""
    return [
        sa.Column("downstream_id", sa.BigInteger().with_variant(sa.Integer, "sqlite")),
        sa.Column("due_at", Instant),
        sa.ForeignKeyConstraint(
            ["downstream_id"],
            ["beatstore_entry.id"],
            name=f"fk_{table}_downstream_id",
            ondelete="CASCADE",
        ),
    ]


def _create_token() -> None:
    op.create_table(
        "beatstore_token",
        *_key("beatstore_token"),
        sa.Column("upstream_id", sa.BigInteger),
        sa.Column("outcome", Name(16), nullable=False),
        sa.PrimaryKeyConstraint(
            "downstream_id", "due_at", "upstream_id", name="pk_beatstore_token"
        ),
        **_options(),
    )


def _create_wait() -> None:
    op.create_table(
        "beatstore_wait",
        *_key("beatstore_wait"),
        sa.Column("state", Name(16), server_default="look", nullable=False),
        sa.Column("since", Instant, server_default=now(), nullable=False),
        sa.Column("blocked_by", sa.BigInteger),
        sa.Column("timeout_s", sa.Float(53)),
        sa.PrimaryKeyConstraint("downstream_id", "due_at", name="pk_beatstore_wait"),
        **_options(),
    )


def _keep_waiting() -> None:
    """Give entries without a clock that wait what their upstreams have told them so far.

    Entries with a clock find that out by themselves, at their next look.
    """
    if context.is_offline_mode():
        return
    op.execute(
        """
        INSERT INTO beatstore_token (downstream_id, due_at, upstream_id, outcome)
        SELECT d.downstream_id, r.due_at, d.upstream_id,
               CASE r.state WHEN 'succeeded' THEN 'success' ELSE 'failure' END
        FROM beatstore_dependency d
        JOIN beatstore_entry e ON e.id = d.downstream_id
        JOIN beatstore_run r ON r.entry_id = d.upstream_id
        WHERE d.align = 'same' AND e.kind = 'after' AND e.state = 'active'
          AND r.state IN ('succeeded', 'failed', 'lost')
          AND (r.finished_at >= e.pending_since
               OR r.due_at > COALESCE((SELECT MAX(n.due_at) FROM beatstore_run n
                                       WHERE n.entry_id = e.id), e.created_at))
          AND NOT EXISTS (SELECT 1 FROM beatstore_run m
                          WHERE m.entry_id = e.id AND m.due_at = r.due_at)
          AND NOT EXISTS (SELECT 1 FROM beatstore_run l
                          WHERE l.entry_id = r.entry_id AND l.due_at = r.due_at
                            AND l.attempt > r.attempt AND l.state <> 'cancelled')
          AND NOT EXISTS (SELECT 1 FROM beatstore_token t
                          WHERE t.downstream_id = d.downstream_id AND t.due_at = r.due_at
                            AND t.upstream_id = d.upstream_id)
        """
    )
    op.execute(
        """
        INSERT INTO beatstore_wait (downstream_id, due_at, since)
        SELECT DISTINCT t.downstream_id, t.due_at, e.pending_since
        FROM beatstore_token t
        JOIN beatstore_entry e ON e.id = t.downstream_id
        WHERE NOT EXISTS (SELECT 1 FROM beatstore_wait w
                          WHERE w.downstream_id = t.downstream_id AND w.due_at = t.due_at)
        """
    )
    entry = sa.table("beatstore_entry", sa.column("id"), sa.column("state"), sa.column("wake_at"))
    edge = sa.table("beatstore_dependency", sa.column("downstream_id"), sa.column("align"))
    waits = sa.select(edge.c.downstream_id).where(edge.c.align == "same")
    op.execute(
        entry.update()
        .where(entry.c.state == "active", entry.c.id.in_(waits))
        .values(wake_at=sa.text("'1970-01-01 00:00:00.000000'"))
    )
