#!/usr/bin/env bash
# Library: celery 5.7.0.
#
# A good guess: a chain is stored as a flat list of its steps, so its JSON is as deep for eight stages
# as for two; and what goes over the wire looks like what json.dumps(chain) shows.
#
# What it does: `chain(...)` joins its steps by `|`. A group followed by a task becomes a chord, and
# all that comes later moves into that chord's body. Each further group -> task stage nests the
# JSON of the signature 5 levels deeper. Sending it flattens the bodies again: the messages of the
# same chain stay equally deep, whatever its length.
#
# Documented: that a group before a task is turned into a chord is; the depth is not, that we found.
#
# Why it matters to schedulers: a canvas in a JSON column is the deep form. MariaDB's JSON_VALID
# takes 31 levels, so six such stages can be sent but not stored there.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet celery==5.7.0

timeout 50 venv/bin/python - <<'PYTHON'
import json

from celery import Celery, chain, group
from celery.signals import before_task_publish

app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)


@app.task
def step(*args):
    return None


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, (list, tuple)):
        return 1 + max(map(depth, value), default=0)
    return 0


sent = []


@before_task_publish.connect
def note(body=None, **kwargs):
    sent.append(depth(json.loads(json.dumps(body))))


stored, wire = {}, {}
for stages in (2, 4, 6, 8):
    steps = []
    for _ in range(stages):
        steps += [group(step.si(), step.si()), step.si()]
    canvas = chain(*steps)
    stored[stages] = depth(json.loads(json.dumps(canvas)))
    sent.clear()
    canvas.apply_async()
    wire[stages] = max(sent)
    print(f"{stages} stages: JSON of the signature {stored[stages]} deep, messages {wire[stages]}")

assert [stored[b] - stored[a] for a, b in ((2, 4), (4, 6), (6, 8))] == [10, 10, 10], stored
assert stored[6] > 31
assert len(set(wire.values())) == 1 and wire[8] < 31, wire
PYTHON
