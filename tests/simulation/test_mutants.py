"""The planted faults fit the code, and `make mutants` says what came of each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import mutants
from tests.simulation.mutants import main, planted, sought
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
    """At least forty faults, each with a name, a place and a reason of its own."""
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)
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


def test_a_fault_of_the_migrations_is_in_the_copy(tmp_path: Path) -> None:
    """A process that is started there makes its triggers by the copy's migrations."""
    planted(next(one for one in MUTANTS if one.name == "sql-edit-asleep"), tmp_path)
    asked = (
        "from beatstore import Store; import sqlite3;"
        "store = Store('sqlite:///made.db'); store.migrate(); store.close();"
        "print(*sqlite3.connect('made.db').execute("
        "\"SELECT sql FROM sqlite_master WHERE name = 'beatstore_entry_edit'\").fetchone())"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "SET wake_at = NULL" in done.stdout


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that no fault has ends with 2: nothing was sought, so nothing was found."""
    with pytest.raises(SystemExit) as ended:
        main(["no-such-fault", "mark-before-send"])
    assert ended.value.code == 2
    assert "no such fault: no-such-fault" in capsys.readouterr().err


def test_a_copy_that_cannot_run_is_not_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault with which nothing starts counts as not found, and the table goes on after it."""
    line = "from __future__ import annotations\n"
    crash = Mutant("crash", "beatstore/tick/mark.py", line, f"{line}raise OSError('no')\n", "It.")
    monkeypatch.setattr(mutants, "MUTANTS", (crash, *MUTANTS))
    assert main(["crash", "mark-before-send", "--schedules", "5", "--jobs", "1"]) == 1
    crashed, found, total = capsys.readouterr().out.splitlines()
    assert "NOT FOUND" in crashed
    assert "did not run: OSError: no" in crashed
    assert "the broker never had its message" in found
    assert total == "1 of 2 faults found"
