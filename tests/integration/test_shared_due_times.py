"""Due times that a downstream shares with its upstreams: each accounted for once, by itself."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select

from beatstore import After, Once
from beatstore.models import TokenModel, WaitModel
from beatstore.store.retention import Pruner
from beatstore.tick.claims import Claim
from tests.support.harness.play import NOON, Play
from tests.support.harness.ticks import report

HOURLY = "0 * * * *"
DAY = timedelta(days=1)


def same(name: str, **given: Any) -> After:
    return After(name, align="same", **given)


def take(play: Play, name: str) -> list[Claim]:
    """Return the runs of an entry that are under way, and hold them no more."""
    return play.held.pop(name)


def clear(play: Play) -> None:
    """Delete all that is old, as beat does in its breaks."""
    pruner = Pruner(play.store.database, play.store.settings)
    while play.queue.upkeep.prune(pruner, play.clock.now()):
        pass


def kept(play: Play, table: type) -> int:
    """Count the rows of a table of the account."""
    with play.store.database.session() as session:
        return len(session.execute(select(table)).all())


# -- nothing runs again because it was forgotten ---------------------------------------------


@pytest.mark.quick_on("sqlite")
@pytest.mark.parametrize("on", ["failure", "done"])
def test_what_was_cleared_is_not_sent_again(play: Play, on: str) -> None:
    """The last errors of an upstream stay when its downstream's runs go, and set nothing free."""
    play.add("up", "0 13 * * *")
    play.add("down", after=[same("up", on=on)])
    sent: list[datetime] = []
    for day in range(45):
        play.clock.set(NOON + timedelta(days=day, hours=1))
        play.tick()
        fails = day in (3, 10, 14) or on == "failure"
        play.end("up", "failed" if fails else "succeeded")
        sent += [claim.due_at for claim in play.held.get("down", [])]
        if play.held.get("down"):
            play.end("down")
        clear(play)
    assert len(sent) == len(set(sent)) == 45
    assert kept(play, WaitModel) < 35


def test_a_rerun_of_what_was_cleared_sets_nothing_free(play: Play) -> None:
    """An upstream's run that ends well after all, in a month, is over for its downstream."""
    play.add("up", "0 13 * * *")
    play.add("down", after=[same("up", on="done")])
    play.at("13:00")
    assert play.end("up", "failed") == ["down"]
    play.end("down")
    (first,) = play.store.runs("up")
    play.clock.set(NOON + 32 * DAY)
    play.tick()
    clear(play)
    play.end("up")
    play.held.pop("down")
    play.store.rerun(first.id)
    assert play.tick() == ["up"]
    assert play.end("up") == []


@pytest.mark.heavy
def test_no_due_time_is_lost_however_many_wait(play: Play) -> None:
    """An upstream that is hundreds of runs behind the other is waited for at each due time."""
    play.add("slow", "* * * * *")
    play.add("quick", "* * * * *")
    play.add("down", after=[same("slow"), same("quick")])
    held: list[Claim] = []
    for minute in range(1, 131):
        play.clock.set(NOON + timedelta(minutes=minute))
        play.tick()
        held += take(play, "slow")
        assert play.end("quick") == []
    report(play.store, "succeeded", held)
    assert play.tick() == ["down"] * 130
    assert len({claim.due_at for claim in play.held["down"]}) == 130
    assert kept(play, TokenModel) == 0


def test_what_waits_longer_than_history_is_kept_is_given_up(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    """Due times that its upstreams never came to share are let go, and the log names them."""
    play.add("often", HOURLY)
    play.add("seldom", "0 15 * * *")
    play.add("down", after=[same("often"), same("seldom")])
    for hour in (13, 14, 15):
        play.at(f"{hour}:00")
        play.end("often")
    assert play.end("seldom") == ["down"]
    play.end("down")
    play.store.pause("often")
    play.store.pause("seldom")
    play.clock.set(NOON + 40 * DAY)
    clear(play)
    (said,) = [text for text in caplog.messages if "beatstore_retention" in text]
    assert said.startswith("'down' skips 2 due times, the first at 2026-01-15 13:00:00")
    play.tick()
    assert play.store.get("down").pending_since is None
    assert kept(play, WaitModel) == kept(play, TokenModel) == 0


# -- each by itself --------------------------------------------------------------------------


@pytest.mark.parametrize("often", [HOURLY, "*/15 * * * *"])
@pytest.mark.parametrize("ends", [{"timeout": 600}, {"on_upstream_failure": "skip"}])
def test_another_due_time_ends_no_wait(play: Play, often: str, ends: dict[str, Any]) -> None:
    """What the upstream did for other due times, or by hand, is nothing to this one."""
    play.add("up", often)
    play.add("down", HOURLY, after=[same("up", **ends)])
    play.at("13:00")
    assert play.end("up") == ["down"]
    play.at("14:00")
    assert play.end("up", "failed") == []
    play.store.trigger("up")
    play.at("14:09")
    play.end("up")
    play.at("14:10")
    assert [run[:2] for run in play.history("down")] == [("13:00", "sent"), ("14:00", "skipped")]
    assert play.store.get("down").pending_since is None


def test_waits_are_timed_side_by_side(play: Play) -> None:
    """Each due time waits as long as its edges allow, from when it came due itself."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[same("up", timeout=5400)])
    for when in ("13:00", "14:00", "14:30"):
        play.at(when)
    assert play.history("down") == [("13:00", "skipped", 1)]
    play.at("15:29")
    assert len(play.history("down")) == 1
    play.at("15:30")
    assert play.history("down") == [("13:00", "skipped", 1), ("14:00", "skipped", 1)]


def test_a_failed_due_time_leaves_an_older_one_waiting(play: Play) -> None:
    """It is given up at once, though one before it waits on, and that one runs later."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[same("up", on_upstream_failure="skip")])
    play.add("alarm", after=[After("down", on="failure")])
    play.at("13:00")
    first = take(play, "up")
    play.at("14:00")
    assert play.end("up", "failed") == ["alarm"]
    play.at("15:00")
    third = take(play, "up")
    report(play.store, "succeeded", first)
    assert play.tick() == ["down"]
    report(play.store, "succeeded", third)
    assert play.tick() == ["down"]
    assert play.history("down") == [
        ("13:00", "sent", 0),
        ("14:00", "skipped", 1),
        ("15:00", "sent", 0),
    ]


@pytest.mark.parametrize("second", [False, True])
def test_a_failure_at_another_time_gives_nothing_up(play: Play, second: bool) -> None:
    """A failure at the half hour is none of the full hour, whatever else is waited for."""
    play.add("up", "*/30 * * * *")
    play.add("other", "5 * * * *")
    after = [same("up", on_upstream_failure="skip"), *(["other"] if second else [])]
    play.add("down", HOURLY, after=after)
    play.at("13:00")
    play.end("up")
    play.at("13:05")
    sent = play.end("other")
    play.at("13:30")
    play.end("up", "failed")
    play.at("14:00")
    sent += play.end("up")
    play.at("14:05")
    sent += play.end("other")
    assert [run[:2] for run in play.history("down")] == [("13:00", "sent"), ("14:00", "sent")]


def test_giving_up_leaves_the_first_run_free(play: Play) -> None:
    """An occurrence that was given up is no run: the first one is still free."""
    play.add("a", "0 20 * * *")
    play.add("b", "30 * * * *")
    after = [After("a", first_free=True), After("b", timeout=600)]
    play.add("down", HOURLY, after=after)
    play.at("13:00")
    play.at("13:10")
    assert play.history("down") == [("13:00", "skipped", 1)]
    play.at("13:30")
    play.end("b")
    assert "down" in play.at("14:00")


def test_coalesced_occurrences_are_one_run_whoever_ends_first(play: Play) -> None:
    """After downtime the last of them is sent, once, in whatever order the upstreams' runs end."""
    play.add("up", HOURLY, misfire="all")
    play.add("down", HOURLY, after=[same("up")])
    play.at("17:00")
    first, *rest = take(play, "up")
    assert not play.held
    for claim in (*rest[1:], rest[0]):
        report(play.store, "succeeded", [claim])
        play.tick()
    report(play.store, "succeeded", [first])
    play.tick()
    assert play.history("down") == [("17:00", "sent", 4)]


def test_skip_leaves_what_waits_after_a_run(play: Play) -> None:
    """What waits beside one that was sent is no misfire: it waits on."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[same("up")], misfire="skip")
    play.at("13:00")
    first = take(play, "up")
    play.at("14:00")
    second = take(play, "up")
    play.at("14:30")
    report(play.store, "succeeded", first)
    assert play.tick() == ["down"]
    report(play.store, "succeeded", second)
    assert play.tick() == ["down"]
    assert play.history("down") == [("13:00", "sent", 0), ("14:00", "sent", 0)]


def test_two_that_are_met_at_once_are_two_runs(play: Play) -> None:
    """Beat finds two due times met at one look, and sends each; no look decides for two."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[same("up")])
    play.at("13:00")
    play.at("14:00")
    report(play.store, "succeeded", take(play, "up"))
    assert play.tick() == ["down", "down"]
    assert play.history("down") == [("13:00", "sent", 0), ("14:00", "sent", 0)]


def test_an_edge_that_is_added_knows_what_was(play: Play) -> None:
    """With a clock, what waits takes an end that came before the edge was written."""
    play.add("a", HOURLY)
    play.add("b", HOURLY)
    play.add("down", HOURLY, after=[same("a")])
    play.at("13:00")
    play.end("b")
    play.store.link("down", same("b"))
    assert play.tick() == []
    assert play.end("a") == ["down"]


def test_an_edge_that_is_removed_lets_go(play: Play) -> None:
    """Each due time that waited for it is looked at anew."""
    play.add("a", HOURLY)
    play.add("b", HOURLY)
    play.add("down", after=[same("a"), same("b")])
    for when in ("13:00", "14:00"):
        play.at(when)
        play.end("a")
    play.store.unlink("down", "b")
    assert play.tick() == ["down", "down"]


def test_resuming_begins_anew(play: Play) -> None:
    """Without a clock, what upstreams did before an entry was resumed is over."""
    play.add("a", HOURLY)
    play.add("b", HOURLY)
    play.add("down", after=[same("a"), same("b")])
    play.at("13:00")
    play.end("a")
    play.store.pause("down")
    play.at("13:10")
    play.store.resume("down")
    assert play.end("b") == []
    play.at("14:00")
    play.end("a")
    assert play.end("b") == ["down"]


def test_a_wide_fan_is_looked_at_seldom(play: Play) -> None:
    """Only the upstream that is known to be missing wakes the entry, however many there are."""
    names = [f"up-{number:02}" for number in range(20)]
    play.add("root", HOURLY)
    for name in names:
        play.add(name, after=["root"])
    play.add("down", after=names)
    play.at("13:00")
    play.end("root")
    looks = 0
    for name in names:
        report(play.store, "succeeded", take(play, name))
        wake_at = play.store.get("down").wake_at
        looks += wake_at is not None
        play.tick()
    assert play.history("down") == [("13:00", "sent", 0)]
    assert looks <= 3


# -- one lineage -----------------------------------------------------------------------------


def diamond(play: Play, align: Any = None) -> None:
    play.add("extract", "0 13 * * *")
    play.add("clean", after=[After("extract", align=align)])
    play.add("enrich", after=[After("extract", align=align)])
    play.add("load", after=[After("clean", align=align), After("enrich", align=align)])


def test_a_diamond_does_not_drift(play: Play) -> None:
    """After a failure in one branch, the next night's load is for the next night's branches."""
    diamond(play)
    play.at("13:00")
    play.end("extract")
    play.end("clean", "failed")
    assert play.end("enrich") == []
    for day in (1, 2):
        play.clock.set(NOON + timedelta(days=day, hours=1))
        play.tick()
        play.end("extract")
        assert play.end("clean") == []
        assert play.end("enrich") == ["load"]
        assert play.last("load").due_at == NOON + timedelta(days=day, hours=1)
        play.end("load")


def test_a_rerun_in_a_diamond_completes_its_night(play: Play) -> None:
    """The branch that failed is run again, and the load of that night follows."""
    diamond(play)
    play.at("13:00")
    play.end("extract")
    play.end("clean", "failed")
    play.end("enrich")
    play.store.rerun(play.last("clean").id)
    play.tick()
    assert play.end("clean") == ["load"]
    assert play.last("load").due_at == NOON + timedelta(hours=1)


def test_the_lineage_decides_when_nothing_is_said(play: Play) -> None:
    """One clock above it all: the same due time. Two clocks, or an own one: the latest."""
    diamond(play)
    play.add("other", HOURLY)
    play.add("mixed", after=["load", "other"])
    play.add("own", HOURLY, after=["extract"])
    play.add("told", after=[After("extract", align="latest")])
    play.add("deep", after=["load"])
    aligned = {edge.downstream: edge.align for edge in play.store.graph().edges}
    assert aligned == {
        **dict.fromkeys(("clean", "enrich", "load", "deep"), "same"),
        **dict.fromkeys(("mixed", "own", "told"), "latest"),
    }


def test_what_was_decided_stays(play: Play) -> None:
    """Putting the same again changes nothing, though the lineage above has changed since."""
    diamond(play)
    play.add("other", HOURLY)
    version = play.store.get("load").version
    play.store.link("clean", "other")
    made = play.store.put("load", "tests.load", after=["clean", "enrich"])
    assert made.version == version
    edges = {(edge.downstream, edge.upstream): edge.align for edge in play.store.graph().edges}
    assert edges["clean", "other"] == "latest"
    assert edges["load", "clean"] == "same"


def test_a_pipeline_that_runs_once_may_be_stored_late(play: Play) -> None:
    """Entries made when their upstream has run already take its last run."""
    play.add("extract", Once(NOON + timedelta(hours=1)))
    play.at("13:00")
    play.end("extract")
    play.at("13:30")
    play.add("transform", after=["extract"], max_runs=1)
    play.add("load", after=["transform"], max_runs=1)
    assert play.tick() == ["transform"]
    assert play.end("transform") == ["load"]


def test_a_new_entry_waits_for_what_is_sent_from_then_on(play: Play) -> None:
    """A run that was under way when an entry without a clock was made is none of its own."""
    play.add("extract", HOURLY)
    play.at("13:00")
    play.at("13:10")
    play.add("down", after=["extract"])
    assert play.end("extract") == []
    play.at("14:00")
    assert play.end("extract") == ["down"]


def test_a_failure_that_was_heard_of_late_sets_free(play: Play) -> None:
    """What was lost and then succeeded counts for its due time, if that waits still."""
    play.add("up", HOURLY, run_timeout=60)
    play.add("down", after=["up"])
    play.at("13:00")
    claims = take(play, "up")
    play.at("13:02")
    play.at("13:04")
    assert play.history("up") == [("13:00", "lost", 0)]
    report(play.store, "succeeded", claims)
    assert play.tick() == ["down"]


def test_what_an_attempt_stands_for(play: Play) -> None:
    """Every attempt tells how many occurrences it stands for, and since when; so does a rerun."""
    play.add("a", HOURLY, grace=900, max_retries=1, retry_delay=60)
    play.at("16:10")
    play.end("a", "failed")
    play.at("16:12")
    play.end("a", "failed")
    play.store.rerun(play.last("a").id)
    play.tick()
    runs = sorted(play.store.runs("a"), key=lambda run: run.attempt)
    first = datetime(2026, 1, 15, 13, tzinfo=timezone.utc)
    assert [(run.attempt, run.missed_count, run.first_missed_at) for run in runs] == [
        (1, 3, first),
        (2, 3, first),
        (3, 3, first),
    ]
    assert [claim.missed_count for claim in play.held["a"]] == [3]
