"""Three beats, workers, a database and a broker, each in a network of its own, cut in every way.

`BEATSTORE_FAULT_SEED` repeats what the user does. `make regions` measures as well.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.checker import check
from tests.chaos.report import summary
from tests.regions.cluster import PAIRS
from tests.regions.cuts import CutPlan, play_cuts
from tests.regions.network import Network
from tests.support.absent import Unavailable, absent

SEED = int(os.environ.get("BEATSTORE_FAULT_SEED", "0")) or random.randrange(1, 10**6)


@pytest.fixture
def network() -> Iterator[Network]:
    """Hand out a network of three places."""
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network(["one", "other", "third"]))
        except Unavailable as reason:
            absent("namespaces", reason)
        yield network


def test_the_network_is_late_and_can_be_cut(network: Network) -> None:
    """Packets take as long as the test says; where two are cut off, they vanish until it ends."""
    asking, answering, third = (_bound(network, place) for place in ("one", "other", "third"))
    for round_trip_s in (0.0, 0.2):
        network.set(round_trip_s=round_trip_s)
        began = time.monotonic()
        assert _answered(asking, answering)
        assert round_trip_s <= time.monotonic() - began < round_trip_s + 0.5
    network.cut("one", "other")
    assert not _answered(asking, answering)
    assert _answered(third, answering)
    network.heal()
    assert _answered(asking, answering)
    network.set(round_trip_s=0.0, loss=1.0)
    assert not _answered(asking, answering)
    for one in (asking, answering, third):
        one.close()


def _bound(network: Network, place: str) -> socket.socket:
    """Return a socket for datagrams in a place."""
    with network.inside(place):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind((network.address(place), 0))
    bound.settimeout(1)
    return bound


def _answered(asking: socket.socket, answering: socket.socket) -> bool:
    """Send a datagram and an answer to it; say whether both came."""
    try:
        asking.sendto(b"question", answering.getsockname())
        answering.sendto(b"answer", answering.recvfrom(64)[1])
        return asking.recv(64) == b"answer"
    except TimeoutError:
        return False


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("database", "broker"),
    [("postgresql", "redis"), ("mariadb", "redis"), ("postgresql", "rabbitmq")],
)
def test_every_pair_is_cut(database: str, broker: str, tmp_path: Path) -> None:
    """Whoever can't reach whom, nothing is lost or doubled, and the other beats are in time."""
    try:
        ledger = play_cuts(CutPlan(SEED, database, broker), tmp_path)
    except Unavailable as reason:
        absent("namespaces", reason)
    cuts = Counter(event.target for event in ledger.events if "partition" in event.kind)
    assert cuts == Counter(f"{one} and {server}" for one, server in PAIRS)
    violations = check(ledger)
    assert not violations, summary(ledger, violations)
