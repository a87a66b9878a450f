"""A diamond fed every second by real beats and workers, while something is killed.

Each round kills or cuts one thing at a random moment, starts another in its place, and
reckons at the end. `BEATSTORE_TEST_ROUNDS` says how many rounds there are for each database
and each fault, one without it; `BEATSTORE_TEST_SECONDS` for how long each is fed;
`BEATSTORE_TEST_BROKER=redis` is another broker than RabbitMQ; `BEATSTORE_FAULT_SEED` repeats
a run.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.support.brokers import Broker
from tests.support.databases import DatabaseServer
from tests.support.harness.diamond import Diamond
from tests.support.project import Project
from tests.support.wait import wait_until

ROUNDS = int(os.environ.get("BEATSTORE_TEST_ROUNDS", "1"))
SECONDS = float(os.environ.get("BEATSTORE_TEST_SECONDS", "10"))
BROKER = os.environ.get("BEATSTORE_TEST_BROKER", "rabbitmq")
SEED = int(os.environ.get("BEATSTORE_FAULT_SEED", "0")) or random.randrange(1, 10**6)

#: Whatever is silent is noticed quickly.
SETTINGS = {
    "beatstore_heartbeat": 0.5,
    "beatstore_claim_ttl": 3,
    "beat_max_loop_interval": 0.3,
    "broker_transport_options": {"visibility_timeout": 5},
}

CUT = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mariadb": "SELECT id FROM information_schema.processlist"
    " WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}


def kill_child(diamond: Diamond, rng: random.Random) -> None:
    """Kill one child of the worker; the worker starts another."""
    os.kill(rng.choice(diamond.children()), signal.SIGKILL)


def kill_worker(diamond: Diamond, rng: random.Random) -> None:
    """Kill the worker with its children, and start another."""
    diamond.workers[-1].kill9()
    diamond.start_worker()


def kill_beat(diamond: Diamond, rng: random.Random) -> None:
    """Kill one of two beats, and start another."""
    beat = rng.choice([beat for beat in diamond.beats if beat.running])
    beat.kill9()
    diamond.start_beat()


def cut_database(diamond: Diamond, rng: random.Random) -> None:
    """End all connections to the database."""
    engine = diamond.store.database.engine
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        ended = connection.execute(text(CUT[_backend(diamond)])).all()
        for (number,) in ended if _backend(diamond) == "mariadb" else ():
            with suppress(OperationalError):  # it may have ended by itself
                connection.execute(text(f"KILL CONNECTION {number}"))


FAULTS: dict[str, Callable[[Diamond, random.Random], None]] = {
    "child": kill_child,
    "worker": kill_worker,
    "beat": kill_beat,
    "database": cut_database,
}


def _backend(diamond: Diamond) -> str:
    name = diamond.store.database.engine.dialect.name
    return "mariadb" if name == "mysql" else name


def play(diamond: Diamond, fault: str, align: str, rng: random.Random) -> Counter[str]:
    """Feed a diamond, let the fault happen, and reckon when all is quiet."""
    diamond.add(align)
    diamond.start()
    moment, end = rng.uniform(1, SECONDS * 0.8), SECONDS
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() >= begun + moment, SECONDS + 5, interval=0.001)
    FAULTS[fault](diamond, rng)
    wait_until(lambda: time.monotonic() >= begun + end, SECONDS + 5)
    diamond.stop_feeding()
    diamond.wait_until_quiet()
    return diamond.reckon(align)


@pytest.fixture
def new_diamond(
    request: pytest.FixtureRequest,
    database_server: DatabaseServer,
    new_project: Callable[..., Project],
) -> Iterator[Callable[[], Diamond]]:
    """Hand out what makes a diamond on a new database; the one before it is gone by then."""
    broker: Broker = request.getfixturevalue(f"{BROKER}_broker")
    made: list[Diamond] = []

    def end() -> None:
        for diamond in made:
            diamond.close()
            database_server.drop(diamond.url)
            broker.purge()
        made.clear()

    def new() -> Diamond:
        end()
        url = database_server.create_migrated()
        project = new_project(broker, url, SETTINGS, "tests.support.diamond_app")
        made.append(Diamond(project, url))
        return made[-1]

    yield new
    end()


@pytest.mark.slow
@pytest.mark.timeout(120 + ROUNDS * (SECONDS + 60))
@pytest.mark.parametrize("align", ["latest", "same"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_diamond(
    fault: str, align: str, backend: str, new_diamond: Callable[[], Diamond]
) -> None:
    """Whatever is killed, every occurrence is accounted for, and none stuck, early or doubled."""
    if (backend, fault) == ("sqlite", "database"):
        pytest.skip("SQLite has no connections to cut")
    for number in range(ROUNDS):
        states = play(new_diamond(), fault, align, random.Random(SEED + number))
        print(f"BEATSTORE_FAULT_SEED={SEED + number} {backend} {fault} {align}: {dict(states)}")


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_diamond_and_a_killed_worker(new_diamond: Callable[[], Diamond]) -> None:
    """The same, once, with the fault that touches most, as a quick look."""
    print(f"BEATSTORE_FAULT_SEED={SEED}")
    play(new_diamond(), "worker", "latest", random.Random(SEED))
