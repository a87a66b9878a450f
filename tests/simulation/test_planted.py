"""The list of planted faults fits the code it is to be planted in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutants import planted, sought
from tests.simulation.planted import MUTANTS, Mutant

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant.name))
def test_a_fault_can_be_planted(mutant: Mutant) -> None:
    """Its place is in the file once, and what stands there instead is Python."""
    source = (_ROOT / mutant.file).read_text()
    faulty = mutant.applied(source)
    assert faulty != source
    compile(faulty, mutant.file, "exec")


def test_there_are_enough() -> None:
    """At least forty faults, each with a name and a reason of its own."""
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.why.endswith(".") for mutant in MUTANTS)


def test_the_copy_with_the_fault_is_what_runs(tmp_path: Path) -> None:
    """A process that is started there imports the copy, not what is installed."""
    planted(MUTANTS[0], tmp_path)
    asked = "import beatstore.tick.mark as mark; print(mark.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "beatstore/tick/mark.py")


def test_a_fault_is_sought_and_found() -> None:
    """The first that breaks every schedule is found at once, and said in words."""
    mutant = next(one for one in MUTANTS if one.name == "plan-claim-never-expires")
    result = sought(mutant, 20)
    assert result.after is not None
    assert "nobody will look at it" in result.said
