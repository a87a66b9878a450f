#!/usr/bin/env bash
# Library: celery 5.7.0.
#
# A good guess: `chord(header, body).freeze(id)` makes the chord's result known by that id whatever
# the body is, and a task that does `self.replace(chord(...))` hands its own id on, so whoever waits
# for the task gets the chord's result.
#
# What it does: with a task as the body it is so. With a group as the body, freeze(id) returns a
# GroupResult with an id of its own. A task that replaces itself by such a chord never ends: its id
# stays PENDING, though header and body all run. (A plain group as the replacement is fine: replace()
# appends a collecting task to it.)
#
# Documented: replace() promises that the new task inherits the id; the exception is not mentioned.
#
# Why it matters to schedulers: a scheduler that waits for the outcome of the id it sent waits for
# ever, and an entry without overlap never runs again.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet celery==5.7.0

timeout 50 venv/bin/python - <<'PYTHON'
from celery import Celery, chord, group
from celery.contrib.testing.worker import start_worker
from celery.exceptions import TimeoutError

app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
ran = []


@app.task
def part(name):
    ran.append(name)
    return name


def canvas(body):
    return chord([part.si("header 1"), part.si("header 2")], body)


def group_body():
    return group(part.si("body 1"), part.si("body 2"))


@app.task(bind=True)
def host(self, kind):
    raise self.replace(canvas(part.si("body") if kind == "task" else group_body()))


by_task = canvas(part.si("body")).freeze("the-id").id
by_group = canvas(group_body()).freeze("the-id").id
print("freeze('the-id') with a task as the body: ", by_task)
print("freeze('the-id') with a group as the body:", by_group)
assert by_task == "the-id" and by_group != "the-id"

with start_worker(app, perform_ping_check=False, pool="solo", loglevel="ERROR"):
    answer = host.delay("task").get(timeout=15)
    print("replaced by a chord whose body is a task:", answer)
    ran.clear()
    result = host.delay("group")
    try:
        result.get(timeout=6)
        raise SystemExit("changed: the replaced task has a result")
    except TimeoutError:
        print("replaced by a chord whose body is a group:", result.state, "- ran:", sorted(ran))

assert answer == "body"
assert result.state == "PENDING"
assert sorted(ran) == ["body 1", "body 2", "header 1", "header 2"], ran
PYTHON
