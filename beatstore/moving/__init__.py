"""Moving over from other schedulers: their tables are read, and become entries of a source."""

from beatstore.moving.importer import Moved, move

__all__ = ["Moved", "move"]
