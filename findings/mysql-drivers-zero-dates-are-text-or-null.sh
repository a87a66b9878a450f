#!/usr/bin/env bash
# Libraries: PyMySQL 1.2.4, asyncmy 0.2.18 and mysql-connector-python 26.10.0 under SQLAlchemy 2.1.9.
#
# A good guess: a DATETIME column gives a datetime or None, with every driver. A value that is no
# date, such as 0000-00-00 00:00:00, raises an error, or is None.
#
# What it does: MariaDB's default sql_mode stores 0000-00-00, and a day or month of zero. PyMySQL and
# asyncmy return such a value as text, in a result whose other rows are datetimes. The connector of
# MySQL returns None: the value looks like NULL, though `IS NULL` does not find its row. SQLAlchemy's
# DateTime changes nothing of what these drivers return.
#
# Documented: not by PyMySQL, apart from the examples in the docstring of its converter. MariaDB says
# which sql_mode refuses them (NO_ZERO_DATE, NO_ZERO_IN_DATE); its default has neither.
#
# Why it matters to schedulers: a `NOT NULL` column that was written by hand or by an old dump breaks
# the comparison `due_at <= now` with a TypeError for all rows of the batch, or reads as "never".

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet PyMySQL==1.2.4 asyncmy==0.2.18 mysql-connector-python==26.10.0 SQLAlchemy==2.1.9

venv/bin/python - <<'PYTHON'
from datetime import datetime

import asyncmy.converters
import pymysql.converters
import sqlalchemy as sa
from mysql.connector.conversion import MySQLConverter

#: As the server writes them into a result.
GOOD, ZERO, NO_DAY = "2026-11-30 07:57:44", "0000-00-00 00:00:00", "2026-11-00 00:00:00"

connector = MySQLConverter("utf8mb4", True)
drivers = {
    "pymysql": pymysql.converters.convert_datetime,
    "asyncmy": asyncmy.converters.convert_datetime,
    "mysqlconnector": lambda text: connector._datetime_to_python(text.encode()),
}
for name, read in drivers.items():
    assert read(GOOD) == datetime(2026, 11, 30, 7, 57, 44), name
    print(f"{name}: {ZERO} is {read(ZERO)!r}, {NO_DAY} is {read(NO_DAY)!r}")

assert [read(ZERO) for read in drivers.values()] == [ZERO, ZERO, None]
assert [read(NO_DAY) for read in drivers.values()] == [NO_DAY, NO_DAY, None]

for dialect in ("pymysql", "asyncmy", "mysqlconnector"):
    made = sa.dialects.registry.load(f"mysql.{dialect}")()
    type_ = sa.DateTime().dialect_impl(made)
    assert type_.result_processor(made, None) is None, dialect
print("SQLAlchemy's DateTime hands these values on as they are")
PYTHON
