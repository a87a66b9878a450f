#!/usr/bin/env bash
# Library: py-amqp 5.4.2 (RabbitMQ's transport in kombu 5.7.0).
#
# A good guess: a header value that AMQP has no type for raises a TypeError or ValueError, as a JSON
# body would, and a datetime header arrives as the instant that was sent.
#
# What it does:
#   * UUID, date and timedelta raise FrameSyntaxError. That is one of the transport's
#     `connection_errors`: an `except connection.connection_errors` takes the caller's mistake for
#     a lost broker. (It is not among the recoverable ones.)
#   * Integers from 2**63 raise struct.error, which is in no error family of kombu's.
#   * A datetime loses its microseconds and comes back without a zone, silently: an aware
#     12:00+02:00 is read as a naive 10:00.
#
# Documented: not that we found; the AMQP 0-9-1 timestamp has whole seconds and no zone.
#
# Why it matters to schedulers: due times and ids go into headers. A sender that waits and tries
# again on connection errors tries for ever on a header that can never be encoded.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet amqp==5.4.2 kombu==5.7.0

timeout 50 venv/bin/python - <<'PYTHON'
import datetime
import struct
import uuid

from amqp.exceptions import FrameSyntaxError
from amqp.serialization import dumps, loads
from kombu import Connection

broker = Connection("amqp://")  # nothing is connected: only its error families are read


def encode(value):
    return dumps("F", [{"key": value}])


def round_trip(value):
    return loads("F", encode(value), 0)[0][0]["key"]


for value in (uuid.UUID(int=1), datetime.date(2026, 1, 1), datetime.timedelta(hours=1)):
    try:
        encode(value)
        raise SystemExit(f"changed: {value!r} is encoded")
    except broker.connection_errors as error:
        assert type(error) is FrameSyntaxError, error
        assert not isinstance(error, broker.recoverable_connection_errors)
        print(f"{value!r}: {type(error).__name__}, one of connection_errors")

assert round_trip(2**63 - 1) == 2**63 - 1
try:
    encode(2**63)
    raise SystemExit("changed: 2**63 is encoded")
except struct.error as error:
    families = broker.connection_errors + broker.channel_errors
    assert not isinstance(error, families + (ValueError, TypeError, OverflowError))
    print(f"2**63: struct.error ({error})")

zone = datetime.timezone(datetime.timedelta(hours=2))
sent = datetime.datetime(2026, 1, 1, 12, 0, 0, 999999, tzinfo=zone)
got = round_trip(sent)
print(f"{sent.isoformat()} arrives as {got.isoformat()}")
assert got == datetime.datetime(2026, 1, 1, 10, 0) and got.tzinfo is None
PYTHON
