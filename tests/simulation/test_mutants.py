"""What `tests.simulation.mutants` adds to the planted faults, and how it says what came of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import mutants
from tests.simulation.mutants import ALL, FURTHER, main, planted
from tests.simulation.planted import Mutant

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", FURTHER, ids=lambda mutant: str(mutant.name))
def test_a_further_fault_can_be_planted(mutant: Mutant) -> None:
    """Its place is in the file once, and what stands there instead is Python."""
    source = (_ROOT / mutant.file).read_text()
    faulty = mutant.applied(source)
    assert faulty != source
    compile(faulty, mutant.file, "exec")


def test_names_and_reasons() -> None:
    """Each fault of all has a name, a place and a reason of its own; these go by file."""
    assert len(ALL) >= 40
    assert len({mutant.name for mutant in ALL}) == len(ALL)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in ALL}) == len(ALL)
    assert all(mutant.why.endswith(".") for mutant in FURTHER)
    files = [mutant.file for mutant in FURTHER]
    assert files == sorted(files)


def test_a_fault_of_the_migrations_is_in_the_copy(tmp_path: Path) -> None:
    """A process that is started there makes its triggers by the copy's migrations."""
    planted(next(one for one in FURTHER if one.name == "sql-edit-asleep"), tmp_path)
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
    monkeypatch.setattr(mutants, "ALL", (crash, *FURTHER))
    assert main(["crash", "mark-before-send", "--schedules", "5", "--jobs", "1"]) == 1
    crashed, found, total = capsys.readouterr().out.splitlines()
    assert "NOT FOUND" in crashed
    assert "did not run: OSError: no" in crashed
    assert "the broker never had its message" in found
    assert total == "1 of 2 faults found"
