"""Move entries over from the tables of other schedulers."""

from beatstore.moving.importer import Moved, move

__all__ = ["Moved", "move"]
