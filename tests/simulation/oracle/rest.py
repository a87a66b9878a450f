"""What must be true when everything is healthy and nothing is left to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulation.ledger import Edge, Entry, Run
from tests.simulation.oracle.change import OPEN, said
from tests.simulation.oracle.dues import between, count_of, period_of
from tests.simulation.virtual import micros

if TYPE_CHECKING:
    from tests.simulation.oracle.judge import Judge

__all__ = ["RULES"]


def ends(judge: Judge) -> Iterator[str]:
    """Every run ends, and nothing of its end is left to do."""
    for run in judge.state.runs.values():
        if run.state == "sent" and run.entry_id not in judge.state.entries:
            continue  # of a removed entry: it is lost after a day
        if run.state in OPEN:
            yield f"{said(run)} is {run.state} for ever: {run.reason}"
        elif run.follow_up is not None:
            yield f"{said(run)} is {run.state}, and left to do is: {run.follow_up}"


def accounts(judge: Judge) -> Iterator[str]:
    """Every due time of an entry that nobody has touched is in one row, or counted by one."""
    for entry in judge.state.entries.values():
        if period_of(entry) is None or entry.name in judge.touched or entry.max_runs is not None:
            continue
        runs = judge.state.runs_of(entry.id)
        rows = [run for run in runs if run.attempt == 1 and run.id not in judge.asked]
        of_rows = {micros(run.due_at) for run in rows}
        seen: list[int] = []
        for run in rows:
            counted = _counted(entry, run, of_rows)
            seen += [micros(run.due_at), *counted]
            if len(counted) != run.missed_count - (run.state in ("missed", "skipped")):
                yield f"{said(run)} is {run.state} and counts {run.missed_count}, not {counted}"
        dues = between(entry, micros(entry.created_at), judge.now)
        if entry.state == "active":  # it waits
            since = entry.pending_due_at
            covered = set(seen)
            waits = judge.waits(entry.id)
            dues = [
                due
                for due in dues
                if due in covered or not (waits or (since and due >= micros(entry.created_at)))
            ]
        wrong = sorted(seen) != dues
        if judge.world.virtual.stepped:  # what has a row may lie ahead of the clock again
            wrong = len(set(seen)) != len(seen) or not set(dues) <= set(seen)
        if wrong:
            yield f"{entry.name!r} was due at {dues}, and its rows are for {sorted(seen)}"


def _counted(entry: Entry, run: Run, of_rows: set[int]) -> list[int]:
    """Return the due times without a row of their own that a run counts."""
    first = micros(run.first_missed_at or run.due_at)
    return [due for due in between(entry, first - 1, micros(run.due_at)) if due not in of_rows]


def bounded(judge: Judge) -> Iterator[str]:
    """`max_runs` bounds how many occurrences are sent, and each of them was due."""
    for entry in judge.state.entries.values():
        if entry.max_runs is None or entry.name in judge.touched:
            continue
        runs = [run for run in judge.state.runs_of(entry.id) if run.attempt == 1]
        made = [run for run in runs if run.state not in ("missed", "skipped")]
        if len([run for run in made if run.id not in judge.asked]) > entry.max_runs:
            yield f"{entry.name!r} has {len(made)} runs, and max_runs is {entry.max_runs}"
        if entry.state == "finished" and period_of(entry) is not None:
            dues = between(entry, micros(entry.created_at), judge.now)
            if len(made) < entry.max_runs and len(runs) < len(dues) and not _counts_more(runs):
                yield f"{entry.name!r} is finished after {len(made)} of {entry.max_runs} runs"


def _counts_more(runs: list[Run]) -> bool:
    return any(run.missed_count for run in runs)


def one_shots(judge: Judge) -> Iterator[str]:
    """A one-shot that nobody has touched has one row, unless it waits."""
    for entry in judge.state.entries.values():
        if entry.kind != "once" or entry.name in judge.touched:
            continue
        runs = judge.state.runs_of(entry.id)
        rows = {run.due_at for run in runs if run.attempt == 1 and run.id not in judge.asked}
        waits = entry.state == "active" and entry.pending_due_at is not None
        if len(rows) != (0 if waits else 1):
            yield f"{entry.name!r}, a one-shot in state {entry.state}, has rows for {rows}"


def broken(judge: Judge) -> Iterator[str]:
    """No entry is taken out of service that nobody has spoiled."""
    for entry in judge.state.entries.values():
        if entry.state == "broken" and entry.name not in judge.touched:
            yield f"{entry.name!r} is broken: {entry.error}"


def standing(judge: Judge) -> Iterator[str]:
    """No entry stands still while something could move it."""
    for entry in judge.state.entries.values():
        if entry.state != "active":
            continue
        if entry.wake_at is not None and micros(entry.wake_at) <= judge.now:
            yield f"{entry.name!r} is due, and nobody looks at it"
        edges = judge.state.upstreams(entry.id)
        waits = entry.pending_due_at is not None or (entry.kind == "after" and bool(edges))
        open_runs = [run for run in judge.state.runs_of(entry.id) if run.state in OPEN]
        if not waits or open_runs or any(edge.align == "same" for edge in edges):
            continue
        ups = [(edge, judge.state.entries.get(edge.upstream_id)) for edge in edges]
        if all(up is None or count_of(up, edge) > edge.consumed_seq for edge, up in ups):
            yield f"{entry.name!r} has all it waits for, and stands still: {entry.pending_reason}"


def patience(judge: Judge) -> Iterator[str]:
    """An entry that waits for an upstream with a timeout is looked at when that is over."""
    for entry in judge.state.entries.values():
        if entry.state != "active" or entry.pending_since is None:
            continue
        edges = judge.state.upstreams(entry.id)
        ups = [(edge, judge.state.entries.get(edge.upstream_id)) for edge in edges]
        limits = [
            edge.timeout_s
            for edge, up in ups
            if up is not None and edge.timeout_s and count_of(up, edge) <= edge.consumed_seq
        ]
        if limits and entry.wake_at is None and all(edge.align != "same" for edge in edges):
            yield f"{entry.name!r} waits for at most {min(limits):g} s, and nobody will look then"


def shared(judge: Judge) -> Iterator[str]:
    """With `align="same"`, each due time at which all upstreams have ended as asked has a row."""
    for entry in judge.state.entries.values():
        edges = judge.state.upstreams(entry.id)
        aligned = all(edge.align == "same" and not edge.first_free for edge in edges)
        bounded = entry.max_runs is not None
        # What waits for too long is given up by who prunes.
        pruned = any(call.verb == "prune" for call in judge.world.calls)
        if entry.kind != "after" or not edges or not aligned or bounded or pruned:
            continue
        if not judge.untouched(entry.id) or entry.start_at is not None:
            continue
        mine = {run.due_at for run in judge.state.runs_of(entry.id)}
        first, *others = (_ended_as_asked(judge, edge) for edge in edges)
        for due_at in first.intersection(*others) - mine:
            yield f"{entry.name!r} has no row for {due_at}, at which its upstreams ended as asked"


def _ended_as_asked(judge: Judge, edge: Edge) -> set[str]:
    """Return the due times at which an upstream has ended for good, and as an edge asks."""
    last: dict[str, Run] = {}
    for run in judge.state.runs_of(edge.upstream_id):
        if run.due_at not in last or run.attempt > last[run.due_at].attempt:
            last[run.due_at] = run
    wanted = {"success": ("succeeded",), "failure": ("failed", "lost")}
    states = wanted.get(edge.on, ("succeeded", "failed", "lost"))
    return {due_at for due_at, run in last.items() if run.state in states}


def counters(judge: Judge) -> Iterator[str]:
    """The counters are what the ledger says: one for each occurrence that has ended for good."""
    for entry in judge.state.entries.values():
        runs = judge.state.runs_of(entry.id)
        wanted = {"success_seq": 0, "failure_seq": 0, "done_seq": 0}
        for run in runs:
            for name in _counts(judge, entry, run, runs):
                wanted[name] += 1
        got = {name: getattr(entry, name) for name in wanted}
        if got != wanted:
            rows = ", ".join(f"{said(run)} {run.state}" for run in runs)
            yield f"{entry.name!r} counts {got}, and its runs say {wanted}: {rows}"


def _counts(judge: Judge, entry: Entry, run: Run, runs: list[Run]) -> list[str]:
    """Return the counters that one run has moved."""
    retried = any(
        one.due_at == run.due_at
        and one.attempt == run.attempt + 1
        and one.id not in judge.asked | judge.needless
        for one in runs
    )
    # An attempt that is cancelled leaves the failure before it, since nobody will try again.
    retry = run.attempt > 1 and run.id not in judge.asked
    dropped = retry and run.id in judge.dropped
    if run.state == "succeeded":
        later = (one for one in runs if (one.due_at, one.attempt) == (run.due_at, run.attempt + 1))
        decided = (judge.dropped | judge.pruned.keys()) - judge.needless - judge.asked
        if any(one.id in decided for one in later):
            return ["success_seq"]  # that attempt has ended the occurrence, and is pruned
        late = dropped or run.id in judge.failed
        return ["success_seq", "done_seq", *(["failure_seq"] if late else [])]
    failed = run.state in ("failed", "lost") or run.id in judge.failed
    ended = (failed and not retried) or dropped or run.id in judge.given_up
    return ["failure_seq", "done_seq"] if ended else []


def retries(judge: Judge) -> Iterator[str]:
    """A failed or lost run of an entry that nobody has touched is tried as often as it may be."""
    for entry in judge.state.entries.values():
        if entry.name in judge.touched or entry.state in ("paused", "cancelled", "broken"):
            continue
        chains: dict[str, list[Run]] = {}
        for run in judge.state.runs_of(entry.id):
            chains.setdefault(run.due_at, []).append(run)
        for chain in chains.values():
            last = max(chain, key=lambda run: run.attempt)
            failed = last.state in ("failed", "lost") and last.task_id in judge.published
            failed = failed and last.id not in judge.dropped  # a second copy of its message failed
            failed = failed and last.id not in judge.refused  # which no retry can help
            if failed and last.attempt <= entry.max_retries and last.id not in judge.ended:
                yield f"{said(last)} is {last.state}, and was not tried again"


def followed(judge: Judge) -> Iterator[str]:
    """No attempt that beat has made is sent after the one before it has succeeded."""
    for run in judge.state.runs.values():
        made = run.attempt > 1 and run.id not in judge.asked and run.state != "cancelled"
        made = made and run.id not in judge.pruned  # the end of the one before counts again
        for one in judge.state.runs_of(run.entry_id) if made else ():
            before = one.due_at == run.due_at and one.attempt == run.attempt - 1
            if before and one.state == "succeeded" and one.id not in judge.asked:
                yield f"{said(run)} is {run.state}, and the attempt before it has succeeded"


def triggers(judge: Judge) -> Iterator[str]:
    """What somebody asked for by `trigger` or `rerun` is sent, or its row says why not."""
    for run_id in judge.asked:
        run = judge.state.runs.get(run_id)
        if run is None:
            yield f"the run {run_id} that somebody asked for is not there"
            continue
        sent = run.task_id in judge.published
        if not sent and run.state not in ("cancelled", "failed") and run_id not in judge.ended:
            yield f"{said(run)} was asked for, is {run.state}, and was never sent"


def messages(judge: Judge) -> Iterator[str]:
    """Every message is delivered, and the queue is empty."""
    for left in judge.world.broker.queue:
        yield f"the message of run {left.run_id} is still in the queue"


def doubles(judge: Judge) -> Iterator[str]:
    """No task starts more often than its message was sent; another delivery says that it is one."""
    started: dict[str, int] = {}
    for deed in judge.world.deeds:
        one = deed.message
        if deed.what == "start" and one.part is None and not one.redelivered:
            started[one.task_id] = started.get(one.task_id, 0) + 1
    published = [one.message.task_id for one in judge.world.broker.published]
    again = [deed.message.task_id for deed in judge.world.deeds if deed.what == "sent"]
    for task_id, times in started.items():
        if task_id in published and times > published.count(task_id) + again.count(task_id):
            yield f"the task {task_id} started {times} times, which is oftener than it was sent"


def guarded(judge: Judge) -> Iterator[str]:
    """The start-once guard lets a run start once, unless it was lost or pruned in between."""
    allowed: set[str] = set()
    pruned = {run.task_id for run in judge.pruned.values()}
    for deed in judge.world.deeds:
        one = deed.message
        run = judge.state.runs.get(one.run_id)
        if run is None or run.task_id != one.task_id or run.id in judge.lost:
            continue
        if one.task_id in pruned:
            continue
        if deed.what == "sent":
            allowed.discard(one.task_id)
        if deed.what != "start" or not deed.allowed or one.redelivered:
            continue
        if one.task_id in allowed:
            yield f"the guard let {deed.worker} start {one.task_id}, which had started before"
        allowed.add(one.task_id)


#: All of them.
RULES = (
    *(
        ends,
        accounts,
        bounded,
        one_shots,
        broken,
        standing,
        patience,
        shared,
        counters,
        retries,
        followed,
        triggers,
        messages,
        doubles,
        guarded,
    ),
)
