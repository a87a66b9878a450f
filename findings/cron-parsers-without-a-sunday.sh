#!/usr/bin/env bash
# Libraries: pycron 3.3.0 (which taskiq 0.13.0 asks what is due), periodiq 0.14.0 (the scheduler of
# dramatiq 2.2.1, with pendulum 3.3.0).
#
# A good guess: Sunday is both 0 and 7, in any parser that accepts both, and `sun` is the same day.
#
# What it does: each of the two accepts all spellings, and each has some that are never due.
#   * pycron numbers Sunday 0 when it looks at the clock, so 7 is no day. A range that ends on Sunday
#     loses it: `5-7`, `fri-sun`, `6-0`; of `sat-mon` there is Saturday only.
#   * periodiq numbers Sunday 7 when it looks at the clock, so 0, `sun` and its own `@weekly` are no
#     day. It wakes up on Sunday for them, finds nothing to send, and sleeps for another week.
# No spelling of "each Sunday" works in both. Nothing is logged.
#
# Documented: crontab(5) has 0 and 7 for Sunday. The READMEs speak of "cron-like" expressions; pycron's
# has ranges and single numbers, and neither says which number is which day.
#
# Why it matters to schedulers: the weekly job never runs, and an expression that is moved from one
# scheduler to another is accepted and loses its day.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet pycron==3.3.0 taskiq==0.13.0 periodiq==0.14.0 dramatiq==2.2.1 \
    pendulum==3.3.0

timeout 50 venv/bin/python - <<'PYTHON'
import contextlib
import unittest.mock

import dramatiq
import pendulum
import periodiq
import pycron
from dramatiq.brokers.stub import StubBroker
from taskiq.cli.scheduler.run import is_cron_task_now

MIDNIGHTS = [pendulum.datetime(2026, 11, 30).add(days=day) for day in range(7)]  # from a Monday
SPELLINGS = ("0", "7", "sun", "5-7", "fri-sun", "sat-mon")


def days(midnights):
    return " ".join(midnight.format("ddd") for midnight in midnights) or "never"


def by_pycron(spec):
    due = [midnight for midnight in MIDNIGHTS if pycron.is_now(spec, midnight)]
    assert due == [midnight for midnight in MIDNIGHTS if is_cron_task_now(spec, midnight)]
    return days(due)


def by_periodiq(spec):
    """Let periodiq's scheduler wake up at each midnight; return when it sent a message."""
    broker = StubBroker(middleware=[periodiq.PeriodiqMiddleware()])
    dramatiq.actor(lambda: None, actor_name="report", broker=broker, periodic=periodiq.cron(spec))
    scheduler = periodiq.Scheduler(list(broker.actors.values()))
    sent = []
    for midnight in MIDNIGHTS:
        with contextlib.ExitStack() as patches:
            patches.enter_context(unittest.mock.patch("pendulum.now", return_value=midnight))
            for name in ("alarm", "signal", "sleep"):
                patches.enter_context(unittest.mock.patch.object(periodiq, name))
            scheduler.schedule()
        queue = broker.queues["default"]
        if not queue.empty():
            queue.get()
            sent.append(midnight)
    return days(sent)


seen = {day: by_pycron(f"0 0 * * {day}") for day in SPELLINGS}
sent = {day: by_periodiq(f"0 0 * * {day}") for day in ("0", "7", "sun", "5-7")}
sent["@weekly"] = by_periodiq("@weekly")
wakes = periodiq.cron("@weekly").next_valid_date(MIDNIGHTS[0])
for name, result in (("pycron", seen), ("periodiq", sent)):
    for day, due in result.items():
        print(f"{name:9} {day:8} {due}")
print("periodiq wakes up for @weekly on", wakes.format("ddd D MMM"))

assert seen == {
    "0": "Sun",
    "7": "never",
    "sun": "Sun",
    "5-7": "Fri Sat",
    "fri-sun": "Fri Sat",
    "sat-mon": "Sat",
}, seen
assert sent == {"0": "never", "7": "Sun", "sun": "never", "5-7": "Fri Sat Sun", "@weekly": "never"}, (
    sent
)
assert wakes == MIDNIGHTS[6]
PYTHON
