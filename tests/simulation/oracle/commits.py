"""What must be true of each commit: docs/lifecycle.md, docs/retries.md, docs/dependencies.md."""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulation.ledger import Run
from tests.simulation.oracle.change import OPEN, Change, said
from tests.simulation.oracle.dues import between, count_of
from tests.simulation.virtual import micros

__all__ = ["RULES"]

_SECOND = 1_000_000

#: How many of the last errors of a recurring entry stay: docs/reliability.md.
ERRORS_KEPT = 5

#: Who may move a run from one state to another: docs/lifecycle.md, both tables.
_MOVES: dict[tuple[str, str], str] = {
    ("claimed", "sent"): "beat worker",  # the worker's message is back in the queue
    ("claimed", "skipped"): "beat",
    ("claimed", "failed"): "beat worker user",
    ("claimed", "cancelled"): "beat user worker",
    ("sent", "started"): "worker",
    ("started", "sent"): "worker",
    ("sent", "succeeded"): "worker user",
    ("sent", "failed"): "worker user",
    ("sent", "cancelled"): "worker beat user",
    ("sent", "lost"): "beat",
    ("started", "succeeded"): "worker user",
    ("started", "failed"): "worker user",
    ("started", "cancelled"): "worker user",
    ("started", "lost"): "beat",
    ("claimed", "started"): "worker",
    ("claimed", "succeeded"): "worker user",
    ("cancelled", "sent"): "beat worker",
    ("cancelled", "started"): "worker",
    ("cancelled", "succeeded"): "worker",
    ("cancelled", "failed"): "worker",
    ("failed", "succeeded"): "worker",
    ("failed", "cancelled"): "worker",
    ("lost", "succeeded"): "worker",
    ("lost", "failed"): "worker",
    ("lost", "cancelled"): "worker",
}


def keys(change: Change) -> Iterator[str]:
    """There is one row for each entry, due time and attempt, and it stays what it is."""
    seen: dict[tuple[int, str, int], int] = {}
    for run in change.after.runs.values():
        key = (run.entry_id, run.due_at, run.attempt)
        if key in seen:
            yield f"{said(run)} has the key of run {seen[key]}"
        seen[key] = run.id
    for number, was in change.before.runs.items():
        run_now = change.after.runs.get(number)
        if run_now is None:
            continue  # see `pruned`
        if _key(was) != _key(run_now) and not _moved_aside(change, was, run_now):
            yield f"{said(was)} became another run: {said(run_now)}"


def _key(run: Run) -> tuple[object, ...]:
    return run.entry_id, run.due_at, run.attempt, run.task_id


def _moved_aside(change: Change, was: Run, run: Run) -> bool:
    """Say whether a run that was asked for makes room for the due time of the same instant."""
    asked = run.id in change.world.judge.asked and run.task_id == was.task_id
    return asked and 0 < micros(run.due_at) - micros(was.due_at) < 1_000


def pruned(change: Change) -> Iterator[str]:
    """Who prunes deletes what is over and not needed: the newest run and the errors stay."""
    for run in change.gone().values():
        if change.who.kind != "user" or change.world.bodies[change.who.name].verb != "prune":
            yield f"{said(run)} is gone, by {change.who.name}"
        if run.state in OPEN or run.follow_up is not None or run.wake_at is not None:
            yield f"{said(run)} was pruned, and is {run.state}"
        entry = change.after.entries.get(run.entry_id)
        if entry is None or entry.kind == "once":
            continue
        left = change.after.runs_of(run.entry_id)
        if not any((one.due_at, one.attempt) > (run.due_at, run.attempt) for one in left):
            yield f"{said(run)} was pruned, and is the newest of {entry.name!r}"
        errors = [one for one in left if one.state == run.state]
        if run.state in ("failed", "lost") and len(errors) < ERRORS_KEPT:
            yield f"{said(run)} was pruned, and only {len(errors)} other runs are {run.state}"


def moves(change: Change) -> Iterator[str]:
    """A run moves as the documentation says, and is moved by who may."""
    for was, run in change.moved():
        who = _MOVES.get((was.state, run.state), "")
        if change.who.kind not in who.split():
            yield f"{said(run)} went from {was.state} to {run.state}, by {change.who.name}"


def sent(change: Change) -> Iterator[str]:
    """A run is `sent` only when the broker has its message."""
    taken = {one.message.task_id for one in change.world.broker.published}
    for was, run in change.moved():
        if run.state == "sent" and run.task_id not in taken:
            yield f"{said(run)} is sent, and the broker never had its message (was {was.state})"


def marks(change: Change) -> Iterator[str]:
    """A beat moves a claimed run only if it holds it, its claim has expired, or it is dropped.

    When plain SQL has cancelled an entry, a beat cancels its runs that no beat holds.
    """
    if not change.is_beat:
        return
    beat = change.world.bodies[change.who.name].id
    for was, run in change.moved():
        holds = was.claimed_by == beat
        due = was.wake_at is not None and micros(was.wake_at) <= change.now
        entry = change.after.entries.get(run.entry_id)
        dropped = entry is not None and entry.state == run.state == "cancelled"
        dropped = dropped and was.claimed_by is None
        if was.state == "claimed" and not (holds or due or dropped):
            yield (
                f"{said(run)} was {was.state} and held by another beat, and {change.who.name} "
                f"made it {run.state}: {run.reason}"
            )


def reports(change: Change) -> Iterator[str]:
    """A report moves only the run it is of, to what the worker saw."""
    if change.who.kind != "worker":
        return
    name = change.who.name
    mine = [deed for deed in change.world.deeds if deed.worker == name]
    hand = change.world.bodies[name].hand
    for was, run in change.moved():
        if was.state == "claimed" and run.state == "cancelled":
            continue  # the next attempt, since the one before it has ended well after all
        parts = [one.message.part for one in mine if one.message.task_id == run.task_id]
        if run.state == "sent" and any(parts):
            continue  # between two tasks of a canvas
        wanted = "start" if run.state == "started" else run.state
        done = any(one.message.task_id == run.task_id and one.what == wanted for one in mine)
        taking = hand is not None and hand.task_id == run.task_id and wanted == "start"
        if not (done or taking):
            yield f"{said(run)} is {run.state}, and {name} saw nothing of the kind"


def silence(change: Change) -> Iterator[str]:
    """A started run is lost 5 heartbeats after the last, and a sent one after `run_timeout`."""
    if change.world.virtual.stepped:
        return
    now = change.world.virtual.monotonic
    for was, run in change.moved():
        if run.state != "lost":
            continue
        entry = change.before.entries.get(run.entry_id)
        if was.state == "started":
            silent = min(now - _heard(run, change), _since(was.started_at, change))
            if silent < 49.0:
                yield f"{said(run)} is lost, and was heard of {silent:g} s ago"
        elif entry is not None and entry.run_timeout_s is not None and was.state == "sent":
            # A slow beat may mark it as sent after a worker has had it, and has put it back.
            since = max(_since(at, change) for at in (was.sent_at, was.started_at) if at)
            if since < min(entry.run_timeout_s, 20.0) - 0.01:
                yield f"{said(run)} is lost {since:g} s after it was sent"


def _heard(run: Run, change: Change) -> float:
    """Return when the latest heartbeat for a run began, on the monotonic clock.

    Where transactions overlap, a worker's heartbeat passes over a run that a beat has locked, and
    what is written while a beat that has found the worker silent holds the run comes too late.
    """
    if change.world.ground.serial:
        workers = [one for name, one in change.world.bodies.items() if name.startswith("worker")]
        return max((one.beaten.get(run.task_id, 0.0) for one in workers), default=0.0)
    looked = change.world.virtual.monotonic - (change.now - change.looked) / _SECOND - 0.001
    began, written = change.world.judge.heard.get(run.id, (0.0, 0.0))
    return began if written < looked else 0.0


def _since(at: str | None, change: Change) -> float:
    return (change.now - micros(at)) / _SECOND if at is not None else 1e9


def attempts(change: Change) -> Iterator[str]:
    """A failed or lost run gets its next attempt, after its delay, as often as it may."""
    for run in change.new():
        if run.attempt == 1 or change.who.kind == "user":
            continue
        entry = change.before.entries.get(run.entry_id)
        before = [
            one
            for one in change.after.runs_of(run.entry_id)
            if one.due_at == run.due_at and one.attempt == run.attempt - 1
        ]
        if not before or before[0].state not in ("failed", "lost"):
            yield f"{said(run)} follows on no failure"
            continue
        if entry is None:
            yield f"{said(run)} is a retry of an entry that is not there"
            continue
        if run.attempt - 1 > entry.max_retries and not _rerun(change, run.due_at):
            yield f"{said(run)} is one attempt too many: max_retries is {entry.max_retries}"
        ended, wake = before[0].finished_at, run.wake_at
        if ended is None or wake is None:
            yield f"{said(run)} follows on a run without an end, or is never looked at"
        elif micros(wake) - micros(ended) < entry.retry_delay_s * _SECOND - 2_000:
            yield f"{said(run)} is due {wake[11:23]}, too early after {ended[11:23]}"


def _rerun(change: Change, due_at: str) -> bool:
    return any(call.verb == "rerun" for call in change.world.calls)


def counters(change: Change) -> Iterator[str]:
    """Counters only grow."""
    for number, entry in change.after.entries.items():
        was = change.before.entries.get(number)
        for name in ("success_seq", "failure_seq", "done_seq"):
            if was is not None and getattr(entry, name) < getattr(was, name):
                yield f"entry {entry.name!r}: {name} fell"


def used_up(change: Change) -> Iterator[str]:
    """What an edge has used up is used up once, by a row, and given back only by an edit."""
    if change.who.kind == "user":
        return
    for key, edge in change.after.edges.items():
        old = change.before.edges.get(key)
        if old is None or edge.consumed_seq == old.consumed_seq:
            continue
        if edge.consumed_seq < old.consumed_seq:
            yield f"edge {key}: consumed_seq fell"
        up = change.after.entries.get(edge.upstream_id)
        if up is not None and edge.consumed_seq > count_of(up, edge):
            yield f"edge {key}: more is used up than its upstream did"
        if not any(run.entry_id == edge.downstream_id for run in change.new()):
            yield f"edge {key}: a completion is used up, and nothing was sent for it"


def resumes(change: Change) -> Iterator[str]:
    """An entry without a schedule does not run for what its upstreams did while it was paused."""
    if change.who.kind != "user" or not change.world.ground.serial:
        return
    for number, entry in change.after.entries.items():
        was = change.before.entries.get(number)
        by_call = change.world.bodies[change.who.name].verb == "resume"
        if was is None or was.state != "paused" or entry.state != "active" or not by_call:
            continue
        for edge in change.after.upstreams(number) if entry.kind == "after" else ():
            up = change.after.entries.get(edge.upstream_id)
            latest = edge.align != "same" and edge.consumed_seq >= 0
            if up is not None and latest and count_of(up, edge) > edge.consumed_seq:
                yield f"{entry.name!r} was resumed, and what {up.name!r} did meanwhile counts"


def awake(change: Change) -> Iterator[str]:
    """`wake_at` may be early, and is never late: an active entry is looked at when it is due.

    That is its due time, and a share of its jitter.
    """
    if change.world.virtual.stepped:
        return
    for number, entry in change.after.entries.items():
        waits = entry.pending_due_at is not None or entry.state != "active"
        if waits or change.before.entries.get(number) == entry:
            continue
        after = micros(entry.cursor_at or entry.created_at)
        due = next(iter(between(entry, after, after + 200 * _SECOND)), None)
        latest = None if due is None else due + round(entry.jitter_s * _SECOND)
        late = latest is not None and (entry.wake_at is None or micros(entry.wake_at) > latest)
        if late and not any(run.tries for run in change.after.runs_of(number)):
            yield f"{entry.name!r} is due after {after}, and is looked at {entry.wake_at}"


def held(change: Change) -> Iterator[str]:
    """A run that has not ended has a time at which somebody looks at it."""
    for run in change.after.runs.values():
        if run.state in ("claimed", "started") and run.wake_at is None:
            yield f"{said(run)} is {run.state}, and nobody will look at it"


def asked(change: Change) -> Iterator[str]:
    """What was asked for by hand is sent while its entry is paused."""
    for was, run in change.moved():
        entry = change.after.entries.get(run.entry_id)
        paused = entry is not None and entry.state == "paused"
        by_beat = change.is_beat and run.state == "cancelled" and was.state == "claimed"
        if paused and by_beat and run.id in change.world.judge.asked:
            yield f"{said(run)} was asked for, and cancelled since its entry is paused"


def overlaps(change: Change) -> Iterator[str]:
    """Where runs may not overlap, none is made beside one that has not ended."""
    if not change.is_beat:
        return
    for run in change.new():
        entry = change.before.entries.get(run.entry_id)
        if entry is None or entry.overlap == "allow" or run.state != "claimed" or run.attempt > 1:
            continue
        others = [
            one
            for one in change.after.runs_of(run.entry_id)
            if one.id != run.id and one.state in OPEN and one.due_at != run.due_at
        ]
        if others:
            yield f"{said(run)} was made beside {said(others[0])}, which is {others[0].state}"


#: All of them.
RULES = (
    *(
        keys,
        pruned,
        moves,
        sent,
        marks,
        reports,
        silence,
        attempts,
        counters,
        used_up,
        awake,
        held,
        asked,
        overlaps,
    ),
)
