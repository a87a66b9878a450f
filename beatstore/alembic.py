"""A hook for an application whose own Alembic works on the database that beatstore uses.

`alembic revision --autogenerate` proposes to drop every table that its models do not name.
This hook excludes beatstore's tables, which have migrations of their own (`Store.migrate`):
autogenerate neither drops them, nor creates or alters them where the application's metadata
contains them. In `env.py`:

    from beatstore.alembic import include_object

    context.configure(connection=connection, target_metadata=target_metadata,
                      include_object=include_object)

Invariants:
    * Only tables with the exact names of beatstore's tables are excluded, in any schema; any
      other table whose name starts with `beatstore_` is the application's.
    * Importing this imports no Alembic.
"""

from __future__ import annotations

from beatstore.database.models import VERSION_TABLE, Base

__all__ = ["include_object"]

_TABLES = frozenset({*Base.metadata.tables, VERSION_TABLE})


def include_object(
    object_: object, name: str | None, type_: str, reflected: bool, compare_to: object
) -> bool:
    """Return False for beatstore's tables, functions and triggers, so autogenerate skips them.

    This is Alembic's hook `include_object`. It skips the indexes and constraints of those
    tables too. If you have a hook of your own, call both:

        def include_object(*given):
            return mine(*given) and beatstore.alembic.include_object(*given)

    The hook `include_name` is not enough: it only filters what is in the database, so
    autogenerate would create the tables that are in the application's metadata.

    Args:
        object_: the table, index, …; unused.
        name: its name, without the schema.
        type_: "table", "index", …; extensions of Alembic add "function" and "trigger".
        reflected: whether it comes from the database, not from the metadata.
        compare_to: what it is compared with; unused.
    """
    if type_ == "table":
        return name not in _TABLES
    if type_ in ("function", "trigger") and reflected and name:
        # alembic_utils names it "public.beatstore_entry_edit()", and would drop it too.
        return not name.rpartition(".")[2].startswith("beatstore_")
    return True
