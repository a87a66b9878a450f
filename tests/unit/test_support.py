"""What the tests themselves lean on: waiting with a deadline, and skipping out loud."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from beatstore.models import RunModel
from tests.support.absent import absent, given_url, required
from tests.support.harness.diamond import final_runs
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process, below, stopped
from tests.support.wait import wait_until


def test_waiting_ends_with_the_answer() -> None:
    """The first truthy answer ends the wait and is returned."""
    answers = iter([None, 0, "", "here"])
    assert wait_until(lambda: next(answers), 5, interval=0) == "here"


def test_waiting_asks_once_more_at_the_end() -> None:
    """Even a wait of no time at all asks once."""
    assert wait_until(lambda: True, 0)


def test_waiting_says_what_for() -> None:
    """A wait that is given up says what it waited for, as it is at the end."""
    seen: list[int] = []
    with pytest.raises(AssertionError, match=r"gave up after 0\.05 s: 3 of them"):
        wait_until(lambda: seen.append(1), 0.05, lambda: "3 of them", interval=0.01)
    assert seen


def test_what_is_missing_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing server skips the test, with the reason."""
    monkeypatch.setenv("BEATSTORE_TEST_REQUIRE", "postgresql")
    with pytest.raises(pytest.skip.Exception, match="no mariadb: nobody answers"):
        absent("mariadb", "nobody answers")


def test_what_is_required_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing server fails the test where it is required, by any of its names."""
    monkeypatch.setenv("BEATSTORE_TEST_REQUIRE", "mysql, AMQP")
    assert required() == {"mariadb", "rabbitmq"}
    with pytest.raises(pytest.fail.Exception, match="mariadb is required"):
        absent("mariadb", "nobody answers")


@pytest.mark.parametrize(
    ("value", "given"), [(None, None), ("", None), ("None", ""), ("redis://r", "redis://r")]
)
def test_a_server_may_be_given_or_refused(
    monkeypatch: pytest.MonkeyPatch, value: str | None, given: str | None
) -> None:
    """A URL is taken as it is, `none` refuses the machine's server, nothing says nothing."""
    if value is None:
        monkeypatch.delenv("BEATSTORE_TEST_REDIS_URL", raising=False)
    else:
        monkeypatch.setenv("BEATSTORE_TEST_REDIS_URL", value)
    assert given_url("REDIS") == given


def test_ports_are_below_those_of_clients() -> None:
    """A free port is one that no system hands to an outgoing connection."""
    assert all(20000 <= free_port() < 32768 for _ in range(20))


def test_a_port_is_given_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that another test process was given is passed over, though nothing listens on it."""
    script = "from tests.support.ports import free_port; print(free_port()); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        drawn = iter([taken, taken + 1, taken + 2, taken + 3])
        monkeypatch.setattr(random.SystemRandom, "randint", lambda *_: next(drawn))
        assert free_port() > taken
        other.communicate("\n")


def test_what_is_paused_stands(tmp_path: Path) -> None:
    """On return from `pause` every thread of a process and of its children stands still."""
    script = (
        "import os, threading, time\n"
        "os.fork()\n"
        "for _ in range(8):\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print('ready', flush=True)\n"
    )
    process = Process([sys.executable, "-c", script], log=tmp_path / "log")
    try:
        wait_until(lambda: process.output().count("ready") == 2, 30)
        process.pause()
        assert all(stopped(pid) for pid in (process.pid, *below(process.pid)))
        process.resume()
        wait_until(lambda: not stopped(process.pid), 30)
    finally:
        process.kill9()


def test_a_next_attempt_that_was_cancelled_decides_nothing() -> None:
    """Of a lost run that has ended after all, the diamond counts that end, not the next attempt."""
    due = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
    states = [("late", "succeeded"), ("late", "cancelled"), ("again", "lost"), ("again", "failed")]
    runs: list[Any] = [
        RunModel(entry_name=name, due_at=due, attempt=1 + number % 2, state=state)
        for number, (name, state) in enumerate(states)
    ]
    found = final_runs(runs)
    assert {name: by_due[due].state for name, by_due in found.items()} == {
        "late": "succeeded",
        "again": "failed",
    }
