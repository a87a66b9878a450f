"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}

Names carry no schema: the connection's unqualified names mean the right one. SQLite and
PostgreSQL undo a failed upgrade; MySQL can't, so there a second run must get through what
the first one has done already. Where SQLite can't alter a table, a batch makes it anew: the
table's triggers are gone then, and the rows that refer to it are deleted by their cascade.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """TODO: say what the tables gain."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """TODO: say what is lost."""
    ${downgrades if downgrades else "pass"}
