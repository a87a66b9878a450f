"""The tables, and the triggers that make an edit by plain SQL count at the next tick.

Revision ID: 0001
Revises:

Names carry no schema: the connection's unqualified names mean the right one. SQLite and
PostgreSQL undo a failed upgrade; MySQL can't, so there a second run must get through what
the first one has done already.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from beatstore.database.migration_types import BigId, Instant, Json, Name, now

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_logger = logging.getLogger("beatstore.migrate")

_EPOCH = "1970-01-01 00:00:00.000000"
_AWAKE = "wake_at IS NOT NULL"

#: "BLOB, TEXT, GEOMETRY or JSON column can't have a default value": OceanBase, not MySQL 8.
_NO_JSON_DEFAULT = 1101

#: Columns whose range is read in order. YugabyteDB would put the first one of an index into a
#: hash, unless it is told the order; elsewhere ASC says nothing.
_IN_ORDER = ("wake_at", "due_at")


def upgrade() -> None:
    """Create everything."""
    left = _left_behind()
    _create_entry_as_possible(left)
    _create_run(left)
    _create_dependency(left)
    _create_small_tables(left)
    {
        "sqlite": _sqlite_trigger,
        "postgresql": _postgresql,
        "mysql": _mysql_trigger,
        "mariadb": _mysql_trigger,
    }[_dialect()]()


def downgrade() -> None:
    """Drop everything, with all rows; the triggers go with their tables."""
    for name in ("tag", "dependency", "run", "audit", "beat", "entry"):
        op.drop_table(f"beatstore_{name}", if_exists=True)
    if _dialect() == "postgresql":
        op.execute("DROP FUNCTION IF EXISTS beatstore_entry_edit()")
        op.execute("DROP FUNCTION IF EXISTS beatstore_notify()")


def _dialect() -> str:
    return op.get_context().dialect.name


def _left_behind() -> set[str]:
    """Name the tables and indexes of ours that an upgrade on MySQL made before it broke off."""
    if _dialect() not in ("mysql", "mariadb") or context.is_offline_mode():
        return set()
    inspector = sa.inspect(op.get_bind())
    schema = op.get_context().version_table_schema
    names = {name for name in inspector.get_table_names(schema) if name.startswith("beatstore_")}
    indexes = {str(ix["name"]) for name in names for ix in inspector.get_indexes(name, schema)}
    return names | indexes


def _create(
    left: set[str],
    name: str,
    *columns: sa.schema.SchemaItem,
    indexes: Mapping[str, list[str]] | None = None,
    **options: Any,
) -> None:
    """Create a table and its indexes, as far as they are not `left` from another run."""
    for dialect in ("mysql", "mariadb"):
        options[f"{dialect}_engine"] = "InnoDB"
        options[f"{dialect}_charset"] = "utf8mb4"
        options[f"{dialect}_collate"] = "utf8mb4_bin"
    if name not in left:
        op.create_table(name, *columns, **options)
    for index, names in (indexes or {}).items():
        only = sa.text(_AWAKE) if "wake_at" in names else None
        if index not in left:
            first = sa.text(f"{names[0]} ASC") if names[0] in _IN_ORDER else names[0]
            op.create_index(
                index, name, [first, *names[1:]], postgresql_where=only, sqlite_where=only
            )


def _create_entry_as_possible(left: set[str]) -> None:
    """Create entries, without the defaults of JSON columns where the server has none.

    There a trigger gives the empty value to an INSERT that leaves such a column out. It gets
    past the server only if the column may be NULL.
    """
    try:
        _create_entry(left)
    except sa.exc.DBAPIError as error:
        if _code(error) != _NO_JSON_DEFAULT:
            raise
        _create_entry(left, has_json_defaults=False)
    if _dialect() in ("mysql", "mariadb") and _lacks_json_defaults():
        _empty_json_trigger()


def _lacks_json_defaults() -> bool:
    if context.is_offline_mode():
        return False
    schema = op.get_context().version_table_schema
    columns = sa.inspect(op.get_bind()).get_columns("beatstore_entry", schema)
    return any(column["name"] == "args" and column["nullable"] for column in columns)


def _empty_json_trigger() -> None:
    name = "beatstore_entry_insert"
    given = {"args": "[]", "kwargs": "{}", "options": "{}"}
    values = (f"NEW.{name} = COALESCE(NEW.{name}, '{empty}')" for name, empty in given.items())
    try:
        op.execute(f"DROP TRIGGER IF EXISTS {name}")
        op.execute(
            f"CREATE TRIGGER {name} BEFORE INSERT ON beatstore_entry FOR EACH ROW "
            f"SET {', '.join(values)}"
        )
    except sa.exc.DBAPIError as error:
        if not _refused(error):
            raise
        _logger.warning(
            "This server has no defaults for JSON, and refused to make a trigger (%s). Here an "
            "INSERT by plain SQL must give args, kwargs and options: '[]', '{}' and '{}'.",
            error.orig,
        )


def _create_entry(left: set[str], *, has_json_defaults: bool = True) -> None:
    def json(name: str, empty: str) -> sa.Column[Any]:
        if not has_json_defaults:
            return sa.Column(name, Json)
        return sa.Column(name, Json, server_default=sa.text(f"('{empty}')"), nullable=False)

    _create(
        left,
        "beatstore_entry",
        sa.Column("id", BigId, nullable=False),
        sa.Column("name", Name(255), nullable=False),
        sa.Column("task", Name(255), nullable=False),
        json("args", "[]"),
        json("kwargs", "{}"),
        json("options", "{}"),
        sa.Column("kind", Name(16), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("timezone", Name(64)),
        sa.Column("start_at", Instant),
        sa.Column("end_at", Instant),
        sa.Column("max_runs", sa.Integer),
        sa.Column("jitter_s", sa.Float(53), server_default="0", nullable=False),
        sa.Column("misfire", Name(16)),
        sa.Column("grace_s", sa.Float(53)),
        sa.Column("overlap", Name(16), server_default="allow", nullable=False),
        sa.Column("run_timeout_s", sa.Float(53)),
        sa.Column("max_retries", sa.Integer, server_default="0", nullable=False),
        sa.Column("retry_delay_s", sa.Float(53), server_default="300", nullable=False),
        sa.Column("retry_backoff", sa.Float(53), server_default="1", nullable=False),
        sa.Column("state", Name(16), server_default="active", nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("description", sa.Text),
        sa.Column("source", Name(255), server_default="api", nullable=False),
        sa.Column("wake_at", Instant, server_default=sa.text(f"'{_EPOCH}'")),
        sa.Column("cursor_at", Instant),
        sa.Column("next_due_at", Instant),
        sa.Column("pending_due_at", Instant),
        sa.Column("pending_since", Instant),
        sa.Column("pending_reason", sa.Text),
        sa.Column("success_seq", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("failure_seq", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("done_seq", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("run_count", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("last_run_at", Instant),
        sa.Column("version", sa.Integer, server_default="1", nullable=False),
        sa.Column("created_at", Instant, server_default=now(), nullable=False),
        sa.Column("updated_at", Instant, server_default=now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_beatstore_entry"),
        sa.UniqueConstraint("name", name="uq_beatstore_entry_name"),
        indexes={"ix_beatstore_entry_wake_at_id": ["wake_at", "id"]},
        sqlite_autoincrement=True,
    )


def _create_run(left: set[str]) -> None:
    _create(
        left,
        "beatstore_run",
        sa.Column("id", BigId, nullable=False),
        sa.Column("entry_id", sa.BigInteger, nullable=False),
        sa.Column("entry_name", Name(255), nullable=False),
        sa.Column("due_at", Instant, nullable=False),
        sa.Column("attempt", sa.Integer, server_default="1", nullable=False),
        sa.Column("task_id", Name(155), nullable=False),
        sa.Column("state", Name(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("first_missed_at", Instant),
        sa.Column("missed_count", sa.Integer, server_default="0", nullable=False),
        sa.Column("claimed_by", Name(36)),
        sa.Column("wake_at", Instant),
        sa.Column("sent_at", Instant),
        sa.Column("started_at", Instant),
        sa.Column("finished_at", Instant),
        sa.Column("worker", Name(255)),
        sa.Column("error", sa.Text),
        sa.Column("traceback", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_beatstore_run"),
        sa.UniqueConstraint(
            "entry_id", "due_at", "attempt", name="uq_beatstore_run_entry_id_due_at_attempt"
        ),
        indexes={
            "ix_beatstore_run_wake_at_id": ["wake_at", "id"],
            "ix_beatstore_run_due_at": ["due_at"],
        },
        sqlite_autoincrement=True,
    )


def _create_dependency(left: set[str]) -> None:
    _create(
        left,
        "beatstore_dependency",
        sa.Column("downstream_id", BigId, nullable=False),
        sa.Column("upstream_id", BigId, nullable=False),
        sa.Column("on", Name(16), server_default="success", nullable=False),
        sa.Column("first_free", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("align", Name(16), server_default="latest", nullable=False),
        sa.Column("consumed_seq", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("on_upstream_failure", Name(16), server_default="wait", nullable=False),
        sa.Column("timeout_s", sa.Float(53)),
        sa.PrimaryKeyConstraint("downstream_id", "upstream_id", name="pk_beatstore_dependency"),
        _of_entry("beatstore_dependency", "downstream_id"),
        _of_entry("beatstore_dependency", "upstream_id"),
        indexes={"ix_beatstore_dependency_upstream_id": ["upstream_id"]},
    )


def _create_small_tables(left: set[str]) -> None:
    _create(
        left,
        "beatstore_tag",
        sa.Column("entry_id", BigId, nullable=False),
        sa.Column("tag", Name(64), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "tag", name="pk_beatstore_tag"),
        _of_entry("beatstore_tag", "entry_id"),
        indexes={"ix_beatstore_tag_tag": ["tag"]},
    )
    _create(
        left,
        "beatstore_audit",
        sa.Column("id", BigId, nullable=False),
        sa.Column("at", Instant, server_default=now(), nullable=False),
        sa.Column("actor", Name(255), nullable=False),
        sa.Column("action", Name(32), nullable=False),
        sa.Column("entry", Name(255), nullable=False),
        sa.Column("before", Json),
        sa.Column("after", Json),
        sa.PrimaryKeyConstraint("id", name="pk_beatstore_audit"),
        indexes={"ix_beatstore_audit_entry_at": ["entry", "at"]},
        sqlite_autoincrement=True,
    )
    _create(
        left,
        "beatstore_beat",
        sa.Column("id", Name(36), nullable=False),
        sa.Column("host", Name(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("version", Name(64), nullable=False),
        sa.Column("tzdata", Name(32), nullable=False),
        sa.Column("started_at", Instant, server_default=now(), nullable=False),
        sa.Column("heartbeat_at", Instant, server_default=now(), nullable=False),
        sa.Column("tick_s", sa.Float(53)),
        sa.Column("planned", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("sent", sa.BigInteger, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_beatstore_beat"),
    )


def _of_entry(table: str, column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], ["beatstore_entry.id"], name=f"fk_{table}_{column}", ondelete="CASCADE"
    )


# The edit trigger. An UPDATE that leaves `wake_at` alone and changes what the rule reads
# wakes the entry. The edit must not fire for occurrences before it, so the cursor moves to
# now as well, where the occurrences became other ones or the entry was resumed; but an
# edited one-shot has one occurrence, which is not accounted for, even where it is late.
# Beat's own updates set `wake_at`, and pay for one comparison.

_PLAN = ("kind", "spec", "timezone", "start_at")
_RULE = (*_PLAN, "end_at", "max_runs", "jitter_s", "misfire", "grace_s", "state")


def _row(version: str, columns: tuple[str, ...]) -> str:
    return f"({', '.join(f'{version}.{name}' for name in columns)})"


def _same(columns: tuple[str, ...]) -> str:
    return f"({_row('OLD', columns)} <=> {_row('NEW', columns)})"


def _sqlite_trigger() -> None:
    now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    op.execute(
        f"""
        CREATE TRIGGER beatstore_entry_edit AFTER UPDATE OF {", ".join(_RULE)} ON beatstore_entry
        WHEN OLD.wake_at IS NEW.wake_at AND {_row("OLD", _RULE)} IS NOT {_row("NEW", _RULE)}
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


def _mysql_trigger() -> None:
    # One statement, so that a script needs no DELIMITER; it assigns from left to right, so
    # the cursor comes first, while NEW.wake_at is still what the UPDATE made it.
    edited = f"OLD.wake_at <=> NEW.wake_at AND NOT {_same(_RULE)}"
    create = f"""
        CREATE TRIGGER beatstore_entry_edit BEFORE UPDATE ON beatstore_entry FOR EACH ROW
        SET NEW.cursor_at = CASE
                WHEN NOT ({edited} AND OLD.cursor_at <=> NEW.cursor_at) THEN NEW.cursor_at
                WHEN NOT {_same(_PLAN)}
                    THEN CASE WHEN NEW.kind <> 'once' THEN UTC_TIMESTAMP(6) END
                WHEN OLD.state <> 'active' AND NEW.state = 'active' THEN UTC_TIMESTAMP(6)
                ELSE NEW.cursor_at
            END,
            NEW.wake_at = CASE WHEN {edited} THEN '{_EPOCH}' ELSE NEW.wake_at END
        """
    try:
        op.execute("DROP TRIGGER IF EXISTS beatstore_entry_edit")
        op.execute(create)
    except sa.exc.DBAPIError as error:
        if not _refused(error):
            raise
        _logger.warning(
            "This server refused to make a trigger (%s). Everything else is in place, but here an "
            "entry edited by plain SQL must be woken by the same statement: UPDATE beatstore_entry "
            "SET spec = '0 3 * * *', cursor_at = UTC_TIMESTAMP(6), wake_at = '1970-01-01' WHERE "
            "name = 'report' (for a one-shot: cursor_at = NULL). Edits by beatstore's own API and "
            "commands, and INSERTs, need nothing.",
            error.orig,
        )


def _refused(error: sa.exc.DBAPIError) -> bool:
    """Say whether a MySQL server refused for want of a privilege, or for its binary log.

    1044, 1142 and 1227: the user may not; 1419: without `log_bin_trust_function_creators`,
    a server that writes a binary log asks for SUPER.
    """
    return _code(error) in (1044, 1142, 1227, 1419)


def _code(error: sa.exc.DBAPIError) -> object:
    """Return MySQL's number of an error."""
    return getattr(error.orig, "errno", None) or (error.orig.args if error.orig else (0,))[0]


def _postgresql() -> None:
    # Each run changes its entry once and itself several times, and the rows that are dead lie
    # where a tick looks. The usual fifth of a million rows is too many to wait for.
    for name in ("entry", "run"):
        op.execute(
            f"""
            ALTER TABLE beatstore_{name} SET (
                autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.01,
                autovacuum_analyze_scale_factor = 0.02)
            """
        )
    # The clock's time, not the statement's: an edit may wait long for a beat to let go of the row,
    # and the cursor must not go back before what that beat has accounted for meanwhile.
    op.execute(
        f"""
        CREATE FUNCTION beatstore_entry_edit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.wake_at := '{_EPOCH}+00';
            IF OLD.cursor_at IS NOT DISTINCT FROM NEW.cursor_at THEN
                IF {_row("OLD", _PLAN)} IS DISTINCT FROM {_row("NEW", _PLAN)} THEN
                    NEW.cursor_at := CASE WHEN NEW.kind <> 'once' THEN clock_timestamp() END;
                ELSIF OLD.state <> 'active' AND NEW.state = 'active' THEN
                    NEW.cursor_at := clock_timestamp();
                END IF;
            END IF;
            PERFORM pg_notify('beatstore', '');
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        f"""
        CREATE TRIGGER beatstore_entry_edit BEFORE UPDATE ON beatstore_entry FOR EACH ROW
        WHEN (OLD.wake_at IS NOT DISTINCT FROM NEW.wake_at
            AND {_row("OLD", _RULE)} IS DISTINCT FROM {_row("NEW", _RULE)})
        EXECUTE FUNCTION beatstore_entry_edit()
        """
    )
    op.execute(
        """
        CREATE FUNCTION beatstore_notify() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('beatstore', '');
            RETURN NULL;
        END $$
        """
    )
    # Commits that notify queue up behind one lock of the whole server, so a row that is due
    # later stays silent: the beat that sleeps wakes in time for it by itself. However many
    # due rows one transaction inserts, PostgreSQL sends the notification once.
    for name in ("entry", "run"):
        op.execute(
            f"""
            CREATE TRIGGER beatstore_{name}_due AFTER INSERT ON beatstore_{name} FOR EACH ROW
            WHEN (NEW.wake_at <= clock_timestamp() + interval '1 second')
            EXECUTE FUNCTION beatstore_notify()
            """
        )
