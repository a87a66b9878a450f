"""The miniature project that end-to-end tests are built on, without beatstore in it."""

from __future__ import annotations

import signal
import subprocess

from tests.support.brokers import Broker
from tests.support.project import NewProject
from tests.support.wait import wait_until


def test_a_worker_runs_what_was_sent(broker: Broker, new_project: NewProject) -> None:
    """A real worker takes messages off each kind of broker and leaves a line for each run."""
    project = new_project(broker, None)
    worker = project.worker()
    with project.app() as app:
        app.send_task("tests.note", (1,), {"k": 2}, task_id="a", headers={"beatstore_entry": "e"})
        app.send_task("tests.fail", task_id="b")
    wait_until(lambda: len(project.runs()) == 2, 30, worker.output)
    note = next(run for run in project.runs() if run.task == "tests.note")
    assert (note.id, note.args, note.kwargs) == ("a", [1], {"k": 2})
    assert note.headers == {"beatstore_entry": "e"}
    assert broker.drain() == []
    worker.wait_for_output("tests.fail always fails")
    assert worker.terminate() == 0


def test_processes_pause_and_die(filesystem_broker: Broker, new_project: NewProject) -> None:
    """A paused process stands still with its children; a killed one takes them along."""

    def states() -> str:
        listed = ["ps", "-o", "stat=", "-g", str(process.pid)]
        found = subprocess.run(listed, check=False, capture_output=True, text=True).stdout
        return "".join(line[0] for line in found.splitlines())

    project = new_project(filesystem_broker, None)
    process = project.start(["sh", "-c", "echo up; sleep 60 & sleep 60"])
    process.wait_for_output("up")
    wait_until(lambda: len(states()) == 3, message="a shell and two sleepers")
    process.pause()
    wait_until(lambda: states() == "TTT", message="all of them stopped")
    process.resume()
    wait_until(lambda: states() == "SSS", message="all of them asleep again")
    process.kill9()
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not states(), message="all of them gone")
