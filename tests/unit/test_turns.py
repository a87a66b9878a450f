"""What `make test` leaves out, and what keeps a test in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.databases import BACKENDS
from tests.support.thorough import leave_for_thorough, leave_repeats


class Test:
    """As much of pytest's item as the turns look at."""

    __test__ = False

    def __init__(self, name: str, marks: tuple[pytest.Mark, ...], **params: str) -> None:
        self.nodeid = f"tests/test_sqlite.py::{name}[{'-'.join(params.values())}]"
        self.callspec = SimpleNamespace(params=params)
        self.marks = marks
        self.left_out = False

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next(self.iter_markers(name), None)

    def iter_markers(self, name: str) -> Iterator[pytest.Mark]:
        return (mark for mark in self.marks if mark.name == name)

    def add_marker(self, name: str) -> None:
        assert name in ("thorough", "repeat")
        self.left_out = True


def kept(*marks: Any, present: tuple[str, ...] = BACKENDS, count: int = 60) -> list[dict[str, str]]:
    """Return the parameters with which tests stay that run on every database, in two ways."""
    tests = [
        Test(f"test_{number}", tuple(one.mark for one in marks), backend=backend, way=way)
        for number, backend, way in product(range(count), BACKENDS, ("url", "app"))
    ]
    leave_for_thorough(tests, present)  # type: ignore[arg-type]
    return [one.callspec.params for one in tests if not one.left_out]


def test_each_variant_runs_on_one_database() -> None:
    """The databases take turns: each test runs once in each way, and each of them has a share."""
    found = kept()
    assert [one["way"] for one in found].count("url") == 60 == len(found) // 2
    shares = {name: [one["backend"] for one in found].count(name) for name in BACKENDS}
    assert min(shares.values()) > 20, shares


def test_a_turn_is_the_same_each_time() -> None:
    """What a run left out, the next one leaves out, and so does each process of a run."""
    assert kept() == kept()


def test_a_database_that_is_not_here_has_no_turn() -> None:
    """On a machine without MariaDB no test is lost to it."""
    found = kept(present=("sqlite", "postgresql"))
    assert len(found) == 120
    assert {one["backend"] for one in found} == {"sqlite", "postgresql"}


def test_marks_keep_databases() -> None:
    """A module may ask for SQLite and a server, or for one, and then a test for one of its own."""
    every = pytest.mark.every_database
    only = pytest.mark.quick_on("mariadb")
    shares = Counter(one["backend"] for one in kept(every))
    assert shares["sqlite"] == shares["postgresql"] + shares["mariadb"] == 120
    assert min(shares.values()) > 40, shares
    assert Counter(one["backend"] for one in kept(every, present=("sqlite", "postgresql"))) == {
        "sqlite": 120,
        "postgresql": 120,
    }
    assert len(kept(every, pytest.mark.by_turns("backend"))) == 120
    for marks in ((only,), (only, every)):
        assert [one["backend"] for one in kept(*marks)] == ["mariadb"] * 120


def test_other_parameters_take_turns_on_request() -> None:
    """Of a parameter that is named, one value stays, beside the database or with each of them."""
    assert len(kept(pytest.mark.by_turns("way"))) == 60
    assert len(kept(pytest.mark.by_turns("way"), pytest.mark.every_database)) == 120


def test_what_is_the_same_on_any_database_is_not_repeated() -> None:
    """In a thorough run one database has all variants, and each of the others has one."""
    ways = [str(number) for number in range(10)]
    for marks, expected in ((("any_database",), [10, 1, 1]), ((), [10, 10, 10])):
        given = tuple(getattr(pytest.mark, name).mark for name in marks)
        tests = [
            Test("test_words", given, backend=backend, way=way)
            for backend, way in product(BACKENDS, ways)
        ]
        leave_repeats(tests)  # type: ignore[arg-type]
        left = [one.callspec.params["backend"] for one in tests if not one.left_out]
        assert [left.count(backend) for backend in BACKENDS] == expected


def test_what_is_heavy_is_left_out() -> None:
    """Nothing of a heavy test stays."""
    assert kept(pytest.mark.heavy) == []
