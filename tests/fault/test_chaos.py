"""The chaos run, for a minute: `make chaos` plays longer ones.

`BEATSTORE_FAULT_SEED` repeats a run, `BEATSTORE_TEST_MINUTES` makes it longer.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.checker import check
from tests.chaos.play import Plan, play
from tests.chaos.report import summary
from tests.support.absent import Unavailable, absent

MINUTES = float(os.environ.get("BEATSTORE_TEST_MINUTES", "1"))
SEED = int(os.environ.get("BEATSTORE_FAULT_SEED", "0")) or random.randrange(1, 10**6)


@pytest.mark.timeout(600 + MINUTES * 60)
@pytest.mark.parametrize("database", ["postgresql", "mariadb", "sqlite"])
def test_chaos(database: str, tmp_path: Path) -> None:
    """Whatever happens at whatever time, no rule of the documentation is broken."""
    plan = Plan(SEED, MINUTES, database, "redis")
    try:
        ledger = play(plan, tmp_path)
    except Unavailable as reason:
        absent(database, reason)
    violations = check(ledger)
    assert not violations, summary(ledger, violations)
