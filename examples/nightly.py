"""A nightly pipeline that runs by itself, with nothing but Python: `python examples/nightly.py`.

              clean
    extract <        > load      and an alarm, should anything go wrong
              enrich

A real celery beat and a real worker run it, and what happens is told as it happens. The
first attempt at `enrich` fails, and is made up for by a retry. With `--broken` all fail.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from beatstore import After, Store

HERE = Path(__file__).resolve().parent
BROKEN = "--broken" in sys.argv


def add_entries(store):
    """Store the pipeline: one entry has a clock, the others wait for those before them."""
    store.put("extract", "nightly_app.extract", "0 2 * * *", timezone="Europe/Berlin")
    part = {"max_retries": 1, "retry_delay": 2, "tags": ["nightly"]}
    up = After("extract", on_upstream_failure="skip")
    store.put("clean", "nightly_app.clean", after=[up], **part)
    store.put("enrich", "nightly_app.enrich", after=[up], **part)
    both = [After(name, on_upstream_failure="skip") for name in ("clean", "enrich")]
    store.put("load", "nightly_app.load", after=both)
    store.put("alarm", "nightly_app.alarm", after=[After("load", on="failure")])


def main():
    with tempfile.TemporaryDirectory(prefix="beatstore-nightly-") as name:
        folder = Path(name)
        for part in ("broker", "control"):
            (folder / part).mkdir()
        store = Store(f"sqlite:///{folder / 'beatstore.db'}")
        store.migrate()
        add_entries(store)
        processes = [
            start(folder, "worker", "--concurrency=2", "--loglevel=WARNING"),
            start(folder, "beat", "--scheduler=beatstore:DBScheduler", "--pidfile="),
        ]
        try:
            wait_for_both(store, processes)
            print("It is not two o'clock, so the night begins by hand: store.trigger('extract')\n")
            store.trigger("extract")
            if tell(store, processes, last="alarm" if BROKEN else "load"):
                print(f"\nstore.explain('load') says:\n{explained(store, 'load')}")
                print(f"\nstore.graph(name='load').mermaid() is:\n{drawn(store, 'load')}")
                return account(folder)
        finally:
            stop(processes)
        for log in sorted(folder.glob("*.log")):
            print(f"--- {log.name}", *log.read_text().splitlines()[-15:], sep="\n", file=sys.stderr)
        return 1


def tell(store, processes, last):
    """Print what is new until `last` has run; say whether it has."""
    begin = time.monotonic()
    told = set()
    while time.monotonic() - begin < 30 and all(one.poll() is None for one in processes):
        runs = sorted(store.runs(limit=100), key=lambda run: run.id)
        for line in [*map(said_of_run, runs), *map(said_of_wait, store.entries())]:
            if line and line not in told:
                told.add(line)
                print(f"{time.monotonic() - begin:5.1f} s  {line}", flush=True)
                if line.startswith("load     waits"):
                    print(f"         Why? store.explain('load') says:\n{explained(store, 'load')}")
        if any(run.entry_name == last and run.state == "succeeded" for run in runs):
            return True
        time.sleep(0.1)
    return False


def said_of_run(run):
    which = f"{run.entry_name:<8} " + (f"(attempt {run.attempt}) " if run.attempt > 1 else "")
    if run.state == "claimed" and run.claimed_by is None and run.attempt > 1:
        return f"{which}follows in a moment"
    words = {
        "started": "has started",
        "succeeded": "is done",
        "failed": f"failed: {run.error}",
        "skipped": f"was skipped: {run.reason}",
        "lost": f"was lost: {run.reason}",
    }.get(run.state)
    return words and which + words


def said_of_wait(entry):
    return entry.pending_since and f"{entry.name:<8} {entry.pending_reason}"


def explained(store, name):
    return "\n".join(f"           {sentence}" for sentence in store.explain(name).sentences)


def drawn(store, name):
    return "\n".join(f"    {line}" for line in store.graph(name=name).mermaid().splitlines())


def account(folder):
    """Say what ran how often, and return 0 if that is as it should be."""
    ran = [line.split()[0] for line in (folder / "ran.txt").read_text().splitlines()]
    if BROKEN:
        good = sorted(ran) == ["alarm", "clean", "extract"]
        print("\nload was given up, and the alarm went off." if good else f"PROBLEM: {ran}")
    else:
        good = sorted(ran) == ["clean", "enrich", "extract", "load"] and ran[-1] == "load"
        print(f"\n{', '.join(ran)}: each ran once, in order." if good else f"PROBLEM: {ran}")
    return 0 if good else 1


# -- the processes -------------------------------------------------------------------------


def start(folder, command, *options):
    """Start a celery process that logs into the folder."""
    environment = {
        **os.environ,
        "NIGHTLY": str(folder),
        "NIGHTLY_BROKEN": "1" if BROKEN else "",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
    }
    with (folder / f"{command}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "nightly_app", command, *options],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for_both(store, processes):
    """Wait until beat and worker are on record, 20 s at most."""
    end = time.monotonic() + 20
    while time.monotonic() < end and all(one.poll() is None for one in processes):
        status = store.status()
        if status.beats and status.workers:
            return
        time.sleep(0.1)


def stop(processes):
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
