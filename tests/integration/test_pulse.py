"""A beat's pulse: whether it ticks is known on its host, whatever else is away or wrong."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery

from beatstore import Once, Store
from beatstore.beat.once import tick
from beatstore.beat.pulse import DIRECTORY, Pulse, directory, signs
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import BrokerError, UnavailableError
from beatstore.tick.claims import Outcome
from tests.support.brokers import Broker
from tests.support.command import Command, Done
from tests.support.harness.inprocess import new_app, running
from tests.support.marks import on_sqlite
from tests.support.written import NOON


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let pulses be where no other test's are."""
    monkeypatch.setenv(DIRECTORY, str(tmp_path / "pulses"))
    return tmp_path / "pulses"


def check(*arguments: str) -> Done:
    """Call `check --self` as a probe does: without a database, or an app."""
    command = Command("")
    command.arguments = []
    return command("check", "--self", *arguments)


def written(place: Path, pid: int, silent_s: float, sleeps_s: float = 1.0) -> Path:
    """Write the file of a beat that ticked so long ago."""
    place.mkdir(exist_ok=True)
    path = place / f"beat-{socket.gethostname()}-{pid}"
    path.write_text(f"{time.monotonic() - silent_s:020.3f} {sleeps_s:012.3f}\n")
    return path


def next_pulse(scheduler: DBScheduler) -> None:
    """Let the next tick write, though the last one has just written."""
    scheduler._pulse._due = 0.0


@on_sqlite
def test_a_beat_that_ticks_is_found(scheduler: DBScheduler, place: Path) -> None:
    """From its first tick on until it is closed; before and after, no beat of this host ticks."""
    before = check()
    assert (before.code, before.out) == (
        1,
        f"no beat of this host ticks: there is no heartbeat file in {place}\n",
    )
    scheduler.tick()
    assert (check().code, check("--pid", str(os.getpid())).code) == (0, 0)
    assert check().out == f"the beat with pid {os.getpid()} ticked 0 s ago\n"
    scheduler.close()
    scheduler.close()
    assert (check().code, list(place.iterdir())) == (1, [])


AWAY: dict[str, Callable[[DBScheduler], None]] = {
    "database": lambda beat: setattr(beat.queue, "look", _raiser(UnavailableError("gone"))),
    "broker": lambda beat: setattr(beat.sender, "held", _raiser(BrokerError("gone"))),
    "tables": lambda beat: setattr(beat.queue, "look", _raiser(ValueError("no such column"))),
}


def _raiser(error: Exception) -> Callable[..., None]:
    def raises(*_: object) -> None:
        raise error

    return raises


@on_sqlite
@pytest.mark.parametrize("what", AWAY)
def test_an_outage_is_no_reason_for_a_restart(
    scheduler: DBScheduler, place: Path, what: str
) -> None:
    """A beat that waits for its database, its broker or a migration ticks, and is left alone."""
    scheduler.store.add("a", "tests.note", Once(NOON))
    scheduler.tick()
    written(place, os.getpid(), 1000)
    assert check().code == 1
    AWAY[what](scheduler)
    next_pulse(scheduler)
    assert scheduler.tick() > 0
    assert check().code == 0


def test_a_beat_that_never_met_its_database_ticks(memory_broker: Broker, tmp_path: Path) -> None:
    """Started in an outage, it is not restarted for that."""
    with running(new_app(memory_broker, f"sqlite:///{tmp_path}/no/such.db")) as scheduler:
        scheduler.tick()
        assert check().code == 0


@on_sqlite
def test_a_long_tick_shows_its_pulse(
    scheduler: DBScheduler, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat that sends batch after batch in one tick does not look as if it hung."""
    for module in ("beatstore.tick.tick", "beatstore.beat.sender"):
        monkeypatch.setattr(f"{module}.BATCH", 1)
    seen = []
    mark = scheduler.queue.mark

    def settled(outcomes: list[Outcome]) -> list[Outcome]:
        left = mark(outcomes)
        seen.append([sign.silent_s < 500 for sign in signs()])
        written(place, os.getpid(), 1000)
        next_pulse(scheduler)
        return left

    monkeypatch.setattr(scheduler.queue, "mark", settled)
    for name in ("a", "b", "c"):
        scheduler.store.add(name, "tests.note", Once(NOON))
    scheduler.tick()
    assert seen == [[True], [True], [True]]


def test_a_beat_that_hangs_is_found(place: Path) -> None:
    """It has not ticked for longer than it may; how long that is, the caller says."""
    written(place, 7, 130.5)
    found = check()
    assert found.code == 1
    assert found.out == (
        "no beat of this host ticks: the beat with pid 7 ticked 2 min 10 s ago "
        "(2 min 1 s allowed)\n"
    )
    assert check("--max-silence", "5m").code == 0
    facts = check("--json").json
    assert (facts["healthy"], facts["beats"][0]["pid"]) == (False, 7)
    assert facts["beats"][0]["silent_s"] > 130


def test_a_beat_that_sleeps_long_does_not_hang(place: Path) -> None:
    """How long it may sleep between two ticks stands in its file, and is allowed for."""
    written(place, 7, 350, sleeps_s=300)
    assert check().code == 0


def test_of_several_beats_one_can_be_asked_for(place: Path) -> None:
    """One that ticks is enough, but where the process is named."""
    written(place, 7, 1000)
    written(place, 8, 1)
    assert (check().code, check("--pid", "8").code, check("--pid", "7").code) == (0, 0, 1)
    missing = check("--pid", "9")
    assert (missing.code, "no beat with pid 9 on this host ticks" in missing.out) == (1, True)


def test_another_host_is_another_s_business(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead beat elsewhere restarts nobody here, and a live one there helps nobody here."""
    written(place, 1, 1)
    monkeypatch.setattr("socket.gethostname", lambda: "pod-x7k2/1")
    assert check().code == 1
    Pulse().beat(1.0)
    assert check().code == 0
    assert (place / f"beat-pod-x7k2_1-{os.getpid()}").exists()


def test_a_file_from_before_the_host_was_started_is_not_fresh(place: Path) -> None:
    """The clock of a host begins anew with it."""
    before = written(place, 7, -5000)
    assert check().code == 1
    old, torn = written(place, 8, 90_000), place / f"beat-{socket.gethostname()}-9"
    torn.write_text("")
    Pulse().beat(1.0)
    assert not before.exists()
    assert not old.exists()
    assert [sign.pid for sign in signs()] == [os.getpid()]


def test_the_pulse_comes_every_few_seconds(place: Path) -> None:
    """A beat that ticks a hundred times a second does not write as often."""
    pulse = Pulse()
    pulse.beat(1.0)
    path = written(place, os.getpid(), 60)
    pulse.beat(1.0)
    assert signs()[0].silent_s > 59
    path.unlink()  # by somebody who tidies up
    pulse._due = 0.0
    pulse.beat(1.0)
    assert path.exists()
    shutil.rmtree(place)
    for _ in range(2):
        pulse._due = 0.0
        pulse.beat(1.0)
    assert path.exists()


def test_a_place_that_can_not_be_written_to_is_said_once(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beat goes on without; the log says what to set."""
    place.write_text("a file, where the directory should be")
    pulse = Pulse()
    for _ in range(3):
        pulse._due = 0.0
        pulse.beat(1.0)
    [record] = [one for one in caplog.records if one.levelname == "WARNING"]
    assert record.getMessage().endswith(f"set {DIRECTORY} to a directory that beat can write to")
    pulse.end()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows gives each user a place")
def test_nobody_else_can_feign_a_pulse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The directory in a place that all users share is believed only if it is this user's."""
    monkeypatch.delenv(DIRECTORY)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    pulse = Pulse()
    pulse.beat(1.0)
    assert directory() == tmp_path / f"beatstore-{os.geteuid()}"
    assert directory().stat().st_mode & 0o777 == 0o700
    assert len(signs()) == 1
    somebody = SimpleNamespace(st_uid=os.geteuid() + 1)
    monkeypatch.setattr("pathlib.Path.lstat", lambda path: somebody)
    assert signs() == []
    Pulse().beat(1.0)
    assert "belongs to another user" in caplog.text


def test_options_of_the_other_kind_of_check_are_refused() -> None:
    """What one kind of check does not look at, it does not take."""
    done = check("--no-beat")
    assert (done.code, "--no-beat does not go with --self" in done.err) == (2, True)
    command = Command("sqlite://")
    done = command("check", "--pid", "7")
    assert (done.code, "--pid needs --self" in done.err) == (2, True)


@on_sqlite
def test_a_tick_without_a_beat_leaves_no_pulse(app_of_tick: Celery, place: Path) -> None:
    """What a system's cron starts is no beat that could hang, also while it sends a lot."""
    store = Store.from_app(app_of_tick)
    for number in range(150):
        store.add(f"e{number}", "tests.note", Once(NOON))
    store.close()
    assert tick(app_of_tick).sent == 150
    assert not place.exists()


@pytest.fixture
def app_of_tick(memory_broker: Broker, migrated_url: str) -> Celery:
    """Return an app for one tick."""
    return new_app(memory_broker, migrated_url, result_expires=None)
