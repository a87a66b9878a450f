"""Entries declared on tasks: found on whatever celery makes of the function."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery, Task, _state, shared_task
from celery.local import PromiseProxy, Proxy
from celery.schedules import crontab, solar

import beatstore
from beatstore import After, Cron, Declared, Every, RRule, scheduled
from beatstore.discovery import marks
from beatstore.discovery.marks import declared_by, marks_of
from tests.support.processes import ROOT

UTC = timezone.utc


@pytest.fixture(autouse=True)
def _shared_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the shared tasks of one test be none of the others'."""
    state: Any = _state
    monkeypatch.setattr(state, "_on_app_finalizers", {*state._on_app_finalizers})
    monkeypatch.setattr(marks, "_SHARED", [])


@pytest.fixture
def app() -> Iterator[Celery]:
    """Return an app that is not finalized, and is the current one."""
    before = _state.get_current_app()
    app = Celery("tests")
    yield app
    app.close()
    before.set_current()


def found(app: Celery) -> dict[str, Declared]:
    """Return the entries that this module's tasks declare, by name."""
    return {
        one.name: one
        for task, given in marks_of(app)
        for mark, one in declared_by(task, given)
        if mark.module == __name__ and task.startswith("t.")
    }


# -- above, below, of every kind -----------------------------------------------------------


def test_above_a_task(app: Celery) -> None:
    """On a task that celery has not made, which is not made for it."""

    @scheduled("0 9 * * *")
    @app.task(name="t.above")
    def above() -> None:
        """Do nothing."""

    proxy: Any = above
    assert type(proxy) is PromiseProxy
    assert not proxy.__evaluated__()
    assert found(app)["t.above"].schedule == "0 9 * * *"
    assert found(app)["t.above"].task == "t.above"


def test_above_a_task_that_is_made(app: Celery) -> None:
    """On a task of an app that is finalized, or made without being lazy."""
    app.finalize()

    @scheduled("0 9 * * *")
    @app.task(name="t.made", lazy=False)
    def made() -> None:
        """Do nothing."""

    assert isinstance(made, Task)
    assert list(found(app)) == ["t.made"]


@pytest.mark.parametrize(
    "options",
    [{}, {"bind": True}, {"autoretry_for": (OSError,)}, {"base": beatstore.Task}],
    ids=str,
)
def test_below_a_task(app: Celery, options: dict[str, Any]) -> None:
    """On the function: it comes over to the task, whatever celery wraps around it."""

    @app.task(name="t.below", **options)
    @scheduled("0 9 * * *")
    def below(*args: Any) -> None:
        """Do nothing."""

    assert list(found(app)) == ["t.below"]


def test_above_and_below_a_shared_task(app: Celery) -> None:
    """A shared task is one of each app, under the names of its entries."""

    @scheduled("0 10 * * *", name="above")
    @shared_task(name="t.shared")
    @scheduled("0 9 * * *", name="below")
    def shared() -> None:
        """Do nothing."""

    assert type(shared) is Proxy
    assert list(found(app)) == ["below", "above"]
    other = Celery("other", set_as_current=False)
    assert list(found(other)) == ["below", "above"]
    other.close()


def test_on_a_class(app: Celery) -> None:
    """On a class that is registered as a task; a task made from it does not inherit."""

    @scheduled("0 9 * * *")
    class Cleaner(Task):  # type: ignore[type-arg]
        """A task."""

        name = "t.cleaner"

        def run(self) -> None:
            """Do nothing."""

    app.register_task(Cleaner())

    @app.task(name="t.other", base=Cleaner)
    def other() -> None:
        """Do nothing."""

    assert list(found(app)) == ["t.cleaner"]


def test_on_what_is_no_task() -> None:
    """On anything that can't become a task it is an error, where it is written."""
    with pytest.raises(TypeError, match=r"directly above or below @app\.task"):
        scheduled("0 9 * * *")(7)


def test_a_task_of_another_app_is_not_found(app: Celery) -> None:
    """Each app has the entries of its own tasks."""
    other = Celery("other", set_as_current=False)

    @scheduled("0 9 * * *")
    @other.task(name="t.other", shared=False)
    def of_other() -> None:
        """Do nothing."""

    assert list(found(app)) == []
    assert list(found(other)) == ["t.other"]
    other.close()


# -- names ---------------------------------------------------------------------------------


def test_stacked_names(app: Celery) -> None:
    """The closest to the function has the task's name, each other its schedule beside it."""

    @scheduled(timedelta(minutes=5), args=[3])
    @scheduled("0 18 * * fri", name="weekly", args=[2])
    @scheduled("0 12 * * *", timezone="Europe/Berlin", args=[1])
    @app.task(name="t.stacked")
    @scheduled("0 9 * * *", args=[0])
    def stacked(n: int) -> None:
        """Do nothing."""

    names = {name: one.args for name, one in found(app).items()}
    assert names == {
        "t.stacked": [0],
        "t.stacked (0 12 * * * Europe/Berlin)": [1],
        "weekly": [2],
        "t.stacked (every 300 s)": [3],
    }


def test_a_name_does_not_depend_on_what_is_above() -> None:
    """Adding or removing one leaves the names of those below it, and of the named, alone."""

    def names(*given: Any) -> list[str]:
        app = Celery("tests", set_as_current=False)

        def task() -> None:
            """Do nothing."""

        for one in given:
            task = scheduled(one)(task)
        app.task(name="t.task", shared=False)(task)
        try:
            return list(found(app))
        finally:
            app.close()

    assert names("1 * * * *") == ["t.task"]
    assert names("1 * * * *", "2 * * * *") == ["t.task", "t.task (2 * * * *)"]
    assert names("1 * * * *", "3 * * * *", "2 * * * *") == [
        "t.task",
        "t.task (3 * * * *)",
        "t.task (2 * * * *)",
    ]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Cron("0 9 * * *", "Asia/Tokyo"), "cron 0 9 * * * Asia/Tokyo"),
        (Every(300), "every 300"),
        (90, "every 90 s"),
        (crontab(hour=[3, 1], minute=0), "0 1,3 * * *"),
        (crontab(hour={3, 1}, minute="*/5", day_of_week="mon-fri"), "*/5 1,3 * * mon-fri"),
        (solar("sunset", 52.5, 13.4), "sunset 52.5 13.4"),
        (datetime(2031, 1, 1, tzinfo=UTC), "2031-01-01 00:00:00+00:00"),
        (None, "after"),
    ],
    ids=str,
)
def test_a_schedule_in_a_name(app: Celery, schedule: Any, words: str) -> None:
    """Each kind of schedule has words that are the same in every process."""

    @scheduled(schedule)
    @scheduled("0 9 * * *")
    @app.task(name="t.task")
    def task() -> None:
        """Do nothing."""

    assert list(found(app)) == ["t.task", f"t.task ({words})"]


def test_a_long_schedule_in_a_name(app: Celery) -> None:
    """A long rule is cut, and still told from another that begins alike."""
    rules = [RRule("FREQ=DAILY;BYMINUTE=" + ",".join(map(str, range(n)))) for n in (50, 60)]

    @scheduled(rules[1])
    @scheduled(rules[0])
    @scheduled("0 9 * * *")
    @app.task(name="t.task")
    def task() -> None:
        """Do nothing."""

    names = list(found(app))
    assert len(set(names)) == 3
    assert max(map(len, names)) < 120


# -- what it says --------------------------------------------------------------------------


def test_everything_that_can_be_declared_can_be_said() -> None:
    """The decorator has the fields of `Declared`, with its defaults, but for the task."""
    fields = {one.name: one.default for one in dataclasses.fields(Declared)}
    given = {name: one.default for name, one in inspect.signature(scheduled).parameters.items()}
    del fields["task"]
    assert given == {**fields, "name": None, "schedule": None}


def test_all_of_it_comes_through(app: Celery) -> None:
    """What is said is what is declared, field for field."""
    said: dict[str, Any] = {
        **{"args": [1], "kwargs": {"a": 1}, "options": {"queue": "q"}, "timezone": "Asia/Tokyo"},
        **{
            "start_at": datetime(2030, 1, 1, tzinfo=UTC),
            "end_at": datetime(2031, 1, 1, tzinfo=UTC),
        },
        **{"max_runs": 3, "jitter": 4, "misfire": "skip", "grace": 5, "after": ("up",)},
        **{"overlap": "wait", "run_timeout": 6, "max_retries": 7, "retry_delay": 8},
        **{"retry_backoff": 2, "retry_jitter": 9, "tags": ["t"], "description": "d"},
        **{"paused": True},
    }

    @scheduled("0 9 * * *", name="n", **said)
    @app.task(name="t.task")
    def task() -> None:
        """Do nothing."""

    assert found(app)["n"] == Declared("n", "t.task", "0 9 * * *", **said)


def test_what_can_be_gone_through_once_is_kept(app: Celery) -> None:
    """A generator of tags or upstreams is there again when beat imports once more."""

    @scheduled("0 9 * * *", tags=(tag for tag in "ab"), after=(name for name in "cd"))
    @app.task(name="t.task")
    def task() -> None:
        """Do nothing."""

    for _ in range(2):
        assert tuple(found(app)["t.task"].tags) == ("a", "b")
        assert found(app)["t.task"].after == ("c", "d")


def test_after_a_task(app: Celery) -> None:
    """An upstream may be a task, which stands for its first entry, or for one of its name."""

    @scheduled("0 9 * * *", name="first")
    @app.task(name="t.first")
    def first() -> None:
        """Do nothing."""

    @scheduled("0 9 * * *")
    @app.task(name="t.second")
    def second() -> None:
        """Do nothing."""

    @shared_task(name="t.undeclared")
    def undeclared() -> None:
        """Do nothing."""

    up: Any = first

    @scheduled(after=[first, second, undeclared, "x", After("y", on="done")])
    @scheduled(name="one", after=first)
    @scheduled(name="word", after="x")
    @scheduled(name="edge", after=After(up, on="failure"))
    @app.task(name="t.last")
    def last() -> None:
        """Do nothing."""

    assert not up.__evaluated__()
    entries = found(app)
    upstreams = entries["t.last"].after
    assert upstreams == ("first", "t.second", "t.undeclared", "x", After("y", on="done"))
    assert entries["one"].after == ("first",)
    assert entries["word"].after == "x"
    assert entries["edge"].after == After("first", on="failure")


def test_decorating_needs_no_database() -> None:
    """Importing a decorated task imports no SQLAlchemy: workers and web servers do that too."""
    program = (
        "import sys, beatstore, celery\n"
        "app = celery.Celery('a')\n"
        "beatstore.scheduled('0 9 * * *')(app.task(lambda: None))\n"
        "print(callable(beatstore.scheduled), 'sqlalchemy' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["True", "False"]
