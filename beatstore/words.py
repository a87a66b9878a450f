"""Suggestions for misspelt words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

__all__ = ["misspelt", "nearest", "similar"]

#: How alike a word must be to one that was perhaps meant, from 0 to 1.
_ALIKE = 0.5

#: The most characters of a word that are compared.
_LONGEST = 300


def nearest(word: object, known: Iterable[str]) -> str:
    """Return the known word that is most similar to `word`."""
    given = str(word).strip().lower()[:_LONGEST]
    return max(known, key=lambda one: SequenceMatcher(None, given, one.lower()).ratio())


def similar(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that `word` is perhaps meant to be; None if it is like none of them."""
    given, near = str(word).strip().lower()[:_LONGEST], nearest(word, known)
    return near if SequenceMatcher(None, given, near.lower()).ratio() >= _ALIKE else None


def misspelt(column: str, given: object, known: Iterable[str]) -> str | None:
    """Return the error for a column whose value is not one of `known`, or None if it is."""
    words = tuple(known)
    if given in words:
        return None
    wanted = f"{column}: expected one of {', '.join(words)}"
    near = similar(given, words)
    return f"{wanted}, got {given!r:.80}" + (f"; write {near!r}" if near else "")
