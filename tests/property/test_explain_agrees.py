"""Random graphs: what `explain` says that an entry waits for is what blocks its row, and moves it.

A graph of every kind of edge is played in virtual time, with random outcomes, late beats and
long tasks. At any moment each entry is asked; and when the upstream that its row is blocked by ends
as its edge asks, the row moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from zlib import crc32

from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from beatstore import After, Entry, Explanation, Store, testing
from beatstore.models import DependencyModel
from beatstore.rules.states import UNFINISHED
from beatstore.testing import Outcome, Work, simulate
from tests.support.thorough import tries

START = datetime(2026, 1, 15, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
QUARTER = timedelta(minutes=15)
HANGS = Outcome("succeeded", duration=1e6)
#: Each schedule, and the minutes of the hour at which it is due.
MINUTES = {
    "*/10 * * * *": range(0, 60, 10),
    "*/20 * * * *": range(0, 60, 20),
    "0 * * * *": [0],
    "7,37 * * * *": [7, 37],
}
SPECS = tuple(MINUTES)
ENDS = ("succeeded", "succeeded", "succeeded", "failed", "lost", "cancelled")


@dataclass(frozen=True)
class Node:
    """An entry of a random graph; its upstreams have lower numbers."""

    spec: str | None
    after: tuple[After, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A graph, how its runs go, and the moments at which it is looked at."""

    nodes: tuple[Node, ...]
    seed: int
    moments: tuple[int, ...]
    downtime: tuple[tuple[datetime, datetime], ...]

    def fate(self, work: Work) -> Outcome:
        """Say how a run goes: the same for the same run, however time is cut."""
        number = crc32(f"{self.seed}/{work.name}/{work.due_at}/{work.attempt}".encode())
        return Outcome(ENDS[number % len(ENDS)], duration=number // 7 % 2400 + 0.5)


@st.composite
def edges(draw: st.DrawFn, number: int) -> tuple[After, ...]:
    """Draw the edges to earlier entries, of every kind."""
    ups = draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=3, unique=True))
    return tuple(
        After(
            f"n{up}",
            on=draw(st.sampled_from(["success", "success", "done", "failure"])),
            first_free=draw(st.sampled_from([False, False, False, True])),
            align=draw(st.sampled_from([None, "latest", "same"])),
            on_upstream_failure=draw(st.sampled_from(["wait", "wait", "skip"])),
            timeout=draw(st.sampled_from([None, None, 600, 2400])),
        )
        for up in ups
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a case."""
    nodes = []
    for number in range(draw(st.integers(2, 5))):
        after = draw(edges(number)) if number else ()
        spec = draw(st.sampled_from([*SPECS, None, None] if after else SPECS))
        options = {
            "misfire": draw(st.sampled_from(["skip", "coalesce", "all"])),
            "overlap": draw(st.sampled_from(["allow", "allow", "skip", "wait"])),
            "max_retries": draw(st.integers(0, 1)),
            "retry_delay": 300,
        }
        nodes.append(Node(spec, after, options))
    minutes = st.integers(1, 179)
    moments = tuple(sorted(draw(st.sets(minutes, min_size=1, max_size=3))))
    away = draw(st.one_of(st.none(), st.tuples(minutes, st.integers(1, 90))))
    downtime = ()
    if away is not None:
        begin = START + away[0] * MINUTE
        downtime = ((begin, begin + away[1] * MINUTE),)
    return Case(tuple(nodes), draw(st.integers(0, 2**16)), moments, downtime)


PLAIN = {"misfire": "all", "overlap": "allow", "max_retries": 0, "retry_delay": 300}

#: A case in which entries wait for edges of each kind, have satisfied ones beside those, and wait
#: for runs of their own. So no wrong answer depends on luck to be seen.
EVERY_EDGE = Case(
    (
        Node("*/10 * * * *", (), PLAIN),
        Node("*/20 * * * *", (), {**PLAIN, "overlap": "wait"}),
        Node("*/10 * * * *", (After("n0", on="done"), After("n1", on="failure")), PLAIN),
        Node(
            "*/20 * * * *",
            (After("n0", on="done", align="same"), After("n1", align="same")),
            {**PLAIN, "overlap": "wait"},
        ),
        Node(
            None,
            (After("n1", on="done"), After("n2", on="failure", first_free=True), After("n3")),
            PLAIN,
        ),
    ),
    seed=2,
    moments=(25, 47, 73),
    downtime=(),
)


#: A case in which an entry without a schedule waits for an upstream of the same due time and for
#: the next end of another.
TWO_WAITS = Case(
    (
        Node("*/10 * * * *", (), {**PLAIN, "misfire": "skip", "overlap": "wait"}),
        Node("*/10 * * * *", (After("n0", align="same", timeout=2400),), PLAIN),
        Node("*/10 * * * *", (After("n0"),), {**PLAIN, "misfire": "skip"}),
        Node("*/10 * * * *", (After("n0"), After("n1")), {**PLAIN, "misfire": "skip"}),
        Node(
            None,
            (After("n2", on="failure", align="same"), After("n3"), After("n1", align="same")),
            PLAIN,
        ),
    ),
    seed=0,
    moments=(49,),
    downtime=((START + MINUTE, START + 2 * MINUTE),),
)


def play(case: Case) -> Iterator[Store]:
    """Yield the store of a case at each of its moments, of which none is a due time."""
    store = testing.store(START)
    try:
        for number, node in enumerate(case.nodes):
            store.add(f"n{number}", "a.task", node.spec, after=node.after, **node.options)
        for minutes in case.moments:
            until = START + minutes * MINUTE + MINUTE / 2
            simulate(store, until, outcome=case.fate, downtime=case.downtime)
            if not any(begin <= until <= end for begin, end in case.downtime):
                yield store  # else no beat has looked at what came meanwhile
    finally:
        store.close()


def waiting(store: Store) -> list[tuple[Entry, Explanation]]:
    """Return the entries that wait for something, and why."""
    entries = [entry for entry in store.entries() if entry.pending_since is not None]
    return [(entry, store.explain(entry.name)) for entry in entries]


def blocker(store: Store, entry: Entry) -> str | None:
    """Return the name of the entry that a row is blocked by."""
    names = {one.id: one.name for one in store.entries()}
    return None if entry.blocked_by is None else names[entry.blocked_by]


def go_on(store: Store, only: str, **how: Any) -> None:
    """Let a quarter of an hour go by, in which only the runs of one entry end."""
    ends = Outcome(**how) if how else HANGS
    until = store.status().now + QUARTER
    simulate(store, until, outcome=lambda work: ends if work.name == only else HANGS)


def row(entry: Entry) -> tuple[object, ...]:
    """Return what of an entry changes when its wait moves."""
    return entry.run_count, entry.blocked_by, entry.pending_due_at, entry.pending_since


def counts(entry: Entry) -> dict[str, int]:
    """Return how often the runs of an entry have come to what an edge can ask for."""
    return {
        "success": entry.success_seq,
        "failure": entry.failure_seq,
        "done": entry.done_seq,
    }


CASES = settings(
    max_examples=tries(30, quick=5),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@CASES
@given(case=cases())
@example(case=EVERY_EDGE)
@example(case=TWO_WAITS)
def test_what_explain_names_is_what_blocks_the_row(case: Case) -> None:
    """For each entry that waits, the answer names the upstream that its row is blocked by."""
    for store in play(case):
        for entry in store.entries():
            if entry.pending_since is None:
                assert entry.blocked_by is None, (entry.name, entry.pending_reason)
        for entry, answer in waiting(store):
            event("waits")
            assert answer.waits_since == entry.pending_since
            assert answer.waits_due_at == entry.pending_due_at
            blocked_by = blocker(store, entry)
            named = {up.name for up in answer.waits_for}
            said = (entry.name, blocked_by, entry.pending_reason, answer)
            if blocked_by == entry.name:
                assert answer.waits_for_itself or named, said
            else:
                assert blocked_by in named, said
                assert repr(blocked_by) in (entry.pending_reason or ""), said
            if not answer.waits_for_itself:
                found = {up.name: (up.on, up.align) for up in answer.waits_for}
                assert found == unsatisfied(store, entry), said
                assert answer.waits_for_count == len(found), said


@CASES
@given(case=cases())
@example(case=EVERY_EDGE)
def test_what_explain_shows_is_in_the_rows(case: Case) -> None:
    """For each entry, the answer has the next due time and the runs that the rows have."""
    for store in play(case):
        now = store.status().now
        specs = {f"n{number}": node.spec for number, node in enumerate(case.nodes)}
        entries = store.entries()
        waits = {entry.name for entry in entries if entry.pending_since is not None}
        for entry in entries:
            answer = store.explain(entry.name)
            runs = sorted(store.runs(entry.name), key=lambda run: (run.due_at, run.id))
            assert answer.next_due_at == next_due(specs[entry.name], now)
            assert [run.id for run in answer.runs] == [run.id for run in reversed(runs[-3:])]
            unfinished = {run.id for run in runs if run.state in UNFINISHED}
            shown = {run.id for run in answer.unfinished}
            assert shown <= unfinished
            assert len(shown) == min(3, len(unfinished))
            assert (answer.state, answer.overdue_since) == (entry.state, None)
            for up in answer.waits_for:
                event("has an upstream")
                due_at = next_due(specs[up.name], now)
                assert up.next_due_at == due_at or (up.name in waits and up.next_due_at is None)


def next_due(spec: str | None, now: datetime) -> datetime | None:
    """Return when an entry is due next, from the minutes of its schedule."""
    if spec is None:
        return None
    at = now.replace(second=0, microsecond=0) + MINUTE
    while at.minute not in MINUTES[spec]:
        at += MINUTE
    return at


def unsatisfied(store: Store, entry: Entry) -> dict[str, tuple[str, str]]:
    """Return the edges that are not satisfied, by the edges' rows and by the runs."""
    with store.database.session() as session:
        mine = DependencyModel.downstream_id == entry.id
        rows = session.scalars(select(DependencyModel).where(mine)).all()
    ups = {up.id: up for up in store.entries()}
    found = {}
    for edge in rows:
        up = ups[edge.upstream_id]
        if edge.align == "same" and edge.consumed_seq >= 0:
            satisfied = edge.on in came_to(store, up.name, entry.pending_due_at)
        else:
            satisfied = counts(up)[edge.on] > edge.consumed_seq
        if not satisfied:
            found[up.name] = (edge.on, edge.align)
    return found


def came_to(store: Store, name: str, due_at: datetime | None) -> set[str]:
    """Return what the run of a due time is to an edge, once it has ended for good."""
    attempts = [run for run in store.runs(name) if run.due_at == due_at]
    runs = [run for run in attempts if run.state != "cancelled"]
    if not runs:
        return set()
    last = max(runs, key=lambda run: run.attempt)
    if last.state == "succeeded":
        return {"success", "done"}
    given_up = last.state == "skipped" and not (last.reason or "").startswith("overlap")
    return {"failure", "done"} if last.state in ("failed", "lost") or given_up else set()


@CASES
@given(case=cases(), chosen=st.integers(0, 10))
def test_what_blocks_the_row_moves_it_when_it_ends(case: Case, chosen: int) -> None:
    """The end of what a row is blocked by, as its edge asks, sends it, or has it wait on."""
    for store in play(case):
        found = waiting(store)
        if not found:
            continue
        before, answer = found[chosen % len(found)]
        name = blocker(store, before)
        assert name is not None
        asked = {up.name: up for up in answer.waits_for}.get(name)
        on = "done" if asked is None else asked.on
        same = asked is not None and asked.align == "same"
        old = counts(store.get(name))[on]
        if asked is not None and not same:
            store.trigger(name)
        go_on(store, name, state="failed" if on == "failure" else "succeeded", duration=1.0)
        if same:
            ended = on in came_to(store, name, before.pending_due_at)
        else:
            ended = counts(store.get(name))[on] > old
        if ended:
            event(f"moves: {'itself' if asked is None else 'same' if same else 'latest'}")
            assert row(store.get(before.name)) != row(before), (before.name, name, str(answer))
        return


@CASES
@given(case=cases(), chosen=st.integers(0, 10))
def test_nothing_is_sent_before_what_explain_names(case: Case, chosen: int) -> None:
    """While an upstream that the answer names does not end, what waits for it is not sent."""
    for store in play(case):
        found = [(entry, up) for entry, answer in waiting(store) for up in answer.waits_for]
        if not found:
            continue
        before, up = found[chosen % len(found)]
        old = counts(store.get(up.name))
        others = {one.name: one for one in store.explain(before.name).waits_for if one != up}
        for name, one in others.items():
            go_on(store, name, state="failed" if one.on == "failure" else "succeeded", duration=1.0)
        if counts(store.get(up.name)) == old:
            event(f"holds: {up.align}")
            sent = [run for run in store.runs(before.name) if run.sent_at is not None]
            since = [run for run in sent if run.sent_at >= before.pending_since]
            if up.align == "same":
                assert before.pending_due_at not in {run.due_at for run in since}, since
            else:
                assert store.get(before.name).run_count == before.run_count, since
        return
