"""Small faults, planted one at a time: the simulator must find each.

`python -m tests.simulation.mutants [NAME …]`, or `make mutants`, plays schedules on a copy of
beatstore with one fault in it, until one breaks a rule. Each fault is one that a slip of a hand
could make, and breaks a promise of the documentation.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.planted import MUTANTS, Mutant

__all__ = ["Result", "main", "planted", "sought"]

_ROOT = Path(__file__).parents[2]

#: What is copied.
_COPIED = ("beatstore", "migrations", "tests/__init__.py", "tests/support", "tests/simulation")

#: How long the search for one fault may take, in seconds: one may make a schedule endless.
_LIMIT = 3_600

_FOUND = re.compile(r"violation in seed \d+ after (\d+) schedules")


@dataclass(frozen=True)
class Result:
    """What came of one fault: after how many schedules it was found, and what was said."""

    mutant: Mutant
    after: int | None
    seconds: float
    said: str


def planted(mutant: Mutant, into: Path) -> None:
    """Write a copy of beatstore with the fault, and of the simulator, into an empty directory."""
    for name in _COPIED:
        if (_ROOT / name).is_dir():
            shutil.copytree(_ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (into / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(_ROOT / name, into / name)
    path = into / mutant.file
    path.write_text(mutant.applied(path.read_text()))


def sought(mutant: Mutant, schedules: int) -> Result:
    """Play up to so many schedules on a copy with the fault."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="beatstore-mutant-") as directory:
        planted(mutant, Path(directory))
        command = ["-m", "tests.simulation", "--jobs", "1", "--no-shrink"]
        done = subprocess.run(
            [sys.executable, *command, "--seeds", str(schedules)],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": directory, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT,
        )
    found = _FOUND.search(done.stdout)
    said = done.stdout.partition("\n")[0]
    if found is None and "no violation" not in done.stdout:
        # A copy that can't run breaks no rule: the fault is not found, and the others go on.
        lines = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        said = f"the simulator did not run: {lines[-1] if lines else done.returncode}"
    after = int(found[1]) if found else None
    return Result(mutant, after, time.monotonic() - began, said)


def main(given: list[str] | None = None) -> int:
    """Seek the faults that are named, or all, and print what came of each."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="which faults; none: all")
    parser.add_argument("--schedules", type=int, default=10_000, help="the most for each")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    arguments = parser.parse_args(given)
    unknown = set(arguments.names) - {one.name for one in MUTANTS}
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    chosen = [one for one in MUTANTS if not arguments.names or one.name in arguments.names]
    missed = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(lambda one: sought(one, arguments.schedules), chosen):
            missed += result.after is None
            after = "NOT FOUND" if result.after is None else str(result.after)
            print(
                f"{result.mutant.name:32} {after:>9} {result.seconds:6.0f} s  {result.said[:120]}"
            )
            sys.stdout.flush()
    print(f"{len(chosen) - missed} of {len(chosen)} faults found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
