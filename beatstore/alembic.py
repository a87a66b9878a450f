"""What the application's own Alembic must know where it shares a database with beatstore.

`alembic revision --autogenerate` proposes to drop every table that its models do not name.
beatstore's tables have migrations of their own (`Store.migrate`), so the application's
leave them alone, in both directions: they are not dropped, and where the application's
metadata holds them too, they are neither created nor altered. In `env.py`:

    from beatstore.alembic import include_object

    context.configure(connection=connection, target_metadata=target_metadata,
                      include_object=include_object)

Invariants:
    * A table is beatstore's by its whole name, in whatever schema; another table whose name
      begins with `beatstore_` is the application's.
    * Importing this imports no Alembic.
"""

from __future__ import annotations

from beatstore.database.models import VERSION_TABLE, Base

__all__ = ["include_object"]

_TABLES = frozenset({*Base.metadata.tables, VERSION_TABLE})


def include_object(
    object_: object, name: str | None, type_: str, reflected: bool, compare_to: object
) -> bool:
    """Say whether autogenerate may look at an object: at all but beatstore's own.

    This is Alembic's hook `include_object`. The indexes and constraints of a table that is
    left out are left out with it. If you have a function of your own, ask both:

        def include_object(*given):
            return mine(*given) and beatstore.alembic.include_object(*given)

    `include_name` would not do: it is asked about the database only, so tables that are in
    the application's metadata would be created again.

    Args:
        object_: the table, index, …; it is not looked at.
        name: its name, without the schema.
        type_: "table", "index", …; extensions of Alembic add "function" and "trigger".
        reflected: whether it was found in the database, and not in the metadata.
        compare_to: what it is compared with; it is not looked at.
    """
    if type_ == "table":
        return name not in _TABLES
    if type_ in ("function", "trigger") and reflected and name:
        # alembic_utils writes "public.beatstore_entry_edit()", and would drop that as well.
        return not name.rpartition(".")[2].startswith("beatstore_")
    return True
