"""Rules about what the tasks themselves have written down, and what the user was told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.chaos.ledger import Life, Line, RunRow
from tests.chaos.view import OUTAGES, View, Violation, given_up

__all__ = [
    "ASKED",
    "agreement",
    "asked",
    "doubles",
    "lateness",
    "overlaps",
    "promptness",
    "silence",
    "stillness",
]

#: A claim's life, a tick, and a busy machine.
_HELD = 12.0

#: So long after its time an occurrence is sent at the latest, when nothing is in the way.
_LATE = 6.0

#: So long after an outage all is as before.
_RECOVERY = 15.0

#: An event explains what is seen so many seconds after it.
_AFTERMATH = 25.0

#: For so many seconds the guard asks about a run: the setting `beatstore_report_wait` of the app.
ASKED = 5.0

#: What keeps one beat from sending, or from marking what it has sent.
_BEAT = ("kill beat", "freeze beat", "beat partition")

#: What may bring a message twice: a beat that dies, stands still or is cut off between sending
#: and marking, a broker that gives an unacknowledged message to another worker, and whatever
#: keeps the guard from asking.
DOUBLING = (*OUTAGES, *_BEAT, "kill worker", "freeze worker", "kill child")


def agreement(view: View) -> Iterator[Violation]:
    """What a row says is what the task has done."""
    for run in view.ledger.runs:
        life, lines = view.lives.get(run.entry_id), view.lines.get(run.id, [])
        if life is None:
            continue
        if run.state == "succeeded":
            done = {line.part for line in lines if line.what == "ok"}
            lacking = [part for part in life.parts or (None,) if part not in done]
            if lacking:
                text = f"succeeded, and of its task nobody saw the end: {lacking}"
                yield Violation("no witness", life.name, text, [run], lines)
        never = run.state in ("missed", "skipped") and unsent(run)
        if never and lines:
            text = f"is {run.state}, and its task has run"
            yield Violation("ran all the same", life.name, text, [run], lines)
        failed = run.state == "failed" and "ChaosError" in (run.error or "")
        if failed and not any(line.what == "fail" for line in lines):
            yield Violation("no witness", life.name, "failed, and no task did", [run], lines)
    for run_id in view.lines.keys() - view.runs.keys():
        lines = view.lines[run_id]
        text = f"run {run_id} has no row, and its task has run"
        yield Violation("ran without a row", str(lines[0].entry), text, (), lines)


def doubles(view: View) -> Iterator[Violation]:
    """A task starts once for each message and try, but for what the failure table allows."""
    for run_id, lines in view.lines.items():
        run = view.runs.get(run_id)
        life = view.lives.get(run.entry_id) if run else None
        if run is None or life is None:
            continue
        if not life.parts and len({line.task_id for line in lines}) > 1:
            text = "messages of one run have several task ids"
            yield Violation("task ids", life.name, text, [run], lines)
        for starts in _repeated(lines):
            side_by_side = life.guarded and _side_by_side(starts, lines)
            guarded = life.guarded and not _put_back(starts, lines)
            if side_by_side or not explained(view, life, starts, guarded=guarded):
                guard = "in spite of the guard" if life.guarded else "without a cause"
                text = f"its task has started {len(starts)} times {guard}"
                yield Violation("started twice", life.name, text, [run], lines)


def _repeated(lines: Sequence[Line]) -> Iterator[list[Line]]:
    starts: dict[tuple[str | None, int], list[Line]] = defaultdict(list)
    for line in lines:
        if line.what == "start":
            starts[line.part, line.retries].append(line)
    yield from (found for found in starts.values() if len(found) > 1)


def _side_by_side(starts: Sequence[Line], lines: Sequence[Line]) -> bool:
    """Say whether a worker has started a task that it was still running; that the guard sees."""
    for first, second in pairwise(starts):
        ends = [line.at for line in lines if line.pid == first.pid and line.what == "ok"]
        # A process runs one task after the other: what it ends next is the first.
        ended = min((at for at in ends if at > first.at), default=first.at)
        if first.worker == second.worker and ended > second.at:
            return True
    return False


def _put_back(starts: Sequence[Line], lines: Sequence[Line]) -> bool:
    """Say whether the task has put its message back in between; then its run waits to start."""
    first, last = starts[0].at, starts[-1].at
    return any(line.what == "retry" and first < line.at < last for line in lines)


def explained(view: View, life: Life, starts: Sequence[Line], *, guarded: bool) -> bool:
    """Say whether the failure table allows that a task starts again."""
    first, last = starts[0].at, starts[-1].at
    kinds: tuple[str, ...] = DOUBLING
    if guarded:
        # The guard lets by what it can't ask about, and what a dead worker had.
        kinds = OUTAGES
        if any(line.asked_s >= ASKED for line in starts[1:]):
            # It has asked for as long as it may: who is cut off or stands still has locked the run.
            kinds += ("beat partition", "freeze beat")
        if life.acks_late:
            kinds += ("kill worker", "freeze worker", "kill child")
    return view.near((first + last) / 2, kinds, _AFTERMATH + last - first, last - first) is not None


def doubled(view: View) -> Counter[str]:
    """Count the tasks that started again, by whether they have the guard."""
    found: Counter[str] = Counter()
    for run_id, lines in view.lines.items():
        run = view.runs.get(run_id)
        life = view.lives.get(run.entry_id) if run else None
        for starts in _repeated(lines):
            if life is None:
                continue
            found["with the guard" if life.guarded else "without the guard"] += len(starts) - 1
    return found


def overlaps(view: View) -> Iterator[Violation]:
    """With `overlap` skip or wait no two tasks of an entry run at a time, lost ones aside."""
    for life in view.lives.values():
        if life.overlap == "allow" or life.parts:
            continue
        spans = []
        for run in view.by_entry.get(life.id, []):
            lines = view.lines.get(run.id, [])
            starts = [line.at for line in lines if line.what == "start"]
            end = [line.at for line in lines if line.what in ("ok", "fail")]
            if view.is_manual(run) or given_up(run) or len(starts) != 1 or not end:
                continue
            spans.append((starts[0], end[0], run))
        spans.sort(key=lambda span: span[0])
        for (_, end_at, run), (start, _, other) in pairwise(spans):
            if start < end_at and run.due_at != other.due_at:
                lines = [*view.lines[run.id], *view.lines[other.id]]
                text = f"overlap={life.overlap}, and two of its tasks ran at a time"
                yield Violation("overlap", life.name, text, [run, other], lines)


def asked(view: View) -> Iterator[Violation]:
    """A run that the user asked for is there, once, and has ended."""
    known: Counter[str] = Counter()
    for act in view.ledger.acts:
        if act.verb not in ("trigger", "rerun"):
            continue
        if act.outcome == "unknown":
            known[act.name] += 1
        if act.outcome == "ok" and int(act.value["run_id"]) not in view.runs:
            text = f"{act.verb} returned run {act.value['run_id']}, which has no row"
            yield Violation("asked for in vain", act.name, text)
    for run in view.ledger.runs:
        by_hand = (run.reason or "").startswith("triggered") and run.attempt == 1
        if by_hand and run.id not in view.asked_for:
            known[run.entry_name] -= 1
            if known[run.entry_name] < 0:
                text = "is said to be triggered, and nobody did"
                yield Violation("nobody asked", run.entry_name, text, [run])


def silence(view: View) -> Iterator[Violation]:
    """An entry that is paused, cancelled or removed sends nothing, but what was claimed."""
    for entry_id, acts in view.acts.items():
        ends = [act for act in acts if act.outcome == "ok" and act.verb in _QUIET]
        for act in ends:
            later = (other for other in acts if other.begun > act.begun and other.verb in _LOUD)
            until = next((other.begun for other in later), view.ledger.ended)
            for run in view.by_entry.get(entry_id, []):
                at = run.sent_at
                if at is None or view.is_manual(run) or not act.ended + _HELD < at < until:
                    continue
                if (
                    view.near(at, (*OUTAGES, "freeze beat", "beat partition"), _AFTERMATH, 0)
                    is None
                ):
                    text = f"was sent {at - act.ended:.1f} s after {act.verb}"
                    yield Violation("not silent", act.name, text, [run])


_QUIET = ("pause", "cancel", "remove")
_LOUD = ("resume", "add", "change")


def lateness(view: View) -> Iterator[Violation]:
    """What waits for nobody is sent in time, unless something is down, whoever holds a lock."""
    for life in view.lives.values():
        waits = bool(view.upstreams.get(life.id)) or life.overlap != "allow"
        if life.period is None or waits or not life.stable:
            continue
        for run in view.scheduled(life.id):
            yield from _late(view, life, run, run.due_at + life.jitter, {life.name})


def promptness(view: View) -> Iterator[Violation]:
    """A downstream is sent in time after its last upstream has ended, whoever holds a lock."""
    for entry_id, edges in view.upstreams.items():
        life = view.lives.get(entry_id)
        if life is None or not life.stable or life.period is not None:
            continue
        if any(edge.align != "same" or edge.upstream_id not in view.lives for edge in edges):
            continue
        concerned = {life.name, *(view.lives[edge.upstream_id].name for edge in edges)}
        for run in view.scheduled(life.id):
            chains = [
                chain for edge in edges for chain in view.chains(edge.upstream_id, run.due_at)
            ]
            # Of several chains nobody knows which has set it free, or when what was heard of late.
            plain = len(chains) == len(edges) and not any(chain.late for chain in chains)
            if run.state != "skipped" and plain:
                since = max(chain.ended_at for chain in chains)
                yield from _late(view, life, run, since, concerned, "freeze worker", "kill worker")


def _late(
    view: View, life: Life, run: RunRow, since: float, concerned: set[str], *excuses: str
) -> Iterator[Violation]:
    """Tell of a run that was sent late, if nothing excuses that.

    Args:
        view: all that is known.
        life: its entry.
        run: the run.
        since: when it could have been sent.
        concerned: the entries whose locks it may wait for.
        excuses: further events that may hold it up.
    """
    sent_at = run.sent_at or since
    late, limit = sent_at - since, _LATE + view.ledger.slack
    if late <= limit:
        return
    middle, half = since + late / 2, late / 2
    held = _held(view, since, sent_at)
    down = view.near(middle, (*OUTAGES, *excuses), half + _RECOVERY, half)
    if down is not None or concerned & set(held):
        return
    beats = view.near(middle, _BEAT, half + _RECOVERY, half)
    allowed = limit + (0 if beats is None else _HELD)
    if beats is not None and beats.kind == "beat partition":
        # What it has locked stays so until its connection works again, or the server ends it.
        allowed += beats.ended - beats.begun
    if late > allowed:
        text = f"was sent {late:.1f} s after it could be, and nothing was down"
        if held:
            text += f"; an application held {', '.join(held)}"
        yield Violation("late", life.name, text, [run])


def _held(view: View, since: float, until: float) -> list[str]:
    """Return the entries that an application's transaction held then."""
    return [
        event.target
        for event in view.ledger.events
        if event.kind == "open transaction" and event.begun < until and event.ended > since
    ]


def stillness(view: View) -> Iterator[Violation]:
    """Nothing that is due is left lying while beats live and the servers answer."""
    seen: dict[str, list[float]] = defaultdict(list)
    for sample in view.ledger.samples:
        for name, seconds in {**sample.entries, **sample.runs}.items():
            down = view.near(sample.at - seconds / 2, OUTAGES, seconds / 2 + 5, seconds / 2)
            held = _held(view, sample.at - 5, sample.at)
            limit = _LATE + _HELD + view.ledger.slack
            if seconds > limit and down is None and not name.endswith((*held, "\0")):
                seen[name].append(seconds)
    for name, spans in seen.items():
        text = f"was due for {max(spans):.0f} s, and no beat looked at it"
        yield Violation("left lying", name, text)


def unsent(run: RunRow) -> bool:
    """Say whether a row never had a message."""
    return run.sent_at is None and run.started_at is None
