"""What kombu's JSON carries beside JSON: values to send, and the bodies of messages.

VALUES          some of each type, by name
nested()        any of them in lists and dicts, for Hypothesis
as_sent(value)  what a worker gets of a value by kombu's JSON
bodies(broker)  the bodies of the messages in a queue, as the bytes that they are
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import kombu
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from kombu import serialization
from kombu.utils import json as kombu_json

from tests.support.brokers import Broker

__all__ = ["VALUES", "Money", "as_sent", "bodies", "money_known", "nested"]

VALUES: dict[str, Any] = {
    "uuid": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "decimal": Decimal("12.340"),
    "decimal beyond floats": Decimal("1E+400"),
    "date": date(2026, 3, 29),
    "datetime": datetime(2026, 3, 29, 1, 30, 0, 5, tzinfo=timezone.utc),
    "datetime of a zone": datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    "naive datetime": datetime(9999, 12, 31, 23, 59, 59, 999999),
    "time": time(23, 59, 59, 7),
    "bytes": b"plain \x00 \xc3\xbc",
    "bytes that are no text": b"\xff\xfe\x00",
    "big integer": 2**70,
    "huge integer": -(10**300),
    "integer at the edge": 2**64 - 1,
    "nan": float("nan"),
    "infinity": float("inf"),
    "less than all": float("-inf"),
    "negative zero": -0.0,
    "keys of other types": {5: "a", 2.5: "b", True: "c", None: "d", -(2**70): "e"},
    "nested": {"a": [{"b": (uuid.UUID(int=1), [Decimal("0.1"), {"c": b"x"}])}]},
    "one of the two keys": {"__type__": "uuid"},
    "more than the two keys": {"__type__": "uuid", "__value__": 1, "more": 2},
}


class Money:
    """A value of an application's own type."""

    def __init__(self, amount: Decimal) -> None:
        self.amount = amount

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.amount == other.amount

    def __hash__(self) -> int:
        return hash(self.amount)

    def __repr__(self) -> str:
        return f"Money({self.amount})"


@contextmanager
def money_known(*, spans: bool = False) -> Iterator[None]:
    """Let kombu know `Money`, and with `spans` also timedeltas, as an application would."""
    known: Any = kombu_json
    known.register_type(Money, "money", lambda one: {"amount": one.amount}, _money)
    if spans:
        known.register_type(timedelta, "span", timedelta.total_seconds, _span)
    try:
        yield
    finally:
        for kind, marker in ((Money, "money"), (timedelta, "span")):
            known._encoders.pop(kind, None)
            known._decoders.pop(marker, None)


def _money(given: Any) -> Money:
    return Money(given["amount"])


def _span(given: Any) -> timedelta:
    return timedelta(seconds=given)


def as_sent(value: Any) -> Any:
    """Return what a worker gets of a value, by kombu's JSON."""
    content_type, encoding, body = serialization.dumps(value, "json")
    return serialization.loads(body, content_type, encoding)


def bodies(broker: Broker) -> list[bytes]:
    """Take the messages off the broker's queue, and return their bodies."""
    found: list[bytes] = []
    options = broker.transport_options
    with kombu.Connection(broker.url, transport_options=options) as connection:
        channel: Any = connection.channel()
        while (raw := channel.basic_get(broker.queue, no_ack=True)) is not None:
            body = channel.message_to_python(raw).body
            found.append(body.encode() if isinstance(body, str) else bytes(body))
    return found


def nested() -> SearchStrategy[Any]:
    """Generate values that kombu's JSON carries, in lists, tuples and dicts."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**200), 2**200),
        st.floats(),
        text,
        st.binary(max_size=6),
        st.uuids(),
        st.decimals(allow_nan=False),
        st.dates(),
        st.datetimes(),
        st.datetimes(timezones=st.just(timezone.utc) | st.just(ZoneInfo("Asia/Kathmandu"))),
        st.times(),
    )
    keys = st.one_of(text, text, st.integers(), st.floats(allow_nan=False), st.none())
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(keys, inner, max_size=3).filter(_told_apart),
        ),
        max_leaves=12,
    )


def _told_apart(made: dict[Any, Any]) -> bool:
    """Say whether the keys differ as text too; the others are refused, and have a test."""
    return len({str(as_sent({key: 0})) for key in made}) == len(made)
