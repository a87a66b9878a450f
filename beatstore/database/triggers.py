"""The triggers of MySQL and MariaDB, which run as the account that made them.

When that account is dropped, every statement that would fire them is refused: beat plans
nothing, workers report nothing. So a migration makes those anew whose account is gone, or
may be, and a check names them. Other databases know no such thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from beatstore.database.dialects import dialect_of
from beatstore.database.faults import codes
from beatstore.database.tables import ENTRY

__all__ = ["Trigger", "orphaned", "repair"]

#: "The user specified as a definer does not exist."
_NO_DEFINER = 1449

#: An account that may not make triggers, on this server or on this database.
_REFUSED: set[object] = {1044, 1142, 1227, 1419}

_OURS = text(
    """
    SELECT trigger_name, COALESCE(definer, ''), action_timing, event_manipulation,
        event_object_table, action_statement
    FROM information_schema.triggers
    WHERE trigger_schema = COALESCE(:at, DATABASE()) AND trigger_name LIKE 'beatstore\\_%'
    ORDER BY trigger_name
    """
)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger as the server describes it.

    `definer` is an account as in `CURRENT_USER()`, or "" for who may not know.
    """

    name: str
    definer: str
    timing: str
    event: str
    table: str
    body: str


def orphaned(connection: Connection, schema: str | None) -> list[Trigger]:
    """Return our triggers whose account is known to be gone."""
    others = _of_others(connection, schema)
    accounts = {trigger.definer for trigger in others}
    gone = {account for account in accounts if _lives(connection, account) is False}
    if others and not gone and _fires(connection, schema) is False:
        gone = accounts
    return [trigger for trigger in others if trigger.definer in gone]


def repair(connection: Connection, schema: str | None) -> None:
    """Make our triggers anew, in the name of this session's account, where theirs may be gone.

    Where this account may make none, all stays as it is, and a check says what is wrong.
    """
    for trigger in _of_others(connection, schema):
        if not trigger.definer or _lives(connection, trigger.definer) is True:
            continue
        try:
            _make_anew(connection, trigger, schema)
        except DBAPIError as error:
            if not codes(error) & _REFUSED:
                raise
            return


def _of_others(connection: Connection, schema: str | None) -> list[Trigger]:
    if not dialect_of(connection.dialect).triggers_have_definers:
        return []
    mine = connection.scalar(text("SELECT CURRENT_USER()"))
    found = [Trigger(*row) for row in connection.execute(_OURS, {"at": schema})]
    return [trigger for trigger in found if trigger.definer != mine]


def _lives(connection: Connection, account: str) -> bool | None:
    """Say whether an account exists; None: this session may not know."""
    user, _, host = account.rpartition("@")
    of_account = text("SELECT 1 FROM mysql.user WHERE user = :user AND host = :host")
    try:
        return connection.scalar(of_account, {"user": user, "host": host}) is not None
    except DBAPIError:
        return None


def _fires(connection: Connection, schema: str | None) -> bool | None:
    """Say whether the triggers work, by an update that changes nothing; None: unknown."""
    options: dict[str, Any] = {"schema_translate_map": {None: schema}} if schema else {}
    free = ENTRY.select().with_only_columns(ENTRY.c.id).limit(1)
    try:
        entry_id = connection.scalar(
            free.with_for_update(skip_locked=True), execution_options=options
        )
        same = ENTRY.update().where(ENTRY.c.id == entry_id).values(version=ENTRY.c.version)
        connection.execute(same, execution_options=options)
    except DBAPIError as error:
        return False if _NO_DEFINER in codes(error) else None
    return None if entry_id is None else True


def _make_anew(connection: Connection, trigger: Trigger, schema: str | None) -> None:
    """Replace a trigger by the same of this session's account, with no moment without it.

    The new one is made first, under another name: where the server refuses it, the old one
    stays as it is.
    """
    quote = connection.dialect.identifier_preparer.quote
    at = f"{quote(schema)}." if schema else ""
    driver = connection.execution_options(no_parameters=True)

    def create(name: str) -> None:
        driver.exec_driver_sql(
            f"CREATE TRIGGER {at}{quote(name)} {trigger.timing} {trigger.event} "
            f"ON {at}{quote(trigger.table)} FOR EACH ROW {trigger.body}"
        )

    spare = f"{trigger.name}_new"
    driver.exec_driver_sql(f"DROP TRIGGER IF EXISTS {at}{quote(spare)}")
    create(spare)
    driver.exec_driver_sql(f"DROP TRIGGER {at}{quote(trigger.name)}")
    create(trigger.name)
    driver.exec_driver_sql(f"DROP TRIGGER {at}{quote(spare)}")
