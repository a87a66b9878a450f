"""Tasks that an app does not know: who is told of them, and how often."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from beatstore import Declared, Every, Store
from beatstore.discovery.modules import import_code
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_app, new_claim, running, send

Said = Callable[[], list[str]]


@pytest.fixture
def app(memory_broker: Broker, tmp_path: Path) -> Iterator[Celery]:
    """Return an app that knows one task."""
    app = new_app(memory_broker, f"sqlite:///{tmp_path}/b.db", result_expires=None)

    @app.task(name="proj.reports.build", shared=False)
    def build() -> None:
        """Do nothing."""

    yield app
    app.close()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """Return what says which warnings have been logged so far."""
    caplog.set_level(logging.WARNING, "beatstore.store.unknown_tasks")
    return lambda: [
        record.getMessage() for record in caplog.records if record.name.endswith("unknown_tasks")
    ]


RUNS_ON = "it runs only on workers that have it"


def test_a_misspelt_task_is_told_of_when_it_is_added(app: Celery, said: Said) -> None:
    """`add` with an app says once which task was meant; nothing is refused."""
    store = Store.from_app(app)
    store.migrate()
    app.finalize()
    for name in ("a", "b"):
        assert store.add(name, "proj.report.build", Every(60)).task == "proj.report.build"
    assert said() == [
        f"this app has no task 'proj.report.build': {RUNS_ON}; did you mean 'proj.reports.build'?"
    ]
    store.put("c", "proj.reports.bild", Every(60))
    store.change("a", task="proj.reports.buildd")
    assert len([*map(str, store.entries())]) == 3
    store.add("d", app.tasks["proj.reports.build"], Every(60))
    # A web server need not have imported it.
    store.add("e", "elsewhere.of.another.name", Every(60))
    assert said() == [
        f"this app has no task {name!r}: {RUNS_ON}; did you mean 'proj.reports.build'?"
        for name in ("proj.report.build", "proj.reports.bild", "proj.reports.buildd")
    ]
    store.close()


def test_a_misspelt_task_is_logged_when_it_is_synced(app: Celery, said: Said) -> None:
    """`sync` does as `add` does, and logs a task once, however many entries have it."""
    store = Store.from_app(app)
    store.migrate()
    app.finalize()
    for task in ("proj.reports.biuld", "elsewhere.of.another.name"):
        entries = [Declared(f"{task}-{number}", task, 60) for number in range(3)]
        assert len(store.sync(entries, source=task).created) == 3
    assert said() == [
        f"this app has no task 'proj.reports.biuld': {RUNS_ON}; did you mean 'proj.reports.build'?"
    ]
    store.close()


def test_beat_tells_of_what_code_declares(app: Celery, said: Said) -> None:
    """At its start beat knows the tasks of its app, so that any other is told of."""
    app.conf.beat_schedule = {
        "x": {"task": "proj.reports.biuld", "schedule": 30},
        "y": {"task": "proj.reports.build", "schedule": 30},
        "z": {"task": "somewhere.else", "schedule": 30},
    }
    store = Store.from_app(app)
    store.migrate()
    for _ in range(2):
        import_code(store, app)
    assert said() == [
        f"this app has no task 'proj.reports.biuld': {RUNS_ON}; did you mean 'proj.reports.build'?",
        f"this app has no task 'somewhere.else': {RUNS_ON}",
    ]
    store.close()


@pytest.mark.parametrize("knows", [True, False])
def test_beat_tells_of_what_it_sends(memory_broker: Broker, said: Said, knows: bool) -> None:
    """A row of plain SQL is told of at its first send; by a beat without tasks it is not."""
    app = new_app(memory_broker, result_expires=None)
    if knows:

        @app.task(name="proj.reports.build", shared=False)
        def build() -> None:
            """Do nothing."""

    with running(app) as scheduler:
        for _ in range(2):
            (outcome,) = send(scheduler, new_claim("somewhere.else"))
            assert outcome.state == "sent"
    assert said() == ([f"this app has no task 'somewhere.else': {RUNS_ON}"] if knows else [])
