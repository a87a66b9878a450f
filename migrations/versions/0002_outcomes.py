"""What outcomes and dependencies need: columns, an index of unfinished runs, workers.

Revision ID: 0002
Revises: 0001

Edges written by plain SQL count at the next tick too, by triggers on the dependency table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from beatstore.database.migration_types import Instant, Json, Name, now

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_logger = logging.getLogger("beatstore.migrate")

_EPOCH = "1970-01-01 00:00:00.000000"

_COLUMNS: dict[str, Callable[[], list[sa.Column[Any]]]] = {
    "beatstore_entry": lambda: [
        sa.Column("retry_jitter_s", sa.Float(53), server_default="0", nullable=False),
        sa.Column("blocked_by", sa.BigInteger),
    ],
    "beatstore_run": lambda: [sa.Column("parts", Json)],
    "beatstore_dependency": lambda: [
        sa.Column("failure_seen", sa.BigInteger, server_default="0", nullable=False),
    ],
}

_INDEXES = (
    ("ix_beatstore_entry_blocked_by", "beatstore_entry", ["blocked_by"], "blocked_by IS NOT NULL"),
    (
        "ix_beatstore_run_entry_id_state_due_at",
        "beatstore_run",
        ["entry_id", "state", "due_at"],
        "state <> 'succeeded'",
    ),
    (
        "ix_beatstore_dependency_ends_wait",
        "beatstore_dependency",
        ["downstream_id", "on_upstream_failure", "timeout_s"],
        "(on_upstream_failure = 'skip' OR timeout_s IS NOT NULL)",
    ),
)


def upgrade() -> None:
    """Add everything that is not there; MySQL keeps what a broken-off upgrade has made."""
    there = _names()
    for table, columns in _COLUMNS.items():
        for column in columns():
            if f"{table}.{column.name}" not in there:
                op.add_column(table, column)
    for name, table, columns_, where in _INDEXES:
        if name not in there:
            only = sa.text(where)
            op.create_index(name, table, columns_, postgresql_where=only, sqlite_where=only)
    if "beatstore_worker" not in there:
        _create_worker()
    _edit_trigger(_RULE)
    _edge_triggers()


def downgrade() -> None:
    """Take it all away again."""
    _drop_edge_triggers()
    _edit_trigger(_OLD_RULE)
    op.drop_table("beatstore_worker", if_exists=True)
    there = _names() if not context.is_offline_mode() else None
    for name, table, _, _ in _INDEXES:
        if there is None or name in there:
            op.drop_index(name, table_name=table)
    for table, columns in _COLUMNS.items():
        for column in columns():
            if there is None or f"{table}.{column.name}" in there:
                op.drop_column(table, str(column.name))


def _dialect() -> str:
    return op.get_context().dialect.name


def _names() -> set[str]:
    """Name the tables, columns and indexes of ours that exist."""
    if context.is_offline_mode():
        return set()
    inspector = sa.inspect(op.get_bind())
    schema = op.get_context().version_table_schema
    found: set[str] = set()
    for table in inspector.get_table_names(schema):
        if table.startswith("beatstore_"):
            found.add(table)
            found |= {
                f"{table}.{column['name']}" for column in inspector.get_columns(table, schema)
            }
            found |= {str(index["name"]) for index in inspector.get_indexes(table, schema)}
    return found


def _create_worker() -> None:
    options: dict[str, Any] = {}
    for dialect in ("mysql", "mariadb"):
        options[f"{dialect}_engine"] = "InnoDB"
        options[f"{dialect}_charset"] = "utf8mb4"
        options[f"{dialect}_collate"] = "utf8mb4_bin"
    op.create_table(
        "beatstore_worker",
        sa.Column("id", Name(36), nullable=False),
        sa.Column("name", Name(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("version", Name(64), nullable=False),
        sa.Column("started_at", Instant, server_default=now(), nullable=False),
        sa.Column("heartbeat_at", Instant, server_default=now(), nullable=False),
        sa.Column("running", sa.Integer, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_beatstore_worker"),
        **options,
    )


# -- the edit trigger, which now minds `overlap` and `run_timeout_s` too -------------------

_PLAN = ("kind", "spec", "timezone", "start_at")
_OLD_RULE = (*_PLAN, "end_at", "max_runs", "jitter_s", "misfire", "grace_s", "state")
_RULE = (*_OLD_RULE, "overlap", "run_timeout_s")


def _row(version: str, columns: tuple[str, ...]) -> str:
    return f"({', '.join(f'{version}.{name}' for name in columns)})"


def _same(columns: tuple[str, ...]) -> str:
    return f"({_row('OLD', columns)} <=> {_row('NEW', columns)})"


def _edit_trigger(rule: tuple[str, ...]) -> None:
    """Replace the trigger of revision 0001, which says what it is for."""
    if _dialect() == "sqlite":
        now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
        op.execute("DROP TRIGGER IF EXISTS beatstore_entry_edit")
        op.execute(
            f"""
            CREATE TRIGGER beatstore_entry_edit
            AFTER UPDATE OF {", ".join(rule)} ON beatstore_entry
            WHEN OLD.wake_at IS NEW.wake_at AND {_row("OLD", rule)} IS NOT {_row("NEW", rule)}
            BEGIN
                UPDATE beatstore_entry SET wake_at = '{_EPOCH}', cursor_at = CASE
                    WHEN OLD.cursor_at IS NOT NEW.cursor_at THEN NEW.cursor_at
                    WHEN {_row("OLD", _PLAN)} IS NOT {_row("NEW", _PLAN)}
                        THEN CASE WHEN NEW.kind <> 'once' THEN {now} END
                    WHEN OLD.state <> 'active' AND NEW.state = 'active' THEN {now}
                    ELSE NEW.cursor_at
                END WHERE id = NEW.id;
            END
            """
        )
    elif _dialect() == "postgresql":
        op.execute("DROP TRIGGER IF EXISTS beatstore_entry_edit ON beatstore_entry")
        op.execute(
            f"""
            CREATE TRIGGER beatstore_entry_edit BEFORE UPDATE ON beatstore_entry FOR EACH ROW
            WHEN (OLD.wake_at IS NOT DISTINCT FROM NEW.wake_at
                AND {_row("OLD", rule)} IS DISTINCT FROM {_row("NEW", rule)})
            EXECUTE FUNCTION beatstore_entry_edit()
            """
        )
    else:
        edited = f"OLD.wake_at <=> NEW.wake_at AND NOT {_same(rule)}"
        # Where the server refuses, revision 0001 has said so, and what to do.
        _mysql_trigger(
            "beatstore_entry_edit",
            f"""
            CREATE TRIGGER beatstore_entry_edit BEFORE UPDATE ON beatstore_entry FOR EACH ROW
            SET NEW.cursor_at = CASE
                    WHEN NOT ({edited} AND OLD.cursor_at <=> NEW.cursor_at) THEN NEW.cursor_at
                    WHEN NOT {_same(_PLAN)}
                        THEN CASE WHEN NEW.kind <> 'once' THEN UTC_TIMESTAMP(6) END
                    WHEN OLD.state <> 'active' AND NEW.state = 'active' THEN UTC_TIMESTAMP(6)
                    ELSE NEW.cursor_at
                END,
                NEW.wake_at = CASE WHEN {edited} THEN '{_EPOCH}' ELSE NEW.wake_at END
            """,
        )


# -- edges ---------------------------------------------------------------------------------

# An edge that is inserted, deleted or edited makes beat look at its downstream, and forget
# which upstream it was waiting for. What beat itself writes (`consumed_seq`, `failure_seen`)
# is no edit. On MySQL the edges that a foreign key deletes fire no trigger; there a beat
# finds their downstreams within minutes.
_EDGE = ("downstream_id", "upstream_id", "on", "first_free", "align", "on_upstream_failure")
_EDGE = (*_EDGE, "timeout_s")

_WAKE = """
    UPDATE beatstore_entry SET wake_at = '{epoch}', blocked_by = NULL
    WHERE id = {row}.downstream_id AND state = 'active'
        AND (blocked_by IS NOT NULL OR wake_at IS NULL OR wake_at <> '{epoch}');
"""


def _edge_columns(quote: str) -> tuple[str, ...]:
    return tuple(f"{quote}{name}{quote}" for name in _EDGE)


def _edge_triggers() -> None:
    _drop_edge_triggers()
    {
        "sqlite": _sqlite_edges,
        "postgresql": _postgresql_edges,
        "mysql": _mysql_edges,
        "mariadb": _mysql_edges,
    }[_dialect()]()


def _drop_edge_triggers() -> None:
    for event in ("free", "insert", "update", "delete"):
        name = f"beatstore_dependency_{event}"
        on = " ON beatstore_dependency" if _dialect() == "postgresql" else ""
        op.execute(f"DROP TRIGGER IF EXISTS {name}{on}")
    if _dialect() == "postgresql":
        op.execute("DROP FUNCTION IF EXISTS beatstore_dependency_edit()")


def _sqlite_edges() -> None:
    columns = _edge_columns('"')
    wake_new, wake_old = (_WAKE.format(epoch=_EPOCH, row=row) for row in ("NEW", "OLD"))
    free = """
        UPDATE beatstore_dependency SET consumed_seq = -1
        WHERE downstream_id = NEW.downstream_id AND upstream_id = NEW.upstream_id
            AND first_free AND consumed_seq = 0;
    """
    op.execute(
        f"CREATE TRIGGER beatstore_dependency_insert AFTER INSERT ON beatstore_dependency "
        f"BEGIN {free} {wake_new} END"
    )
    op.execute(
        f"CREATE TRIGGER beatstore_dependency_update AFTER UPDATE OF {', '.join(columns)} "
        f"ON beatstore_dependency BEGIN {wake_new} {wake_old} END"
    )
    op.execute(
        f"CREATE TRIGGER beatstore_dependency_delete AFTER DELETE ON beatstore_dependency "
        f"BEGIN {wake_old} END"
    )


def _postgresql_edges() -> None:
    columns = _edge_columns('"')
    wake_new, wake_old = (_WAKE.format(epoch=f"{_EPOCH}+00", row=row) for row in ("NEW", "OLD"))
    op.execute(
        f"""
        CREATE FUNCTION beatstore_dependency_edit() RETURNS trigger LANGUAGE plpgsql
        SET search_path FROM CURRENT AS $$ -- that of the migration: tables may have a schema
        BEGIN
            IF TG_OP = 'INSERT' AND NEW.first_free AND NEW.consumed_seq = 0 THEN
                UPDATE beatstore_dependency SET consumed_seq = -1
                WHERE downstream_id = NEW.downstream_id AND upstream_id = NEW.upstream_id;
            END IF;
            IF TG_OP <> 'DELETE' THEN {wake_new} END IF;
            IF TG_OP <> 'INSERT' THEN {wake_old} END IF;
            PERFORM pg_notify('beatstore', '');
            RETURN NULL;
        END $$
        """
    )
    for event, when in (
        ("insert", ""),
        ("update", f"WHEN ({_row('OLD', columns)} IS DISTINCT FROM {_row('NEW', columns)})"),
        ("delete", ""),
    ):
        op.execute(
            f"""
            CREATE TRIGGER beatstore_dependency_{event} AFTER {event} ON beatstore_dependency
            FOR EACH ROW {when} EXECUTE FUNCTION beatstore_dependency_edit()
            """
        )


def _mysql_edges() -> None:
    columns = _edge_columns("`")
    wake_new, wake_old = (
        _WAKE.format(epoch=_EPOCH, row=row).rstrip().rstrip(";") for row in ("NEW", "OLD")
    )
    free = (
        "SET NEW.consumed_seq = IF(NEW.first_free AND NEW.consumed_seq = 0, -1, NEW.consumed_seq)"
    )
    edited = f"{wake_new} AND NOT {_same(columns)}"
    refused = None
    for event, when, action in (
        ("free", "BEFORE INSERT", free),
        ("insert", "AFTER INSERT", wake_new),
        ("update", "AFTER UPDATE", edited),
        ("delete", "AFTER DELETE", wake_old),
    ):
        on = f"{when} ON beatstore_dependency FOR EACH ROW"
        name = f"beatstore_dependency_{event}"
        refused = _mysql_trigger(name, f"CREATE TRIGGER {name} {on} {action}") or refused
    if refused:
        _logger.warning(
            "This server refused to make a trigger (%s). Here edges written by plain SQL must wake "
            "their downstream themselves: UPDATE beatstore_entry SET wake_at = '1970-01-01', "
            "blocked_by = NULL WHERE id = …. Those of beatstore's own API need nothing.",
            refused,
        )


def _mysql_trigger(name: str, create: str) -> object:
    """Create a trigger on MySQL; return the server's words if it refused."""
    try:
        op.execute(f"DROP TRIGGER IF EXISTS {name}")
        op.execute(create)
    except sa.exc.DBAPIError as error:
        code = getattr(error.orig, "errno", None) or (error.orig.args if error.orig else (0,))[0]
        if code not in (1044, 1142, 1227, 1419):
            raise
        return error.orig
    return None
