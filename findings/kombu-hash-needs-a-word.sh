#!/usr/bin/env bash
# Library: kombu 5.7.0, topic exchanges of its virtual transports (Redis, SQS, memory and others).
#
# A good guess: a queue that is bound with `orders.#` gets what is sent to `orders`, as it does with
# RabbitMQ. "#" stands for zero or more words.
#
# What it does: "#" stands for any text between the dots that stand beside it, and the dots must be
# there. `orders` is not for `orders.#`, nor `eu` for `#.eu`, nor `orders.eu` for `orders.#.eu`. And
# since the text may be anything, `orders.` with an empty word is. A message that no queue is bound for
# is dropped, and publish() says nothing.
#
# Documented: AMQP 0-9-1 (3.1.3.3, The Topic Exchange Type): "#" matches zero or more words. kombu's
# reference (kombu.transport.virtual.exchange) says "one or more words".
#
# Why it matters to schedulers: a task that is routed by `orders` in an app which was made for RabbitMQ
# never arrives once the broker is Redis, or in tests with the memory transport. Nothing is raised on
# either side, and the schedule's last run looks fine.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet kombu==5.7.0

timeout 50 venv/bin/python - <<'PYTHON'
import kombu

BINDINGS = ("#", "orders.#", "#.eu", "orders.#.eu", "orders.*")
KEYS = ("orders", "orders.new", "eu", "orders.eu", "orders.new.eu")
BY_AMQP = {
    "orders": ["#", "orders.#"],
    "orders.new": ["#", "orders.#", "orders.*"],
    "eu": ["#", "#.eu"],
    "orders.eu": ["#", "orders.#", "#.eu", "orders.#.eu", "orders.*"],
    "orders.new.eu": ["#", "orders.#", "#.eu", "orders.#.eu"],
}

seen = {}
with kombu.Connection("memory://") as connection:
    exchange = kombu.Exchange("events", type="topic")
    channel = connection.channel()
    queues = {
        key: kombu.Queue(f"bound by {key}", exchange, routing_key=key)(channel) for key in BINDINGS
    }
    for queue in queues.values():
        queue.declare()
    for key in KEYS:
        kombu.Producer(channel, exchange).publish({}, routing_key=key)
        seen[key] = [name for name, queue in queues.items() if queue.get(no_ack=True)]

missing = {}
for key in KEYS:
    missing[key] = [name for name in BY_AMQP[key] if name not in seen[key]]
    print(f"{key:14} arrives by", ", ".join(seen[key]), "and not by", ", ".join(missing[key]) or "-")
assert missing == {
    "orders": ["orders.#"],
    "orders.new": [],
    "eu": ["#.eu"],
    "orders.eu": ["orders.#.eu"],
    "orders.new.eu": [],
}, missing
PYTHON
