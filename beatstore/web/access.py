"""Who may see the dashboard, and what they may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from beatstore.records import Entry

__all__ = ["ANONYMOUS", "Actor", "Authorize"]


@dataclass(frozen=True, slots=True)
class Actor:
    """A person who uses the dashboard.

    Attributes:
        name: who they are; the audit names them with every change.
        can_write: whether they may change entries and runs at all.
        allows: asked with an action ("pause", "change", …) and the entry, with its tags, whether
            they may do that; None: they may. It is not asked unless `can_write` is true. For a
            new entry it is asked with the action "add" and None.
    """

    name: str
    can_write: bool = False
    allows: Callable[[str, Entry | None], bool] | None = None

    def may(self, action: str, entry: Entry | None) -> bool:
        """Return whether they may do something to an entry."""
        return self.can_write and (self.allows is None or self.allows(action, entry))


#: Takes the framework's request, and returns who it comes from; None refuses the request.
Authorize: TypeAlias = Callable[[Any], Actor | None]

#: Whoever reaches a dashboard without `authorize`: they can read.
ANONYMOUS = Actor("anonymous")
