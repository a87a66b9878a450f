"""One planted fault, as data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutant"]


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, `old` becomes `new`, and `why` says what promise that breaks."""

    name: str
    file: str
    old: str
    new: str
    why: str

    def applied(self, source: str) -> str:
        """Return the source with the fault; `old` must be in it once."""
        if source.count(self.old) != 1:
            raise ValueError(
                f"{self.name}: expected {self.old!r} once in {self.file}, found it "
                f"{source.count(self.old)} times; write more of the lines around it"
            )
        return source.replace(self.old, self.new)
