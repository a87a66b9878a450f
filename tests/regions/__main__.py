"""Run it: `python -m tests.regions`, or `--measure` or `--cut` alone."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.checker import check
from tests.chaos.report import summary
from tests.regions.cuts import CutPlan, play_cuts
from tests.regions.figures import Load, measure, table
from tests.support.absent import Unavailable


def main() -> int:
    """Measure, cut each pair, and print both; return 1 if a rule is broken, 2 if it can't run."""
    options = _options()
    directory = options.keep or Path(tempfile.mkdtemp(prefix="beatstore-regions-"))
    directory.mkdir(parents=True, exist_ok=True)
    print(f"regions: kept in {directory}", flush=True)
    both = not (options.measure or options.cut)
    try:
        if both or options.measure:
            _measured(options, directory)
        return _cut(options, directory) if both or options.cut else 0
    except Unavailable as reason:
        print(f"regions: {reason}", file=sys.stderr)
        return 2


def _measured(options: argparse.Namespace, directory: Path) -> None:
    load = Load(options.seconds, options.kills, options.claim_ttl, options.broker)
    found = []
    for round_trip_ms in options.round_trips:
        own = directory / f"{round_trip_ms:g}-ms"
        own.mkdir()
        found.append(measure(round_trip_ms / 1000, load, own))
    print(table(found, load), flush=True)


def _cut(options: argparse.Namespace, directory: Path) -> int:
    plan = CutPlan(options.seed, options.database, options.broker)
    own = directory / "cuts"
    own.mkdir()
    ledger = play_cuts(plan, own)
    ledger.save(own / "ledger.json")
    violations = check(ledger)
    print(summary(ledger, violations))
    return 1 if violations else 0


def _options() -> argparse.Namespace:
    load, several = Load(), (0.0, 50.0, 150.0)
    parser = argparse.ArgumentParser(prog="python -m tests.regions", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure only")
    parser.add_argument("--cut", action="store_true", help="cut each pair only")
    parser.add_argument("--round-trips", type=float, nargs="+", default=several, metavar="MS")
    parser.add_argument("--seconds", type=float, default=load.seconds, help="of entries due")
    parser.add_argument("--kills", type=int, default=load.kills, help="of beats")
    parser.add_argument("--claim-ttl", type=float, default=load.claim_ttl, help="the setting")
    parser.add_argument("--database", choices=("postgresql", "mariadb"), default="postgresql")
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10**6))
    parser.add_argument("--keep", type=Path, help="an empty directory for logs and the ledger")
    return parser.parse_args()


sys.exit(main())
