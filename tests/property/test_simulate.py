"""Random graphs in virtual time: whatever fails, hangs or is away, the rule of dependencies holds.

The invariants are read off the ledger alone, by what each run's message had behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from zlib import crc32

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beatstore import Store, testing
from beatstore.schedules import parse
from beatstore.testing import Ledger, Outcome, Row, Work, simulate
from tests.support.thorough import tries

START = datetime(2026, 1, 15, tzinfo=timezone.utc)
HOURS = 2
SPECS = ("*/10 * * * *", "*/15 * * * *", "0 * * * *", "7,37 * * * *", "*/25 * * * *")
ENDS = ("succeeded", "succeeded", "succeeded", "failed", "lost", "cancelled")


@dataclass(frozen=True)
class Node:
    """An entry of a random graph; its upstreams have lower numbers."""

    spec: str | None
    upstreams: tuple[int, ...]
    misfire: str
    max_retries: int


@dataclass(frozen=True)
class Case:
    """A graph, how its runs go, and how its time goes by."""

    nodes: tuple[Node, ...]
    seed: int
    cuts: tuple[int, ...]
    downtime: tuple[tuple[datetime, datetime], ...]
    concurrency: int | None

    def fate(self, work: Work) -> Outcome:
        """Say how a run goes: the same for the same run, however time is cut."""
        number = crc32(f"{self.seed}/{work.name}/{work.due_at}/{work.attempt}".encode())
        return Outcome(ENDS[number % len(ENDS)], duration=number // 7 % 1500 + 0.5)


class Moment(NamedTuple):
    """When something happened to a run, and the run's due time."""

    at: datetime
    due_at: datetime


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a case."""
    nodes = []
    for number in range(draw(st.integers(2, 4))):
        earlier = st.lists(st.integers(0, number - 1), max_size=3, unique=True)
        upstreams = tuple(draw(earlier)) if number else ()
        clocks = st.sampled_from([*SPECS, None] if upstreams else SPECS)
        misfire = draw(st.sampled_from(["skip", "coalesce", "all"]))
        nodes.append(Node(draw(clocks), upstreams, misfire, draw(st.integers(0, 1))))
    minutes = st.integers(1, HOURS * 60 - 1)
    cuts = tuple(sorted(draw(st.sets(minutes, max_size=3))))
    away = draw(st.one_of(st.none(), st.tuples(minutes, st.integers(1, 90))))
    downtime = ()
    if away is not None:
        begin = START + timedelta(minutes=away[0])
        downtime = ((begin, begin + timedelta(minutes=away[1])),)
    concurrency = draw(st.sampled_from([None, None, 2]))
    return Case(tuple(nodes), draw(st.integers(0, 2**16)), cuts, downtime, concurrency)


# The success of n0 for 00:30 comes before n2 is sent for 00:10, which waited for n1: with "same",
# both count.
CROSSED = Case(
    (
        Node("*/10 * * * *", (), "skip", 0),
        Node(None, (0,), "skip", 0),
        Node(None, (0, 1), "skip", 0),
    ),
    seed=1,
    cuts=(),
    downtime=(),
    concurrency=None,
)


def play(case: Case, cuts: tuple[int, ...]) -> tuple[Store, list[Row], Ledger]:
    """Run a case, and return its store, its rows in the order of time, and the last ledger."""
    store = testing.store(START)
    for number, node in enumerate(case.nodes):
        store.add(
            f"n{number}",
            "a.task",
            node.spec,
            after=[f"n{upstream}" for upstream in node.upstreams],
            misfire=node.misfire,
            max_retries=node.max_retries,
            retry_delay=90,
        )
    rows: dict[int, Row] = {}
    for minutes in (*cuts, HOURS * 60):
        ledger = simulate(
            store,
            START + timedelta(minutes=minutes),
            outcome=case.fate,
            downtime=case.downtime,
            concurrency=case.concurrency,
        )
        rows |= {row.run_id: row for row in ledger}
    return store, sorted(rows.values(), key=lambda row: (row.at, row.run_id)), ledger


def tell(rows: list[Row]) -> list[object]:
    """Return what two simulations of the same must have in common."""
    return sorted(
        (row.at, row.name, row.due_at, row.attempt, row.state, str(row.finished_at)) for row in rows
    )


@settings(
    max_examples=tries(40, quick=10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=cases())
@example(case=CROSSED)
def test_the_rule_holds_however_time_goes_by(case: Case) -> None:
    """No run without a new success of each upstream, none twice for it, none stuck or forgotten."""
    store, rows, ledger = play(case, case.cuts)
    try:
        successes = _successes(rows)
        first_tries = _first_tries(rows)
        aligned = {(edge.downstream, edge.upstream): edge.align for edge in store.graph().edges}
        for (downstream, upstream), align in aligned.items():
            sends, ended = first_tries[downstream], successes[upstream]
            if align == "same":
                _each_due_time_has_its_success(sends, ended)
            else:
                _each_send_has_its_success([row.at for row in sends], [row.at for row in ended])
            assert len(sends) <= len(ended)
        _nothing_is_stuck(case, ledger, rows, aligned)
        _every_occurrence_is_accounted_for(case, store, rows)
    finally:
        store.close()
    if case.cuts:
        whole, expected, _ = play(case, ())
        whole.close()
        assert tell(rows) == tell(expected)


def _successes(rows: list[Row]) -> Mapping[str, list[Moment]]:
    """Return when, and for which due time, each entry succeeded."""
    found: dict[str, list[Moment]] = defaultdict(list)
    for row in rows:
        if row.state == "succeeded":
            assert row.finished_at is not None
            found[row.name].append(Moment(row.finished_at, row.due_at))
    return found


def _first_tries(rows: list[Row]) -> Mapping[str, list[Moment]]:
    """Return when, and for which due time, each entry was sent, retries apart."""
    found: dict[str, list[Moment]] = defaultdict(list)
    for row in rows:
        if row.sent_at is not None and row.attempt == 1:
            found[row.name].append(Moment(row.sent_at, row.due_at))
    return found


def _each_send_has_its_success(sends: list[datetime], successes: list[datetime]) -> None:
    """Between two sends of a downstream the upstream has succeeded."""
    before = START
    for at in sends:
        assert any(before < done <= at for done in successes), (before, at, successes)
        before = at


def _each_due_time_has_its_success(sends: list[Moment], successes: list[Moment]) -> None:
    """Before a downstream is sent for a due time, the upstream has succeeded for the same one."""
    for sent in sends:
        same = [done for done in successes if done.due_at == sent.due_at and done.at <= sent.at]
        assert same, (sent, successes)
    assert len({sent.due_at for sent in sends}) == len(sends), sends


def _nothing_is_stuck(
    case: Case, ledger: Ledger, rows: list[Row], aligned: Mapping[tuple[str, str], str]
) -> None:
    """What waits at the end has an upstream that gave it nothing since it was last sent."""
    successes, sends = _successes(rows), _first_tries(rows)
    end = START + timedelta(hours=HOURS)
    away = any(begin <= end <= until for begin, until in case.downtime)
    for left in ledger.waiting:
        assert not left.why.startswith("it is broken"), left
        if left.why.startswith("waits for"):
            edges = {up: align for (down, up), align in aligned.items() if down == left.name}
            last = max((sent.at for sent in sends[left.name]), default=START)
            through = max((row.due_at for row in rows if row.name == left.name), default=START)
            same = [
                {done.due_at for done in successes[upstream] if done.due_at > through}
                for upstream, align in edges.items()
                if align == "same"
            ]
            short = any(
                all(done.at <= last for done in successes[upstream])
                for upstream, align in edges.items()
                if align == "latest"
            )
            assert away or short or (same and not set.intersection(*same)), left
        else:
            assert left.since is not None
            assert away or left.since >= end, left


def _every_occurrence_is_accounted_for(case: Case, store: Store, rows: list[Row]) -> None:
    """Each occurrence until the entry's last look was sent, folded, recorded, or still waits."""
    for number, node in enumerate(case.nodes):
        if node.spec is None:
            continue
        name = f"n{number}"
        entry = store.get(name)
        own = [row for row in rows if row.name == name and row.attempt == 1]
        counted = sum(
            row.missed_count + 1 if row.sent_at is not None else row.missed_count for row in own
        )
        through = max((row.due_at for row in own), default=START)
        schedule = parse("cron", node.spec, "UTC", START)
        assert counted == len(schedule.between(START, through, 1000)), (name, own)
        following = schedule.next_after(through)
        end = START + timedelta(hours=HOURS)
        away = any(begin <= end <= until for begin, until in case.downtime)
        if following is not None and following < end:
            assert away or entry.pending_due_at == following, (name, following)
