"""Half a minute of beatstore, with nothing but Python: `python examples/demo.py`.

Stores a one-shot, a cron entry with seconds and an interval, starts a real celery beat
and a real celery worker, shows what is due, sent and run, and ends with the ledger. The
exit status says whether every occurrence ran exactly once.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

from beatstore import Cron, Every, Once, Store

HERE = Path(__file__).resolve().parent
SECONDS = 18
ENTRIES = {
    "welcome-mail": "once, 5 s after the start",
    "every-3-seconds": "cron */3 in the seconds field",
    "poll-sensor": "every 4 seconds",
}


def main() -> int:
    """Run the demo, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="beatstore-demo-") as folder:
        return Demo(Path(folder)).run()


class Demo:
    """One run of the demo in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("broker", "control"):
            (folder / name).mkdir()
        self.store = Store(f"sqlite:///{folder / 'beatstore.db'}")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.drawn = 0

    def run(self) -> int:
        """Migrate, start, watch, stop, account."""
        print("beatstore demo: SQLite, a broker made of files, one beat, one worker\n")
        self.store.migrate()
        try:
            self.start("worker", "--concurrency=1", "--loglevel=WARNING")
            self.start("beat", "--scheduler=beatstore:DBScheduler", "--pidfile=")
            self.wait_for_beat()
            self.add_entries()
            self.watch()
            self.pause_and_drain()
        except DemoError as error:
            print(f"\n{error}", file=sys.stderr)
            self.show_logs()
            return 1
        finally:
            self.stop()
        return self.account()

    def add_entries(self) -> None:
        """Store the three entries."""
        now = datetime.now(timezone.utc)
        add = self.store.add
        add("welcome-mail", "demo_app.note", Once(now + timedelta(seconds=5)))
        add("every-3-seconds", "demo_app.note", Cron("* * * * * */3"))
        add("poll-sensor", "demo_app.note", Every(4))

    def start(self, command: str, *options: str) -> None:
        """Start a celery process that logs into the demo's folder."""
        paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "BEATSTORE_DEMO": str(self.folder),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        with (self.folder / f"{command}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "demo_app", command, *options],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)

    def wait_for_beat(self) -> None:
        """Wait until beat has written its row."""
        self.wait(lambda: bool(self.store.status().beats), 15, "beat did not start")

    def watch(self) -> None:
        """Show the table until the time is up."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            self.check_processes()
            self.draw(int(end - time.monotonic()))
            time.sleep(0.5 if sys.stdout.isatty() else 3)

    def pause_and_drain(self) -> None:
        """Pause the recurring entries, and wait until what was sent has run."""
        for name in ENTRIES:
            self.store.pause(name)
        self.wait(
            lambda: not self.runs("claimed") and len(self.ledger()) >= len(self.runs("sent")),
            10,
            "not everything that was sent has run",
        )

    def wait(self, done, seconds: float, problem: str) -> None:
        """Wait until `done()`, or raise with `problem`."""
        end = time.monotonic() + seconds
        while not done():
            self.check_processes()
            if time.monotonic() > end:
                raise DemoError(problem)
            time.sleep(0.1)

    def check_processes(self) -> None:
        """Raise if beat or the worker has ended."""
        for process in self.processes:
            if process.poll() is not None:
                raise DemoError(f"a process ended by itself: {' '.join(process.args[4:6])}")

    def stop(self) -> None:
        """End both processes, gently first."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def show_logs(self) -> None:
        """Print the last lines of both logs."""
        for log in sorted(self.folder.glob("*.log")):
            print(f"--- {log.name}", *log.read_text().splitlines()[-15:], sep="\n", file=sys.stderr)

    def runs(self, state: str | None = None) -> list:
        """Return the runs stored so far, oldest first."""
        return sorted(self.store.runs(state=state, limit=1000), key=lambda run: run.due_at)

    def ledger(self) -> list[dict]:
        """Return what the worker wrote down."""
        path = self.folder / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def draw(self, left: int) -> None:
        """Draw the table over the last one in a terminal; print a line elsewhere."""
        runs, ran = self.runs(), Counter(line["entry"] for line in self.ledger())
        rows = []
        for name, words in ENTRIES.items():
            mine = [run for run in runs if run.entry_name == name]
            sent = sum(run.state == "sent" for run in mine)
            due = self.store.get(name).next_due_at
            rows.append(
                (name, words, f"{due:%H:%M:%S}" if due else "-", len(mine), sent, ran[name])
            )
        if not sys.stdout.isatty():
            print("; ".join(f"{row[0]}: due {row[3]}, sent {row[4]}, run {row[5]}" for row in rows))
            return
        lines = [f"{'entry':<17}{'schedule':<32}{'next due':<11}{'due':>5}{'sent':>6}{'run':>5}"]
        lines += [f"{r[0]:<17}{r[1]:<32}{r[2]:<11}{r[3]:>5}{r[4]:>6}{r[5]:>5}" for r in rows]
        lines.append(f"{left:>3} s to go")
        if self.drawn:
            print(f"\x1b[{self.drawn}A", end="")
        print("".join(f"\x1b[2K{line}\n" for line in lines), end="", flush=True)
        self.drawn = len(lines)

    def account(self) -> int:
        """Print the ledger, and return 0 if every occurrence ran once."""
        runs = self.runs("sent")
        ran: dict[int, list[float]] = {}
        for line in self.ledger():
            ran.setdefault(line["run_id"], []).append(line["ran_at"])
        print(f"\n{'due':<14}{'entry':<18}{'sent after':>12}{'run after':>12}")
        problems = self.gaps(runs)
        for run in runs:
            times = ran.get(run.id, [])
            sent = (run.sent_at - run.due_at).total_seconds()
            after = f"{(times[0] - run.due_at.timestamp()) * 1000:9.0f} ms" if times else "never"
            print(f"{run.due_at:%H:%M:%S.%f} {run.entry_name:<17}{sent * 1000:9.0f} ms{after:>12}")
            if len(times) != 1:
                problems.append(
                    f"{run.entry_name} due {run.due_at:%H:%M:%S} ran {len(times)} times"
                )
        for problem in problems:
            print(f"PROBLEM: {problem}")
        if not problems:
            print(f"\n{len(runs)} occurrences due, {len(runs)} sent, each run once.")
        return 1 if problems else 0

    def gaps(self, runs: list) -> list[str]:
        """Compare the runs with the schedules themselves: nothing missing between two runs."""
        problems = []
        for name in ENTRIES:
            entry = self.store.get(name)
            dues = [run.due_at for run in runs if run.entry_name == name]
            if not dues:
                problems.append(f"{name} never came due")
                continue
            first = entry.created_at if entry.kind != "once" else dues[0] - timedelta(seconds=1)
            schedule = {"once": Once(dues[0]), "cron": Cron("* * * * * */3")}.get(
                entry.kind, Every(4, anchor=entry.created_at)
            )
            expected = schedule.between(first, dues[-1], 1000)
            problems += [f"{name} missed {at:%H:%M:%S}" for at in expected if at not in dues]
        return problems


class DemoError(Exception):
    """Something did not happen in time."""


if __name__ == "__main__":
    sys.exit(main())
