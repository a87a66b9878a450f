"""What is asked of edges and runs in SQL, in one place.

Pure: each name is an expression, or makes one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, case, literal_column

from beatstore.database.models import ENDS_WAIT as ENDS_WAIT_SQL
from beatstore.database.tables import DEPENDENCY

__all__ = ["ENDS_WAIT", "NOT_SUCCEEDED", "counter"]

#: Where the index of unfinished and failed runs is partial, it is used only with this term.
NOT_SUCCEEDED: ColumnElement[bool] = literal_column("state <> 'succeeded'")

#: Likewise the index of edges that can end a wait by themselves.
ENDS_WAIT: ColumnElement[bool] = literal_column(ENDS_WAIT_SQL)


def counter(of: Any) -> ColumnElement[int]:
    """Return the counter of an upstream that an edge asks about."""
    on = DEPENDENCY.c.on
    return case(
        (on == "success", of.c.success_seq),
        (on == "failure", of.c.failure_seq),
        else_=of.c.done_seq,
    )
