"""The switch: it passes IP packets between places, late, with losses, or not at all.

It is a program of its own, so that nothing else keeps its packets waiting. It gets the addresses
of the places, each with the open file of its TUN device; from then on, each line that it reads
is a state of the network as JSON, and it answers with `ok` when that holds:

    {"delay_s": 0.025, "loss": 0.01, "cut": [["198.18.7.1", "198.18.7.5"]], "near": "198.18.7.254"}

The time from one place to another is the same for all, so a round trip takes twice as long. What
comes from or goes to the place that is `near` is neither late nor lost.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import select
import sys
import time
from contextlib import suppress
from socket import inet_ntoa
from typing import Any

__all__ = ["Switch"]

#: So many bytes are read at once: a packet, whatever the device takes.
_PACKET = 65536

#: So many packets of a place are taken before the next one has its turn.
_TURN = 64


class Switch:
    """Passes packets on until its standard input ends.

    Args:
        devices: the open file of each address.
    """

    def __init__(self, devices: dict[str, int]) -> None:
        self._devices = devices
        self._delay_s = 0.0
        self._loss = 0.0
        self._cut: set[frozenset[str]] = set()
        self._near = ""
        self._number = 0
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._random = random.Random(0)

    def run(self) -> None:
        """Pass packets on, each when its time has come."""
        stdin = sys.stdin.fileno()
        files = [stdin, *self._devices.values()]
        while True:
            wait = None
            if self._waiting:
                wait = max(self._waiting[0][0] - time.monotonic(), 0.0)
            readable, _, _ = select.select(files, [], [], wait)
            for file in readable:
                if file != stdin:
                    self._take(file)
                elif not self._obey():
                    return
            self._deliver()

    def _obey(self) -> bool:
        """Read a state of the network; say whether there was one."""
        line = sys.stdin.readline()
        if not line:
            return False
        state: dict[str, Any] = json.loads(line)
        self._delay_s, self._loss = state["delay_s"], state["loss"]
        self._cut = {frozenset(pair) for pair in state["cut"]}
        self._near = state["near"]
        print("ok", flush=True)
        return True

    def _take(self, file: int) -> None:
        """Read packets of a place, and let each wait for its time."""
        for _ in range(_TURN):
            try:
                packet = os.read(file, _PACKET)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4:
                continue
            source, target = inet_ntoa(packet[12:16]), inet_ntoa(packet[16:20])
            device = self._devices.get(target)
            if device is None or frozenset((source, target)) in self._cut:
                continue
            near = self._near in (source, target)
            if near or self._random.random() >= self._loss:
                self._number += 1
                at = time.monotonic() + (0.0 if near else self._delay_s)
                heapq.heappush(self._waiting, (at, self._number, device, packet))

    def _deliver(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, _, device, packet = heapq.heappop(self._waiting)
            with suppress(OSError):  # a device that takes no more has lost it, as any network may
                os.write(device, packet)


if __name__ == "__main__":
    Switch(json.loads(sys.argv[1])).run()
