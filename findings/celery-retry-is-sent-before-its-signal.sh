#!/usr/bin/env bash
# Library: celery 5.7.0.
#
# A good guess: the task_retry signal fires first, or at least together with the decision, so a
# receiver can note down "retry number 1 is to come" before the retry is on the broker.
#
# What it does: `self.retry()` publishes the next attempt inside the task, then raises Retry. Only
# when the tracer catches that exception are the state RETRY stored, on_retry called and task_retry
# sent. The retry's message is out before all of them, and another worker may already run it. The
# signal's request still has the old number of retries.
#
# Documented: both parts are; their order is not, that we found.
#
# Why it matters to schedulers: a tracker that writes on task_retry can write after the retry has
# ended, and put "retrying" over "succeeded". Only before_task_publish runs before the message.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet celery==5.7.0

timeout 50 venv/bin/python - <<'PYTHON'
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import after_task_publish, before_task_publish, task_retry

app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
seen = []


@app.task(bind=True, max_retries=1)
def job(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return "done"


@before_task_publish.connect
def before(headers=None, **kwargs):
    seen.append(("about to publish", headers["retries"]))


@after_task_publish.connect
def after(headers=None, **kwargs):
    seen.append(("published", headers["retries"]))


@task_retry.connect
def retrying(request=None, **kwargs):
    with app.connection_for_read() as connection:
        waiting = connection.default_channel.queue_declare("celery", passive=True).message_count
    seen.append(("task_retry", request.retries))
    print("when task_retry fires, messages on the queue:", waiting)
    assert waiting == 1


with start_worker(app, perform_ping_check=False, pool="solo", loglevel="ERROR"):
    result = job.delay()
    assert result.get(timeout=20) == "done"

for name, retries in seen:
    print(f"{name} (retries={retries})")
assert seen == [
    ("about to publish", 0),
    ("published", 0),
    ("about to publish", 1),
    ("published", 1),
    ("task_retry", 0),
], seen
PYTHON
