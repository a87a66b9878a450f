"""`python -m benchmarks.peers`: measure beatstore beside others, and print, keep and draw it."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.app import TASK
from benchmarks.beat import local_app
from benchmarks.peers.cells import CELLS
from benchmarks.peers.environments import python_of, versions_of
from benchmarks.peers.peer import NAMES, Peer, peer_called
from benchmarks.peers.results import Result, medians, read, tables, write
from benchmarks.peers.scene import DidNotFinishError, NotMeasuredError, Scene
from benchmarks.places import Places, analyze, server_of
from benchmarks.report import machine
from benchmarks.throughput import bare
from tests.support.absent import Unavailable
from tests.support.brokers import Broker
from tests.support.processes import ROOT

DATABASES = ("postgresql", "mariadb", "sqlite")

#: Entries that are due when a beat is killed, however many are stored.
_KILLED = 1_000

METHOD = (
    "Each scheduler is a real `celery beat` in a virtual environment of its own, over the same "
    "servers, in turns. Stored entries are crons for 29 February, and what is due is intervals. "
    "Messages are counted on the broker. A bare loop of apply_async sends before and after each "
    "burst. RedBeat and PersistentScheduler run with --max-interval 5 in place of their 300 s. "
    "A cell that took longer than its limit says how far it came; the rate is then that of what "
    "was sent within the limit. Several turns give the median."
)


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=METHOD)
    add = parser.add_argument
    add(
        "--schedulers",
        type=_of(NAMES),
        default=list(NAMES),
        metavar="NAMES",
        help=f"of {', '.join(NAMES)}",
    )
    add(
        "--cells",
        type=_of(CELLS),
        default=list(CELLS),
        metavar="NAMES",
        help=f"of {', '.join(CELLS)}",
    )
    add("--sizes", type=_numbers, default=[100, 10_000], metavar="N,N", help="stored entries")
    add(
        "--burst",
        type=int,
        default=10_000,
        metavar="K",
        help="due at once, at most as many as are stored",
    )
    add(
        "--rates",
        type=_numbers,
        default=[50, 200],
        metavar="R,R",
        help="due per second of a steady load",
    )
    add(
        "--databases",
        type=_of(DATABASES),
        default=["postgresql"],
        metavar="NAMES",
        help=f"of {', '.join(DATABASES)}",
    )
    add(
        "--brokers",
        type=_of(("redis", "rabbitmq")),
        default=["redis"],
        metavar="NAMES",
        help="of redis, rabbitmq",
    )
    add("--limit", type=float, default=60, metavar="SECONDS", help="that a cell may take")
    add("--turns", type=int, default=1, help="how often each cell is measured")
    add("--json", type=Path, metavar="FILE", help="where to write what was measured")
    add("--plots", type=Path, metavar="DIRECTORY", help="where to draw pictures of it")
    add("--draw", type=Path, metavar="FILE", help="measure nothing; print and draw what is in FILE")
    add(
        "--environments",
        type=Path,
        default=ROOT / ".peers",
        metavar="DIRECTORY",
        help="of the schedulers",
    )
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part.replace("_", "")) for part in text.split(",")]


def _of(known: Any) -> Any:
    def names(text: str) -> list[str]:
        given = text.split(",")
        for name in given:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no {name!r}; there are {', '.join(known)}")
        return given

    return names


def main() -> None:
    options = _options()
    # So that processes, databases and queues are cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.draw:
        about, results = read(options.draw)
    else:
        about, results = _measure(options)
    shown = medians(results)
    print(f"\n{about['machine']}\n{about['method']}")
    for table in tables(shown):
        print(f"\n{table}")
    if options.plots:
        from benchmarks.peers.plots import draw

        draw(shown, options.plots)


def _measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Result]]:
    peers = [peer_called(name) for name in options.schedulers]
    pythons = {}
    for peer in peers:
        print(f"environment of {peer.name} ...", flush=True)
        pythons[peer.name] = python_of(peer, options.environments.resolve())
    about: dict[str, Any] = {
        "machine": machine(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "method": METHOD,
        "limit_s": options.limit,
        "turns": options.turns,
        "versions": {name: versions_of(python) for name, python in pythons.items()},
        "servers": {},
    }
    results: list[Result] = []
    with Places(quick=False) as places:
        for stored in options.sizes:
            for kind in options.brokers:
                run = _Run(places, options, pythons, about["servers"])
                try:
                    with ExitStack() as stack:
                        broker = stack.enter_context(places.broker(kind))
                        scenes = [
                            scene
                            for peer in peers
                            for scene in run.scenes(stack, peer, broker, stored)
                        ]
                        for result in run.cells(scenes):
                            results.append(result)
                            # What was measured so far is kept if the rest is interrupted.
                            if options.json:
                                write(options.json, about, results)
                except Unavailable as reason:
                    print(f"{kind} left out: {reason}")
    return about, results


class _Run:
    """All schedulers over one broker, with one number of stored entries."""

    def __init__(
        self,
        places: Places,
        options: argparse.Namespace,
        pythons: dict[str, Path],
        servers: dict[str, str],
    ) -> None:
        self.places, self.options = places, options
        self.pythons, self.servers = pythons, servers

    def scenes(self, stack: ExitStack, peer: Peer, broker: Broker, stored: int) -> Iterator[Scene]:
        """Make a scheduler's places, fill them, and yield a scene for each.

        All use one broker, each with a queue of its own.
        """
        wanted = [kind for kind in peer.databases if kind in self.options.databases]
        for kind in wanted or [kind for kind in peer.databases if kind not in DATABASES]:
            directory = self.places.directory / f"{peer.name}-{kind}-{broker.name}-{stored}"
            try:
                where = self._where(stack, kind, directory, broker)
            except Unavailable as reason:
                print(f"{kind} left out: {reason}")
                continue
            scene = Scene(
                peer,
                self.pythons[peer.name],
                directory,
                where=where,
                kind=kind,
                broker=Broker(broker.name, broker.url),
                limit=self.options.limit,
            )
            stack.callback(scene.close)
            began = time.monotonic()
            scene.store_far(stored)
            if kind in DATABASES:
                analyze(where)
            print(
                f"{peer.name} in {kind}: {stored:,} stored in {time.monotonic() - began:.0f} s",
                flush=True,
            )
            yield scene

    def _where(self, stack: ExitStack, kind: str, directory: Path, own: Broker) -> str:
        """Return the URL or file for a scheduler's entries."""
        if kind == "file":
            return str(directory / "celerybeat-schedule")
        if kind == "redis":
            redis = own if own.name == "redis" else stack.enter_context(self.places.broker("redis"))
            return redis.url
        url = stack.enter_context(self.places.database(kind, empty=True))
        self.servers.setdefault(kind, server_of(url))
        if kind == "mariadb":
            url = sa.make_url(url).set(drivername="mysql+pymysql").render_as_string(False)
        return url

    def cells(self, scenes: list[Scene]) -> Iterator[Result]:
        """Measure each cell of each scene, scene by scene, as often as there are turns."""
        for turn in range(self.options.turns):
            for scene in scenes if turn % 2 == 0 else reversed(scenes):
                for cell in self.options.cells:
                    for load in self._loads(scene, cell):
                        result = self._cell(scene, cell, load)
                        label = f"{result.peer} in {result.kept_in}, {result.stored:,}: {cell}"
                        shown = {name: round(value, 3) for name, value in result.figures.items()}
                        print(f"{label}: {result.said} {shown}", flush=True)
                        yield result

    def _loads(self, scene: Scene, cell: str) -> list[int]:
        """Return how many are due: at once, or per second of a steady load."""
        if cell == "steady":
            return list(self.options.rates)
        # A beat can only be killed in the middle of a burst that takes a while.
        most = _KILLED if cell == "kill" else scene.stored
        return [min(self.options.burst, most)]

    def _cell(self, scene: Scene, cell: str, load: int) -> Result:
        """Measure one cell, and the bare loop around it where that is to be compared."""
        result = Result(cell, scene.peer.name, scene.kind, scene.broker.name, scene.stored)
        if cell == "change" and not scene.peer.takes_changes:
            return replace(result, said="its entries can't change while it runs")
        before = self._bare(scene) if cell == "burst" else 0.0
        try:
            figures = CELLS[cell](scene, load)
            said = ""
        except DidNotFinishError as reason:
            figures, said = {}, f"did not finish in {scene.limit:g} s: {reason}"
        except NotMeasuredError as reason:
            figures, said = {}, f"not measured: {reason}"
        if figures.pop("finished", 1.0) == 0:
            said = f"did not finish in {scene.limit:g} s, {figures['sent']:,.0f} sent"
        if cell == "steady":
            figures.setdefault("rate", load)
        if "msgs_per_s" in figures:
            figures["bare_msgs_per_s"] = (before + self._bare(scene)) / 2
            figures["to_bare"] = figures["msgs_per_s"] / figures["bare_msgs_per_s"]
        return replace(result, figures=figures, said=said)

    def _bare(self, scene: Scene) -> float:
        """Return the messages per second of a loop that only sends."""
        scene.tap.purge()
        app = local_app(scene.broker)
        assert TASK in app.tasks
        bare(app, scene.broker, 100)
        rate = bare(app, scene.broker, 2_000).rate
        app.close()
        return rate


if __name__ == "__main__":
    main()
