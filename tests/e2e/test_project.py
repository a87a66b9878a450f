"""The miniature project that end-to-end tests are built on, without beatstore in it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.brokers import Broker
from tests.support.project import Project
from tests.support.wait import wait_until

NewProject = Callable[..., Project]


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


def test_processes_pause_and_die(
    filesystem_broker: Broker, new_project: NewProject, tmp_path: Path
) -> None:
    """A paused process stands still with its children; a killed one leaves none of them."""
    project = new_project(filesystem_broker, None)
    script = "import itertools\nfor n in itertools.count(): print(n, flush=True)"
    process = project.start(["sh", "-c", f"python -c '{script}' & wait"])
    wait_until(process.output, message="some output")
    process.pause()
    # What was written before the pause took hold may still be on its way to the file.
    wait_until(lambda: len(process.output()) == len(process.output()), message="silence")
    before = len(process.output())
    process.resume()
    wait_until(lambda: len(process.output()) > before, message="more output")
    process.kill9()
    assert process.returncode == -signal.SIGKILL
