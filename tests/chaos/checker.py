"""The rules of the documentation, applied to a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.chaos import accounts, tokens, witnessed
from tests.chaos.ledger import Ledger
from tests.chaos.view import View, Violation

__all__ = ["RULES", "check"]

#: Each rule is a function that yields what breaks it; its docstring is the rule.
RULES: tuple[Callable[[View], Iterator[Violation]], ...] = (
    accounts.unique,
    accounts.occurrences,
    accounts.one_shots,
    accounts.ends,
    accounts.cancelled,
    accounts.attempts,
    accounts.counters,
    tokens.latest,
    tokens.swallowed,
    tokens.same,
    tokens.order,
    tokens.standing,
    witnessed.agreement,
    witnessed.doubles,
    witnessed.overlaps,
    witnessed.asked,
    witnessed.silence,
    witnessed.lateness,
    witnessed.promptness,
    witnessed.stillness,
)


def check(ledger: Ledger) -> list[Violation]:
    """Return all that breaks a rule."""
    view = View(ledger)
    return [violation for rule in RULES for violation in rule(view)]
