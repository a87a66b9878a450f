#!/usr/bin/env bash
# Libraries: pendulum 3.3.0, APScheduler 3.11.3 with its SQLAlchemyJobStore (SQLAlchemy 2.1.9),
# time-machine 3.6.0 as the clock.
#
# A good guess: a pickled time is the same instant when it is read. Python's datetime keeps `fold`, by
# which the second of two equal times on the clock is known, and pendulum.DateTime is a datetime.
#
# What it does: pendulum's own way of pickling leaves `fold` out. In the hour that comes twice when
# clocks go back, a time of the second hour is read as that of the first, an hour early. copy.copy()
# loses the hour in the same way, and copy.deepcopy() does not.
# APScheduler's store for databases pickles jobs. A one-off job that is due in the second hour is found
# at the right instant, for that is in a column of its own. Then the time that was pickled says that it
# is late by an hour, so it is "missed", does not run, and is deleted. From memory, or with a datetime,
# it runs.
#
# Documented: the loss is issue 908 of pendulum, open at the time of writing; the manual says nothing.
#
# Why it matters to schedulers: job queues, caches and process pools pickle their arguments. What comes
# out of a worker differs from what went in for one hour a year, and a test in summer can't show it.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet pendulum==3.3.0 apscheduler==3.11.3 sqlalchemy==2.1.9 time-machine==3.6.0 \
    tzdata==2026.6

cat >pickled.py <<'PYTHON'
import concurrent.futures
import copy
import datetime
import importlib.metadata
import logging
import pickle
import time
import zoneinfo

import pendulum
import time_machine
from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_MISSED
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

UTC = datetime.timezone.utc
SECOND = {
    "datetime": datetime.datetime(
        2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1
    ),
    "pendulum": pendulum.datetime(2026, 10, 25, 2, 30, tz="Europe/Berlin", fold=1),
}


def in_utc(due):
    return f"{due.astimezone(UTC):%H:%M}"


def report():
    pass


def outcome(store):
    """Have a scheduler run a job for each kind of time; return what became of them."""
    became = {}
    scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": store})
    for code, what in ((EVENT_JOB_EXECUTED, "ran"), (EVENT_JOB_MISSED, "missed")):
        scheduler.add_listener(lambda event, what=what: became.update({event.job_id: what}), code)
    with time_machine.travel(datetime.datetime(2026, 10, 25, 1, 29, 55, tzinfo=UTC)):
        scheduler.start()
        for kind, due in SECOND.items():
            scheduler.add_job(report, "date", run_date=due, id=kind)
        for _ in range(150):
            time.sleep(0.1)
            if len(became) == 2:
                break
        left = scheduler.get_jobs()
        scheduler.shutdown()
    return became, left


if __name__ == "__main__":
    logging.disable()
    ways = {"pickle": lambda due: pickle.loads(pickle.dumps(due))}
    ways["copy"], ways["deepcopy"] = copy.copy, copy.deepcopy
    print("pendulum", importlib.metadata.version("pendulum"))
    seen = {}
    for name, way in ways.items():
        seen[name] = {kind: in_utc(way(due)) for kind, due in SECOND.items()}
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        there = pool.map(in_utc, SECOND.values())
        seen["in another process"] = dict(zip(SECOND, there, strict=True))
    for name, times in seen.items():
        print(f"  02:30 for the second time, in UTC, {name:19}", times)
    assert all(in_utc(due) == "01:30" for due in SECOND.values())
    early = {"datetime": "01:30", "pendulum": "00:30"}
    assert seen["pickle"] == seen["in another process"] == seen["copy"] == early, seen
    assert seen["deepcopy"] == dict.fromkeys(SECOND, "01:30"), seen

    print("APScheduler", importlib.metadata.version("apscheduler"))
    memory, left = outcome(MemoryJobStore())
    print("  jobs kept in memory:  ", dict(sorted(memory.items())), "left:", left)
    assert (memory, left) == (dict.fromkeys(SECOND, "ran"), [])
    stored, left = outcome(SQLAlchemyJobStore("sqlite:///jobs.db"))
    print("  jobs kept in database:", dict(sorted(stored.items())), "left:", left)
    assert (stored, left) == ({"datetime": "ran", "pendulum": "missed"}, [])
PYTHON
timeout 90 venv/bin/python pickled.py
