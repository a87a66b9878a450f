#!/usr/bin/env bash
# Client: psycopg 3.3.9 (psycopg[binary]); no server is needed.
#
# A good guess: psycopg 3 reads the placeholders of a statement once. A program that executes the
# same `... WHERE id IN (%s, %s, ...)` again and again pays for that only the first time, the more
# so once the statement is prepared.
#
# What it does: what was read is remembered only of statements with at most 50 parameters (and 4,096
# characters). One parameter more, and the text is taken apart by a regular expression at each
# execution, prepared or not, which takes some ten times as long. `= ANY(%s)` with one list stays
# below both limits, however long the list is.
#
# Documented: no; the limits are constants in psycopg/_queries.py, with a link to a discussion of
# the memory that a cache of long statements takes.
#
# Why it matters to schedulers: they mark a batch of rows in one statement, mostly by a list of ids
# of always the same length, in the one loop that has to be quick.
#
# Seen on 2026-11-27 (CPython 3.11; the last figure varies, 9 to 19 here):
#     IN, 50 parameters    remembered
#     IN, 51 parameters    read anew each time
#     IN, 100 parameters   read anew each time
#     ANY, a list of 100   remembered
#     51 parameters take 17 times as long as 50 to be made ready

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet "psycopg[binary]==3.3.9"

venv/bin/python - <<'PYTHON'
import timeit

import psycopg
from psycopg._queries import PostgresQuery, _query2pg
from psycopg.adapt import Transformer

assert psycopg.__version__ == "3.3.9"


def convert(statement, values):
    """Do what Cursor.execute does with a statement before it sends it."""
    PostgresQuery(Transformer()).convert(statement, values)


def reads_again(statement, values):
    """Say whether a statement that was executed before is read anew."""
    convert(statement, values)
    before = _query2pg.cache_info().hits
    convert(statement, values)
    return _query2pg.cache_info().hits == before


def in_list(count):
    return f"SELECT id FROM run WHERE id IN ({', '.join(['%s'] * count)})", list(range(count))


def micros(statement, values):
    return min(timeit.repeat(lambda: convert(statement, values), number=200, repeat=5)) / 200 * 1e6


any_of = "SELECT id FROM run WHERE id = ANY(%s)", [list(range(100))]
found = {
    "IN, 50 parameters": reads_again(*in_list(50)),
    "IN, 51 parameters": reads_again(*in_list(51)),
    "IN, 100 parameters": reads_again(*in_list(100)),
    "ANY, a list of 100": reads_again(*any_of),
}
for name, anew in found.items():
    print(f"{name:20} {'read anew each time' if anew else 'remembered'}")
took = {50: micros(*in_list(50)), 51: micros(*in_list(51))}
print(f"51 parameters take {took[51] / took[50]:.0f} times as long as 50 to be made ready")
assert list(found.values()) == [False, True, True, False], found
assert took[51] > 1.5 * took[50], took
PYTHON
