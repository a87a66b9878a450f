"""The process that writes a scheduler's entries, in its environment.

It reads a line of JSON from standard input for each thing to do, `[method, arguments]`, and
answers with a line when it is done: the time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from benchmarks.peers.app import app
from benchmarks.peers.peer import PEER, WHERE, Due, Writer, peer_called


def do(writer: Writer, method: str, given: Any) -> None:
    if method == "store_due":
        writer.store_due([Due(*one) for one in given])
    elif method == "store_far":
        writer.store_far(given)
    elif method == "add":
        writer.add(given)
    else:
        raise ValueError(f"no method {method!r}")


def main() -> None:
    # What the packages print must not get among the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    writer = peer_called(os.environ[PEER]).writer(app, os.environ[WHERE])
    print(time.time(), file=answers)
    for line in sys.stdin:
        do(writer, *json.loads(line))
        print(time.time(), file=answers)


main()
