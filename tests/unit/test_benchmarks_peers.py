"""What the comparison with other schedulers computes, and what it says of each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.figures import PAGES, arithmetic, renewed
from benchmarks.peers.cells import lateness_of, reached
from benchmarks.peers.peer import NAMES, Due, peer_called
from benchmarks.peers.results import Result, medians, read, tables, times_ours, write
from benchmarks.peers.tap import number_in


def burst(peer: str, rate: float | None, kept_in: str = "postgresql", **more: float) -> Result:
    figures = {**more, **({} if rate is None else {"msgs_per_s": rate, "to_bare": rate})}
    said = "" if rate else "did not finish"
    return Result("burst", peer, kept_in, "redis", 100, figures, said)


def test_median_over_turns():
    """Of each figure the median counts, and what one turn lacks does not count as nothing."""
    found = medians(
        [burst("beatstore", 1, due=9), burst("beatstore", 5, due=9), burst("beatstore", 3, due=9)]
    )
    assert [one.figures for one in found] == [{"msgs_per_s": 3, "to_bare": 3, "due": 9}]
    (mixed,) = medians([burst("beatstore", None, due=9), burst("beatstore", 5, due=9)])
    assert mixed.figures == {"msgs_per_s": 5, "to_bare": 5, "due": 9}
    assert mixed.said == "did not finish"


def test_rates_are_cells_of_their_own():
    """Two rates of a steady load are not mixed."""
    steady = [
        Result("steady", "beatstore", "postgresql", "redis", 100, {"rate": rate, "cpu_share": 1})
        for rate in (50, 200)
    ]
    assert len(medians(steady)) == 2


@pytest.mark.parametrize(
    ("theirs", "better"),
    [
        (burst("django-celery-beat", 10), 50),
        (burst("django-celery-beat", 10, "sqlite"), 20),
        (burst("celery-redbeat", 10, "redis"), 50),
        (burst("celery-redbeat", None, "redis"), None),
    ],
)
def test_better_by(theirs: Result, better: float | None):
    """A scheduler is compared with beatstore in the same place, or else on PostgreSQL."""
    ours = [burst("beatstore", 200, "sqlite"), burst("beatstore", 500), burst("beatstore", None)]
    assert times_ours(theirs, [*ours, theirs]) == better


def test_less_is_better_for_seconds():
    """A start that takes twice as long is half as good."""
    ours = Result("start", "beatstore", "postgresql", "redis", 100, {"start_s": 1.0})
    theirs = Result("start", "celery-redbeat", "redis", "redis", 100, {"start_s": 2.0})
    assert times_ours(theirs, [ours, theirs]) == 2


def test_figures_survive_the_file(tmp_path: Path):
    """What is written is read back, and makes the same tables."""
    results = [burst("beatstore", 500, due=100), burst("celery-redbeat", None, "redis", sent=3)]
    write(tmp_path / "a.json", {"machine": "one"}, results)
    about, found = read(tmp_path / "a.json")
    assert about == {"machine": "one"}
    assert found == results
    assert [str(table) for table in tables(found)] == [str(table) for table in tables(results)]
    assert "did not finish" in str(tables(found)[0])


def test_when_a_number_was_reached():
    """The first count that is high enough tells the time; without one it is an error."""
    seen = [(1.0, 10), (2.0, 50), (3.0, 100)]
    assert reached(seen, 50) == 2
    assert reached(seen, 50.5) == 3
    with pytest.raises(ValueError, match="101"):
        reached(seen, 101)


def test_lateness_is_against_the_grid():
    """The second message of an entry is late by its second due time, not by its first message."""
    taken = [(100.5, 0), (105.1, 1), (110.25, 0), (115.0, 1), (120.0, 0)]
    late = lateness_of(taken, first=100.0, count=2, seconds=20)
    assert late == pytest.approx([0.5, 0.1, 0.25, 0.0])


@pytest.mark.parametrize("name", NAMES)
def test_each_scheduler_is_described(name: str):
    """Each scheduler has a name, a place for its entries, and pinned packages."""
    peer = peer_called(name)
    assert peer.name == name
    assert peer.databases
    assert all("==" in one for one in peer.requirements) or name == "beatstore"
    assert peer.settings("a place") or name == "django-celery-beat"


def test_due_entries_ran_a_period_before():
    """An entry that is due at an instant last ran a period earlier."""
    due = Due(1, 1_000_000.5, 10)
    assert (due.first_at - due.last_at).total_seconds() == 10
    assert due.first_at.timestamp() == 1_000_000.5


def test_messages_are_known_by_their_argument():
    """A message's number is its first argument; one without arguments has none."""
    assert number_in([[7], {}, {}]) == 7
    assert number_in([[], {}, {}]) == -1


def test_schedulers_need_no_package_here(tmp_path: Path):
    """The description of a scheduler imports neither its package nor beatstore."""
    shutil.copytree(Path(__file__).parents[2] / "benchmarks", tmp_path / "benchmarks")
    code = (
        "import sys\n"
        "from benchmarks.peers.peer import NAMES, peer_called\n"
        "for name in NAMES: peer_called(name)\n"
        "assert not {'beatstore', 'celery', 'django', 'redbeat', 'sqlalchemy'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.heavy
def test_pictures_are_the_same_each_time(tmp_path: Path):
    """The same results give the same bytes, with a line for each scheduler that has figures."""
    plots = pytest.importorskip("benchmarks.peers.plots", exc_type=ImportError)
    results = [
        burst("beatstore", 500),
        burst("celery-redbeat", 50, "redis"),
        burst("django-celery-beat", None),
    ]
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (file,) = plots.draw(results, tmp_path / name)
        drawn.append(file.read_text())
    assert drawn[0] == drawn[1]
    assert "celery-redbeat" in drawn[0]
    assert "django-celery-beat" not in drawn[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_have_the_figures_of_the_files(page: Path):
    """The tables of a page are those of the recorded files; `python -m benchmarks.figures`."""
    text = page.read_text()
    assert "<!-- figures:" in text
    assert renewed(text) == text


def test_arithmetic():
    """What is needed is computed from what one beat was measured to take."""
    figures = {
        "1 beats: CPU of the beats, µs a message": 100.0,
        "1 beats: CPU of the database, µs a message": 50.0,
        "1 beats: messages per second": 5_000.0,
        "bytes of an entry": 500.0,
        "bytes of a run": 1_000.0,
    }
    found = {row[0]: row[2] for row in arithmetic(figures).rows}
    assert found["one beat, with a core for itself"] == "10,000/s"
    assert found["the entries' table at 10,000,000"] == "5.0 GB"
    assert found["10,000,000 entries, each once an hour"] == "2,778/s"
    assert found["beats for 100,000/s"] == "10 cores"
    assert found["the database for 100,000/s"] == "5 cores"
    assert found["runs of a day at 100,000/s"] == "8.6 TB"
