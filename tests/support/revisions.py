"""What Alembic proposes, and what tables there are."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa

__all__ = ["read_revision", "set_revision", "tables"]


def read_revision(versions: Path) -> dict[str, set[str]]:
    """Return by operation what the newest revision in a directory upgrades."""
    newest = max(versions.glob("*.py"), key=lambda path: path.stat().st_mtime_ns)
    upgrade = newest.read_text().partition("def upgrade")[2].partition("def downgrade")[0]
    found: dict[str, set[str]] = {}
    for operation, name, rest in re.findall(r"\bop\.(\w+)\(\s*'?(\w+)(.*)", upgrade):
        schema = re.search(r"schema='(\w+)'", rest)
        found.setdefault(operation, set()).add(f"{schema[1]}.{name}" if schema else name)
    return found


def tables(url: str) -> set[str]:
    """Name the tables of a database."""
    engine = sa.create_engine(url)
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def set_revision(url: str, revision: str) -> None:
    """Write another revision into a migrated database."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        statement = sa.text("UPDATE beatstore_version SET version_num = :n")
        connection.execute(statement, {"n": revision})
    engine.dispose()
