"""Arguments as the columns hold them: what a worker would get, or an error by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given

from beatstore.database.columns import Typed
from beatstore.definition.values import check_serializer, decoded, encoded, opened
from beatstore.errors import InvalidEntryError
from tests.support.carried import VALUES, Money, as_sent, money_known, nested


@pytest.fixture
def money() -> Iterator[None]:
    """Let kombu know a type of the application's, and timedeltas."""
    with money_known(spans=True):
        yield


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_is_stored_as_strict_json(kind: str) -> None:
    """What is stored is JSON that any database holds exactly, and stands for what is sent."""
    stored = encoded("args", [VALUES[kind]])
    text = json.dumps(stored, allow_nan=False)
    assert repr(decoded("args", json.loads(text))) == repr(as_sent([VALUES[kind]]))
    whole: list[int] = []
    json.loads(text, parse_int=lambda digits: whole.append(int(digits)))
    # MySQL's JSON makes a float of a larger integer.
    assert all(-(2**63) <= number < 2**64 for number in whole)


@given(nested())
def test_a_worker_gets_what_was_given(value: Any) -> None:
    """Any nesting of the types is, after the database, what kombu's JSON makes of it."""
    stored = json.loads(json.dumps(encoded("args", [value]), allow_nan=False))
    assert repr(decoded("args", stored)) == repr(as_sent([value]))


def test_a_type_of_the_applications_is_carried(money: None) -> None:
    """What `register_type` taught kombu is stored, with the values in it, and read again."""
    given = {"price": Money(Decimal("1.50")), "wait": timedelta(minutes=1)}
    stored = encoded("kwargs", given)
    assert stored["price"]["__value__"] == {"amount": {"__type__": "decimal", "__value__": "1.50"}}
    assert decoded("kwargs", stored) == as_sent(given) == given


def test_an_object_that_says_its_json_is_that_json() -> None:
    """`__json__`, kombu's own hook, says what is stored."""

    class Order:
        def __json__(self) -> Any:
            return {"id": UUID(int=7), "lines": (1, 2)}

    assert decoded("args", encoded("args", [Order()])) == [{"id": UUID(int=7), "lines": [1, 2]}]


@pytest.mark.parametrize(
    ("value", "path", "write"),
    [
        ({"a": {"__type__": "order", "__value__": 1}}, "kwargs['a']", "other keys"),
        ({"__type__": "order", "__value__": 1}, "kwargs", "other keys"),
        (
            {"a": [{"__type__": "datetime", "__value__": "2026-01-01T00:00:00"}]},
            "kwargs['a'][0]",
            "datetime.datetime(2026, 1, 1, 0, 0)",
        ),
        ({"a": {"__type__": "beatstore.number", "__value__": "1"}}, "kwargs['a']", "itself, 1"),
        ({"a": {"__type__": [], "__value__": "1"}}, "kwargs['a']", "other keys"),
        ({"a": {"__type__": "uuid", "__value__": "zz"}}, "kwargs['a']", "other keys"),
        ({"a": {1: "x", "1": "y"}}, "kwargs['a']", "each key once"),
        ({"a": {(1, 2): "x"}}, "kwargs['a']", "'(1, 2)'"),
        ({"a": timedelta(minutes=1)}, "kwargs['a']", "60.0"),
        ({"a": {1, 2}}, "kwargs['a']", "sorted"),
        ({"a": print}, "kwargs['a']", "compute in the task"),
        ({"a": object()}, "kwargs['a']", "str"),
        ({"a": 10**5000}, "kwargs['a']", "it as text"),
        ({"a": ["\ud800"]}, "kwargs['a'][0]", ""),
    ],
)
def test_what_would_be_altered_is_refused_by_its_path(value: Any, path: str, write: str) -> None:
    """What kombu can't carry, or would read as another value, is refused with a remedy."""
    with pytest.raises(InvalidEntryError) as caught:
        encoded("kwargs", value)
    assert caught.value.field == path
    assert write in str(caught.value.write)
    assert str(caught.value).startswith(path)


def test_a_type_that_nobody_can_read_again_is_refused() -> None:
    """An encoder whose value has no decoder here would end in a message that workers drop."""

    class Odd:
        def __json__(self) -> Any:
            return {"__type__": "odd", "__value__": 1}

    with pytest.raises(InvalidEntryError, match="can decode again"):
        encoded("args", [Odd()])


def test_a_value_that_contains_itself_is_refused() -> None:
    """Endless values end in an error, also those that an object's own JSON makes endless."""

    class Endless:
        def __json__(self) -> Any:
            return self

    endless: list[Any] = []
    endless.append(endless)
    for value in (endless, Endless()):
        with pytest.raises(InvalidEntryError, match="levels"):
            encoded("args", value)


def test_what_was_read_from_a_row_may_be_stored_again() -> None:
    """A value that a row held is known by its class, and is the same when it is given back."""
    held = Typed({"__type__": "uuid", "__value__": {"hex": UUID(int=3).hex}})
    stored = encoded("kwargs", {"a": held, "b": 1})
    assert decoded("kwargs", stored) == {"a": UUID(int=3), "b": 1}


@pytest.mark.parametrize(
    "stored",
    [
        {"__type__": "order", "__value__": 1},
        {"__type__": {}, "__value__": 1},
        {"__type__": "uuid", "__value__": {"hex": "zz"}},
        {"__type__": "datetime", "__value__": 5},
        {"__type__": "beatstore.number", "__value__": "[]"},
        {"__type__": "beatstore.number", "__value__": None},
    ],
)
def test_a_value_that_kombu_cannot_read_is_an_error(stored: Any) -> None:
    """What a row holds under an unknown type, or spoiled, is named, and shown as it stands."""
    with pytest.raises(InvalidEntryError) as caught:
        decoded("args", [1, [stored]])
    assert (caught.value.field, caught.value.given) == ("args", stored)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("args", {"a": 1}),
        ("args", {"__type__": "bytes", "__value__": "x"}),
        ("kwargs", {"__type__": "uuid", "__value__": {"hex": UUID(int=3).hex}}),
        ("options", []),
    ],
)
def test_a_message_needs_a_list_and_two_dicts(field: str, value: Any) -> None:
    """A column that stands for something else than arguments is refused by its name."""
    columns: dict[str, Any] = {"args": [], "kwargs": {}, "options": {}, field: value}
    with pytest.raises(InvalidEntryError) as caught:
        opened(**columns)
    assert caught.value.field == field


@pytest.mark.parametrize("serializer", [None, "json", "pickle", "no such serializer"])
def test_a_serializer_that_takes_all_values(serializer: str | None) -> None:
    """JSON as kombu writes it and pickle take all; an unknown one is left to the beat."""
    stored = encoded("args", [UUID(int=1), datetime(2026, 1, 1, tzinfo=timezone.utc)])
    check_serializer(serializer, stored)


def test_a_serializer_is_asked_whether_it_can_write_the_values() -> None:
    """YAML, where it is installed, has no UUIDs."""
    pytest.importorskip("yaml")
    stored = encoded("args", [UUID(int=1), datetime(2026, 1, 1, tzinfo=timezone.utc)])
    check_serializer("yaml", encoded("args", [datetime(2026, 1, 1), b"\xff", 2**70]))
    with pytest.raises(InvalidEntryError, match="yaml") as caught:
        check_serializer("yaml", stored)
    assert caught.value.field == "options['serializer']"
