"""What `explain` says that an entry waits for is what its row is blocked by."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beatstore import After, Store, testing
from tests.support.thorough import tries

START = datetime(2026, 1, 15, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
NAMES = ("a", "b", "c")


@pytest.fixture
def store() -> Iterator[Store]:
    store = testing.store(START)
    yield store
    store.close()


def agree(store: Store) -> None:
    """See that for every entry the answer and the row name the same upstreams."""
    by_id = {entry.id: entry.name for entry in store.entries()}
    for entry in store.entries():
        if entry.pending_since is None:
            continue
        said = {up.name for up in store.explain(entry.name).waits_for}
        blocked_by = by_id.get(entry.blocked_by or 0)
        assert blocked_by in said or blocked_by == entry.name, (entry, said)


@pytest.mark.parametrize("on", ["failure", "done"])
def test_a_retry_to_come_is_no_end(store: Store, on: Any) -> None:
    """An upstream that has failed once, and is tried again, is still waited for."""
    store.add("up", "t", "0 1 * * *", max_retries=1, retry_delay=3600)
    store.add("down", "t", "0 1 * * *", after=[After("up", on=on, align="same")])
    testing.simulate(store, START + HOUR + timedelta(minutes=10), outcome={"up": "failed"})
    assert [up.name for up in store.explain("down").waits_for] == ["up"]
    agree(store)


def test_what_was_given_up_is_an_end(store: Store) -> None:
    """Only the upstream that has not ended is named, not the one that was given up."""
    store.add("root", "t", "0 1 * * *")
    skip = After("root", align="same", on_upstream_failure="skip")
    store.add("mid", "t", "0 1 * * *", after=[skip])
    store.add("slow", "t", "0 1 * * *")
    ends = [After(name, on="done", align="same") for name in ("mid", "slow")]
    store.add("end", "t", "0 1 * * *", after=ends)
    until = START + HOUR + timedelta(minutes=10)
    testing.simulate(store, until, outcome={"root": "failed"}, duration={"slow": 7200})
    assert [up.name for up in store.explain("end").waits_for] == ["slow"]
    agree(store)


edges = st.builds(
    lambda on, align, skip: {"on": on, "align": align, "on_upstream_failure": skip},
    st.sampled_from(["success", "done", "failure"]),
    st.sampled_from([None, "latest", "same"]),
    st.sampled_from(["wait", "skip"]),
)


@given(
    retries=st.lists(st.integers(0, 1), min_size=3, max_size=3),
    after=st.lists(edges, min_size=3, max_size=3),
    clocked=st.booleans(),
    outcomes=st.lists(st.sampled_from(["succeeded", "failed"]), min_size=6, max_size=6),
    minutes=st.integers(1, 400),
)
@settings(
    max_examples=tries(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_the_graph_and_the_outcomes(
    retries: list[int],
    after: list[dict[str, Any]],
    clocked: bool,
    outcomes: list[str],
    minutes: int,
) -> None:
    """For random edges and outcomes, at any moment, the answer and the row agree."""
    store = testing.store(START)
    for name, count in zip(NAMES, retries, strict=True):
        store.add(name, "t", "0 * * * *", max_retries=count, retry_delay=600)
    ups = [After(name, **edge) for name, edge in zip(NAMES, after, strict=True)]
    store.add("down", "t", "0 * * * *" if clocked else None, after=ups)
    store.add("last", "t", after=["down"])
    testing.simulate(
        store,
        START + timedelta(minutes=minutes),
        outcome={name: outcomes[2 * at : 2 * at + 2] for at, name in enumerate(NAMES)},
        duration={"a": 60, "b": 1200, "c": 4000},
    )
    agree(store)
    store.close()
