"""An entry that waits for what will not happen is named, with what to write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from beatstore import After, Cron, Every, Once
from tests.support.harness.play import Play
from tests.support.harness.ticks import report
from tests.support.stalls import explained, later, stalled
from tests.support.written import HOUR, MINUTE, NOON, alter

pytestmark = pytest.mark.usefixtures("reporting_worker")

HOURLY = Cron("0 * * * *")


def paused(play: Play) -> None:
    """Pause the upstream."""
    play.store.pause("up")


def broken(play: Play) -> None:
    """Spoil the upstream."""
    alter(play.store, "up", state="broken", error="no", wake_at=None)


def cancelled(play: Play) -> None:
    """Let the upstream be over for good, by hand."""
    alter(play.store, "up", state="cancelled", wake_at=None)


def finished(play: Play) -> None:
    """Let the upstream come to its end."""
    alter(play.store, "up", state="finished", wake_at=None)


def removed(play: Play) -> None:
    """Let the upstream be gone, where nobody told."""
    alter(play.store, "down", blocked_by=99_999)


UNLINK = "store.unlink('down', 'up') ends the wait."
OUT_OF_SERVICE = {
    paused: f"'up' to succeed, which is paused: write store.resume('up'); {UNLINK}",
    broken: f"'up' to succeed, which is broken: fix it with store.change('up', …); {UNLINK}",
    cancelled: f"'up' to succeed, which is cancelled, and will not run again: {UNLINK}",
    finished: "'up' to succeed, which is finished, and will not run again: store.trigger('up') "
    f"runs it once more; {UNLINK}",
    removed: "an upstream that was removed: see store.explain('down'), and unlink it.",
}


def test_what_completes_a_due_time_is_a_rerun(play: Play) -> None:
    """A trigger of an upstream is for another due time, so it is not what is advised."""
    play.add("root", Once(NOON + timedelta(hours=1)))
    for name in ("left", "right"):
        play.add(name, after=["root"], max_runs=1)
    play.add("down", after=["left", "right"], max_runs=1)
    play.at("13:00")
    play.end("root")
    play.end("right")
    play.end("left", "failed")
    play.clock.advance(601)
    [said] = [one for one in play.store.status().warnings if "'down'" in one]
    assert said.endswith(
        "for 'left' to succeed, which is finished, and will not run again: "
        "rerun its run of that due time; store.unlink('down', 'left') ends the wait."
    )
    play.store.rerun(play.last("left").id)
    play.tick()
    assert play.end("left") == ["down"]


@pytest.mark.any_database
@pytest.mark.parametrize("state", OUT_OF_SERVICE, ids=lambda state: state.__name__)
def test_an_upstream_that_will_not_run(play: Play, state: Callable[[Play], None]) -> None:
    """Who waits for it is named after ten minutes, with what the upstream is and what to write."""
    play.add("up", Cron("30 0 1 1 *"))
    play.add("down", HOURLY, after=["up"])
    assert play.at("13:00") == []
    state(play)
    others = play.store.status().warnings  # that the upstream is broken
    play.clock.advance(600)
    assert play.store.status().warnings == others
    play.clock.advance(1)
    start = "'down' has been waiting since 2026-01-15 13:00:00 UTC for"
    [said] = [one for one in play.store.status().warnings if one not in others]
    assert said == f"{start} {OUT_OF_SERVICE[state]}"
    assert said in play.store.health().warnings
    assert explained(play, said) in play.store.explain("down").sentences
    play.store.pause("down")
    assert said not in play.store.status().warnings


def test_the_remedies_that_are_named_end_the_wait(play: Play) -> None:
    """What a warning says to write helps."""
    for name in ("one", "two"):
        play.add(f"up-{name}", HOURLY, paused=True)
        play.add(f"down-{name}", HOURLY, after=[f"up-{name}"])
    play.at("13:00")
    later(play, minutes=20)
    assert len(play.store.status().warnings) == 2
    play.store.unlink("down-one", "up-one")
    assert play.tick() == ["down-one"]
    play.store.resume("up-two")
    assert play.at("14:00") == ["up-two", "down-one"]
    assert play.end("up-two") == ["down-two"]
    assert play.store.status().warnings == []


def test_an_upstream_that_is_at_its_last_run_is_waited_for(play: Play) -> None:
    """A one-shot is finished when it is sent, and its task may take hours."""
    play.add("up", Once(NOON + HOUR))
    play.add("down", HOURLY, after=["up"])
    play.at("13:00")
    report(play.store, "started", play.held["up"])
    play.clock.advance(40)  # of its heartbeat
    later(play, minutes=20)
    assert play.store.get("up").state == "finished"
    assert stalled(play, "down") == []


def test_the_upstream_behind_an_upstream_is_found(play: Play) -> None:
    """An entry without a clock, at rest, is not to blame: the one that it waits for is."""
    play.add("root", Once(NOON + MINUTE))
    play.add("mid", after=["root"])
    play.add("down", HOURLY, after=["mid"])
    later(play, minutes=1)
    play.end("root", "failed")
    play.at("13:00")
    later(play, minutes=11)
    assert stalled(play, "down") == [
        "'down' has been waiting since 2026-01-15 13:00:00 UTC for 'mid', which waits for 'root', "
        "which is finished, and will not run again: store.trigger('root') runs it once more; "
        "store.unlink('mid', 'root') ends the wait."
    ]


def test_an_upstream_that_never_succeeds(play: Play) -> None:
    """One failure can be chance; after the second a person is told."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=["up"])
    play.at("13:00")
    play.end("up", "failed")
    later(play, minutes=30)
    assert stalled(play, "down") == []
    play.at("14:00")
    play.end("up", "failed")
    assert stalled(play, "down") == [
        "'down' has been waiting since 2026-01-15 13:00:00 UTC for 'up' to succeed, which has "
        "failed 2 times since: see store.errors('up')."
    ]
    play.at("15:00")
    assert play.end("up") == ["down"]
    play.end("down")
    assert stalled(play, "down") == []


def test_an_upstream_that_is_not_due_yet_is_waited_for(play: Play) -> None:
    """However often the entry's own time comes meanwhile, and through an entry without a clock."""
    play.add("daily", Cron("0 11 * * *"))
    play.add("mid", after=["daily"])
    play.add("down", Every(60), after=["mid"])
    play.add("other", Every(60), after=["daily"])
    for hours in (1, 12, 22):
        play.clock.set(NOON + timedelta(hours=hours, minutes=30))
        play.tick()
        assert stalled(play, "down") == []


def test_a_wait_that_is_longer_than_both_rhythms(play: Play) -> None:
    """Where nothing else is known to be wrong, the time alone tells: three times of each."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[After("up", on="failure")])
    for hour in ("13", "14", "15"):
        play.at(f"{hour}:00")
        play.end("up")
        later(play, minutes=30)
        assert stalled(play, "down") == []
    play.at("16:00")
    play.end("up")
    assert stalled(play, "down") == [
        "'down' has been waiting since 2026-01-15 13:00:00 UTC for 'up' to fail; that is 3 h, "
        "longer than both usually take: see store.explain('up')."
    ]


def test_an_upstream_whose_message_is_gone(play: Play) -> None:
    """Its run was sent, and nobody reports it, while the entry's own time comes and goes."""
    play.add("up", Cron("0 13 * * *"))
    play.add("down", Every(300), after=["up"])
    play.at("13:00")
    later(play, minutes=9)
    assert stalled(play, "down") == []
    later(play, minutes=10)
    last = play.last("up")
    assert stalled(play, "down") == [
        "'down' has been waiting since 2026-01-15 13:00:00 UTC for 'up' to succeed: run "
        f"{last.id} of that upstream was sent at 2026-01-15 13:00:00 UTC, and no worker has "
        f"reported it. If its message is gone, write `beatstore end {last.id} --as failed`."
    ]
    play.store.end(last, "failed")
    alter(play.store, "up", run_timeout_s=3600)
    play.clock.set(NOON + timedelta(days=1, hours=1))
    play.tick()
    later(play, minutes=20)
    [said] = stalled(play, "down")
    assert " If no worker reports by 2026-01-16 14:00:00 UTC, it is marked lost. If" in said


def test_a_few_are_named_and_those_for_good_first(play: Play) -> None:
    """A thousand that wait for a slow upstream do not hide the one that waits for ever."""
    play.add("slow", Cron("0 0 1 1 *"))
    play.add("up", HOURLY, paused=True)
    for number in range(210):
        play.add(f"d{number}", Every(600), after=["slow"])
    later(play, minutes=10)
    play.add("down", Every(600), after=["up"])
    later(play, minutes=10)
    later(play, minutes=30)
    [said] = play.store.status().warnings
    assert said.startswith("'down' has been waiting since ")
