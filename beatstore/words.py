"""Words that are nearly right, and those that were meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

__all__ = ["misspelt", "nearest"]

#: How much of a word is compared, in characters.
_LONGEST = 300


def nearest(word: object, known: Iterable[str]) -> str:
    """Return that one of the `known` words that is most like `word`; the first of equals."""
    given = str(word).strip().lower()[:_LONGEST]
    return max(known, key=lambda one: SequenceMatcher(None, given, one.lower()).ratio())


def misspelt(column: str, given: object, known: Iterable[str]) -> str | None:
    """Say what to write instead in a column that holds none of its words; None: it does."""
    words = tuple(known)
    if given in words:
        return None
    wanted = f"{column}: expected one of {', '.join(words)}"
    return f"{wanted}, got {given!r:.80}; write {nearest(given, words)!r}"
