"""Run it: `python -m tests.chaos --minutes 10 --database mariadb --seed 7`."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.checker import check
from tests.chaos.cluster import BROKERS, DATABASES
from tests.chaos.ledger import Ledger
from tests.chaos.play import Plan, play
from tests.chaos.report import summary


def main() -> int:
    """Play a run, or check one that was kept; return 1 if a rule is broken."""
    options = _options()
    if options.check is not None:
        directory = options.check
        ledger = Ledger.load(directory / "ledger.json")
    else:
        directory = options.keep or Path(tempfile.mkdtemp(prefix="beatstore-chaos-"))
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            sys.exit(f"--keep: expected a new or empty directory, got {directory}")
        logging.basicConfig(filename=directory / "chaos.log", level=logging.INFO)
        plan = Plan(options.seed, options.minutes, options.database, options.broker)
        print(f"chaos: {plan}; kept in {directory}", flush=True)
        ledger = play(plan, directory)
        ledger.save(directory / "ledger.json")
    violations = check(ledger)
    page = summary(ledger, violations)
    (directory / "summary.txt").write_text(page + "\n")
    print(page)
    return 1 if violations else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10**6))
    parser.add_argument("--minutes", type=float, default=3.0, help="of trouble; 3")
    parser.add_argument("--database", choices=DATABASES, default="postgresql")
    parser.add_argument("--broker", choices=BROKERS, default="redis")
    parser.add_argument("--keep", type=Path, help="a directory for logs, witness and ledger")
    parser.add_argument("--check", type=Path, help="check the ledger of such a directory again")
    return parser.parse_args()


sys.exit(main())
