"""Schedules of the simulator: some are played here, and that one repeats and shrinks is shown."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beatstore.database import connection
from beatstore.tick import complete, mark
from tests.simulation.broker import CHAIN, GROUP
from tests.simulation.plan import Plan, drawn, printed
from tests.simulation.play import play
from tests.simulation.shrink import rule_of, shrunk
from tests.simulation.virtual import Virtual, installed
from tests.simulation.workers import GUARDED, LATE, PLAIN
from tests.support.marks import on_servers

#: How many seeds one test plays, and the first of each.
_SHARE = 50
_FIRST = range(0, 500, _SHARE)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep what beats and workers say of faults out of the report."""
    logger = logging.getLogger("beatstore")
    was = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(was)


@pytest.mark.parametrize("first", _FIRST)
def test_schedules(first: int) -> None:
    """No schedule of these seeds breaks a rule of the documentation."""
    for seed in range(first, first + _SHARE):
        plan = drawn(seed)
        assert play(plan) == [], printed(plan, f"seed {seed}")


@on_servers
@pytest.mark.usefixtures("database_server")
@pytest.mark.by_turns("first")
@pytest.mark.parametrize("first", [0, 5])
def test_schedules_on_servers(backend: str, first: int) -> None:
    """Nor does one on a server, where rows are locked and processes wait for each other."""
    for seed in range(first, first + 5):
        plan = drawn(seed)
        assert play(plan, backend=backend) == [], printed(plan, f"seed {seed}")


@pytest.mark.by_turns("seed")
@pytest.mark.parametrize("seed", [3, 34, 154])
def test_a_seed_repeats_exactly(seed: int) -> None:
    """Two processes, in which sets have other orders, play a seed in the same way."""
    command = [sys.executable, "-m", "tests.simulation", "--replay", str(seed)]
    said = {
        subprocess.run(
            command,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(said) == 1
    assert len(said.pop().splitlines()) > 30  # the steps, each with where all processes stand


def test_other_threads_keep_their_own_time() -> None:
    """A thread that another test has left neither sees the time of a schedule nor moves it."""
    virtual = Virtual()
    seen: list[float] = []

    def other() -> None:
        vars(connection)["time"].sleep(0.01)
        seen.append(vars(connection)["time"].monotonic())

    with installed(virtual):
        began = virtual.monotonic
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert vars(connection)["time"].monotonic() == began
    assert seen[0] == pytest.approx(time.monotonic(), abs=60)
    assert virtual.wall == 0.0


@pytest.mark.heavy
def test_several_processes_play() -> None:
    """The command plays seeds in two processes, and says how many and how fast."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "30", "--jobs", "2"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no violation in 30 schedules, ")


def test_a_fault_is_found_and_made_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A next attempt that is not made is found, and a few steps are left that show it."""
    monkeypatch.setattr(complete, "add_attempt", lambda *given: True)
    plan = next(plan for plan in map(drawn, range(1_000)) if play(plan))
    rule = rule_of(play(plan))
    short = shrunk(plan, play)
    assert rule_of(play(short)) == rule
    assert len(short.steps) < 12
    assert len(short.entries) == 1


def test_a_printed_plan_is_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed of a failing plan runs as it stands, fails, and passes when it is mended."""
    monkeypatch.setattr(mark, "_mark_sent", lambda *given: None)
    plan = next(plan for plan in map(drawn, range(1_000)) if play(plan))
    space = {"Plan": Plan, "play": play}
    exec(printed(plan, "a mark that is not written"), space)
    pasted = space["test_a_schedule_that_was_wrong"]
    assert callable(pasted)
    with pytest.raises(AssertionError):
        pasted()
    monkeypatch.undo()
    pasted()


def test_schedules_meet_what_they_are_for() -> None:
    """Among a few hundred plans is each order, each kind of entry and each call."""
    plans = [drawn(seed) for seed in range(300)]
    steps = [step for plan in plans for step in plan.steps]
    assert {step[2] for step in steps if step[0] == "order"} == {
        *("cut", "lost", "undo", "refuse", "term"),
    }
    assert {step[0] for step in steps} == {
        *("go", "to", "order", "kill", "time", "clock", "broker", "call", "do"),
    }
    assert len({step[2] for step in steps if step[0] == "call"}) == 26
    kinds = [given.get("schedule", "after") for plan in plans for given in plan.entries.values()]
    assert {str(kind).split()[0] for kind in kinds} == {"every", "once", "*/1", "after"}
    assert {given["task"] for plan in plans for given in plan.entries.values()} == {
        *(PLAIN, GUARDED, LATE, GROUP, CHAIN),
    }
    assert {plan.sends for plan in plans} == {"each", "pipeline", "push", "confirms", "publish"}
    assert {step[1] for step in steps if step[0] == "broker"} == {
        *("down", "up", "lose", "double", "delay", "turn", "foreign", "alarm", "calm"),
    }
    assert {step[2] for step in steps if step[0] == "to"} == {"publish", "answer", "commit"}
    assert {plan.patience for plan in plans} == {1, 2, 4}
    ends = {end for plan in plans for ends in plan.ends.values() for end, _ in ends}
    assert ends == {"succeeded", "failed", "cancelled", "again", "revoked"}
