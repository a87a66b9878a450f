"""What the rules need to know of a schedule's past, taken from one commit after another."""

from __future__ import annotations

from tests.simulation.kernel import Moment
from tests.simulation.ledger import Run
from tests.simulation.oracle.change import Change
from tests.simulation.virtual import micros
from tests.simulation.workers import DROPS

__all__ = ["Memory"]


class Memory:
    """The past of one schedule.

    Attributes:
        holders: by run, the beat that claims it last and since when, on the monotonic clock.
        claimers: by run, the process that claimed it last, and since when that operation is.
        outlived: the runs whose claim has expired, and which were claimed again.
        asked: the runs that a `trigger` or a `rerun` made.
        withdrawn: those of them that were there when their entry was cancelled, and in which
            commit that was.
        ended: the runs that a user has ended by hand.
        refused: those whose message the broker refused, perhaps a second copy of it.
        lost: runs that had been lost at some time.
        failed: runs that had failed or been lost for good at some time.
        needless: attempts that were cancelled since the one before them has ended well after all.
        dropped: other runs that were cancelled, and of which nothing is left to do.
        pruned: the runs that were deleted, as they were, by id.
        given_up: runs that are records of what was given up, which count as failures.
        commits: how many commits there were.
        claimed: by run, in which of them it was claimed last.
        stopped: by entry, in which it was paused or cancelled, unless it is active again.
        heard: by run, when the latest heartbeat that reached its row began, and when it was
            written, on the monotonic clock.
        resumed: by entry, when it became active last, as microseconds of the database's clock.
    """

    def __init__(self) -> None:
        self.holders: dict[int, tuple[str, float]] = {}
        self.claimers: dict[int, tuple[str, Moment]] = {}
        self.outlived: set[int] = set()
        self.asked: set[int] = set()
        self.withdrawn: dict[int, int] = {}
        self.ended: set[int] = set()
        self.refused: set[int] = set()
        self.lost: set[int] = set()
        self.failed: set[int] = set()
        self.needless: set[int] = set()
        self.dropped: set[int] = set()
        self.pruned: dict[int, Run] = {}
        self.given_up: set[int] = set()
        self.commits = 0
        self.claimed: dict[int, int] = {}
        self.stopped: dict[int, int] = {}
        self.heard: dict[int, tuple[float, float]] = {}
        self.resumed: dict[int, int] = {}

    def note(self, change: Change) -> None:
        """Remember what a commit did."""
        self.commits += 1
        by_user = change.who.kind == "user"
        for run in change.new():
            if by_user:
                self.asked.add(run.id)
            if run.state == "skipped" and "overlap" not in (run.reason or ""):
                self.given_up.add(run.id)
        for was, run in change.moved():
            if change.is_beat and (was.state, run.state) == ("claimed", "failed"):
                self.refused.add(run.id)
            if run.state == "lost":
                self.lost.add(run.id)
            if by_user and run.state in ("failed", "lost", "cancelled"):
                self.ended.add(run.id)
        if change.who.kind == "worker":
            self._note_needless(change)
            self._note_heard(change)
        self.pruned.update(change.gone())
        self._note_claims(change)
        self._note_failures(change)
        self._note_entries(change)

    def _note_needless(self, change: Change) -> None:
        """Note next attempts that a worker has cancelled: the run before has ended well after all.

        One that somebody has cancelled, and that is not counted yet, is taken back as well.
        """
        for number, run in change.after.runs.items():
            was = change.before.runs.get(number)
            waited = was is not None and was.state in ("claimed", "cancelled") and was.wake_at
            if waited and run.state == "cancelled" and run.wake_at is None:
                self.needless.add(number)

    def _note_heard(self, change: Change) -> None:
        for number, run in change.after.runs.items():
            was = change.before.runs.get(number)
            if was is None or (was.state, run.state) != ("started", "started"):
                continue
            if was.wake_at != run.wake_at:
                self.heard[number] = change.who.began.at, change.world.virtual.monotonic

    def _note_claims(self, change: Change) -> None:
        for number, run in change.after.runs.items():
            was = change.before.runs.get(number)
            if was is not None and was.state == run.state == "claimed" and _expired(was, change):
                self.outlived.add(number)
            if was is not None and was.claimed_by == run.claimed_by:
                continue
            if run.claimed_by is None:
                continue  # whoever gives it back still answers for what it claimed
            self.holders[number] = run.claimed_by, change.world.virtual.monotonic
            self.claimed[number] = self.commits
            if change.is_beat and run.state == "claimed" and (was is not None or run.attempt == 1):
                self.claimers[number] = change.who.name, change.who.began

    def _note_failures(self, change: Change) -> None:
        """Note which runs have failed for good, or were dropped: no other attempt follows."""
        for number, run in change.after.runs.items():
            cancelled = run.state == "cancelled" and run.wake_at is None
            # A worker may write in one transaction that it was dropped, and that a copy succeeded.
            cancelled = cancelled or (run.state == "succeeded" and run.reason in DROPS)
            if cancelled and number not in self.needless:
                self.dropped.add(number)
            counted = run.wake_at is None or run.follow_up == "wake"
            over = run.state in ("failed", "lost") and counted
            if over and change.before.runs.get(number) != run and not self._followed(run, change):
                self.failed.add(number)

    def _followed(self, run: Run, change: Change) -> bool:
        return any(
            one.due_at == run.due_at and one.attempt > run.attempt and one.id not in self.asked
            for one in change.after.runs_of(run.entry_id)
        )

    def _note_entries(self, change: Change) -> None:
        for number, entry in change.after.entries.items():
            was = change.before.entries.get(number)
            anew = was is None or was.state != "cancelled" or _cancels(change, entry.name)
            if entry.state == "cancelled" and anew:
                asked = self.asked & {run.id for run in change.after.runs_of(number)}
                self.withdrawn |= dict.fromkeys(asked, self.commits)
            if entry.state not in ("paused", "cancelled"):
                was_stopped = self.stopped.pop(number, None) is not None
                if was_stopped and entry.state == "active":
                    # An edit goes by the time at which it began to read.
                    lasted = change.world.virtual.monotonic - change.who.began.at
                    self.resumed[number] = change.now - round(lasted * 1e6)
            elif number not in self.stopped:
                self.stopped[number] = self.commits


def _expired(run: Run, change: Change) -> bool:
    held = run.claimed_by is not None and run.wake_at is not None
    # It may have expired before the clock was set back.
    passed = held and micros(str(run.wake_at)) <= change.now
    return passed or (held and change.world.virtual.stepped)


def _cancels(change: Change, name: str) -> bool:
    """Return whether this is the commit of a user who cancels this entry."""
    if change.who.kind != "user":
        return False
    user = change.world.bodies[change.who.name]
    return (user.verb, user.name) == ("cancel", name)
