"""Runs that go on in a canvas: celery's own replacing, chaining and joining, in this thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import VERSION, Celery, chain, chord, group, signals
from celery.app.trace import build_tracer
from celery.worker.strategy import hybrid_to_proto2
from kombu.utils.json import dumps, loads

from beatstore.tick.parts import Parts
from beatstore.tick.reports import Report
from beatstore.worker import signals as worker
from beatstore.worker.canvas import CANVAS, canvas_of
from tests.support.recorder import Recorder

RUN = {"beatstore_run_id": 7, "beatstore_task_id": "the-run", "beatstore_entry": "nightly"}

#: What a task is replaced by, and how often `work` runs then.
SHAPES: dict[str, tuple[Callable[[Any], Any], int]] = {
    "task": (lambda s: s(), 1),
    "chain": (lambda s: chain(s(), s(), s()), 3),
    "group": (lambda s: group(s(), s(), s()), 3),
    "group of one": (lambda s: group([s()]), 1),
    "chord": (lambda s: chord([s(), s()], s()), 3),
    "chain with a group": (lambda s: chain(s(), group(s(), s()), s()), 4),
    "chain that ends with a group": (lambda s: chain(s(), group(s(), s())), 3),
    "chain that ends with a chord": (lambda s: chain(s(), chord([s(), s()], s())), 4),
    "group of chains": (lambda s: group(chain(s(), s()), s()), 3),
    "chord of chains": (lambda s: chord([chain(s(), s()), s()], chain(s(), s())), 5),
    "chord with a group as body": (lambda s: chord([s(), s()], group(s(), s())), 4),
}

#: Where that task stands in what was stored, and how often `work` runs beside it.
PLACES: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "alone": (lambda r, s: r, 0),
    "first in a chain": (lambda r, s: chain(r, s()), 1),
    "in a chain": (lambda r, s: chain(s(), r, s()), 2),
    "last in a chain": (lambda r, s: chain(s(), r), 1),
    "in a group": (lambda r, s: group(s(), r), 1),
    "in the header of a chord": (lambda r, s: chord([r, s()], s()), 2),
    "body of a chord": (lambda r, s: chord([s(), s()], r), 2),
}

#: Celery itself never sends the body of a chord when a member of it is replaced by these.
STUCK = {
    ("in the header of a chord", "chord of chains"),
    ("in the header of a chord", "chord with a group as body"),
}
if VERSION < (5, 7):
    STUCK.add(("in the header of a chord", "chain that ends with a group"))


class Line:
    """A queue, and a worker in this thread: what tasks send is worked on in its order."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.messages: list[tuple[dict[str, Any], Any]] = []
        self.worked: list[dict[str, Any]] = []

    def keep(self, *, headers: dict[str, Any], body: Any, **_: Any) -> None:
        self.messages.append(json.loads(json.dumps([headers, loads(dumps(body))])))

    def work(self) -> None:
        while self.messages:
            self.work_on(*self.messages.pop(0))

    def work_on(self, headers: dict[str, Any], body: Any) -> None:
        if isinstance(body, dict):  # task_protocol = 1
            message: Any = SimpleNamespace(headers=headers)
            body, headers, _, _ = hybrid_to_proto2(message, body)
        self.worked.append(headers)
        task, (args, kwargs, after) = self.app.tasks[headers["task"]], body
        request = {**headers, **after, "delivery_info": {}, "hostname": "w@h"}
        request |= {"is_eager": False, "args": args, "kwargs": kwargs}
        build_tracer(task.name, task, app=self.app)(headers["id"], args, kwargs, request)


@pytest.fixture(params=["cache+memory://", "file://"])
def app(app: Celery, request: pytest.FixtureRequest, tmp_path: Path) -> Celery:
    """Return the app with tasks that are replaced, and that join a chord.

    Its result backend counts what has ended of a chord, or celery asks it again and again.
    """
    app.conf.result_backend = request.param
    if request.param == "file://":
        app.conf.result_backend += str(tmp_path)

    @app.task(name="work", shared=False)
    def work(*args: Any) -> int:
        other.delay()
        return 1

    @app.task(name="other", shared=False)
    def other() -> None: ...

    @app.task(name="replaced", bind=True, shared=False)
    def replaced(self: Any, *shapes: str) -> None:
        first, *rest = shapes
        made = iter(range(100))

        def signed() -> Any:
            # The first task of it is replaced in turn, if there is more.
            again = rest and next(made) == 0
            return replaced.si(*rest) if again else work.si()

        raise self.replace(SHAPES[first][0](signed))

    @app.task(name="joins", bind=True, shared=False)
    def joins(self: Any) -> None:
        self.add_to_chord(work.si())

    app.set_current()
    return app


@pytest.fixture
def line(app: Celery) -> Iterator[Line]:
    line = Line(app)
    signals.after_task_publish.connect(line.keep)
    yield line
    signals.after_task_publish.disconnect(line.keep)


def begin(line: Line, canvas: Any) -> None:
    """Send what was stored as a beat does, and work until nothing is left."""
    if canvas["task"] in CANVAS:
        made = canvas_of(canvas["task"], [], dict(canvas["kwargs"]), RUN, line.app)
        made.apply_async(task_id="the-run")
    else:
        canvas.apply_async(task_id="the-run", headers=RUN)
    line.work()


def told(app: Celery, writer: Recorder) -> list[Report]:
    assert worker._trackers[app].reporter.flush(10)
    return writer.reports


def ended_at(reports: list[Report]) -> list[int]:
    """Return the places of the reports with which the run is over."""
    parts, found = Parts(), []
    for place, report in enumerate(reports):
        assert report.of[:2] == (7, "the-run")
        if report.state == "succeeded" and (
            report.of.part is None or parts.succeed(report.of.part)
        ):
            found.append(place)
        assert report.state in ("started", "sent", "succeeded"), report
    return found


def check_replaced(app: Celery, line: Line, place: str, shape: str) -> list[dict[str, Any]]:
    """Fail unless all that a task is replaced by runs once, as its run; return those headers."""
    build, count = PLACES[place]
    tasks = app.tasks
    begin(line, build(tasks["replaced"].si(shape), tasks["work"].si))
    work = [headers for headers in line.worked if headers["task"] == "work"]
    assert len(work) == count + SHAPES[shape][1]
    assert {headers.get("beatstore_run_id") for headers in work} == {7}
    return work


@pytest.mark.parametrize(
    ("place", "shape"),
    [(place, shape) for place in PLACES for shape in SHAPES if (place, shape) not in STUCK],
)
def test_a_task_that_is_replaced(
    app: Celery, line: Line, writer: Recorder, place: str, shape: str
) -> None:
    """Wherever a task stands, and whatever replaces it: one run, over with its last task."""
    work = check_replaced(app, line, place, shape)
    assert {headers.get("beatstore_entry") for headers in work} == {"nightly"}
    reports = told(app, writer)
    assert ended_at(reports) == [len(reports) - 1]


# Celery itself sends tasks of canvases in canvases more than once there.
@pytest.mark.parametrize(
    "place", [place for place in PLACES if "chain" in place or place == "alone"]
)
@pytest.mark.parametrize("shape", ["task", "chain", "group", "chord"])
def test_the_first_protocol(
    app: Celery, line: Line, writer: Recorder, place: str, shape: str
) -> None:
    """Where celery's first protocol is spoken, a chain goes by links, and is one run as well."""
    app.conf.task_protocol = 1
    check_replaced(app, line, place, shape)
    assert {headers["task"] for headers in line.worked if "beatstore_run_id" not in headers} == {
        "other"
    }
    reports = told(app, writer)
    assert ended_at(reports) == [len(reports) - 1]


@pytest.mark.parametrize("first", ["task", "chain", "group", "chord with a group as body"])
@pytest.mark.parametrize("second", ["task", "chain", "group", "chord"])
def test_a_replacement_that_is_replaced(
    app: Celery, line: Line, writer: Recorder, first: str, second: str
) -> None:
    """A task of what replaced another may be replaced too, and the run goes on in that."""
    begin(line, app.tasks["replaced"].si(first, second))
    work = [headers for headers in line.worked if headers["task"] == "work"]
    assert len(work) == SHAPES[first][1] - 1 + SHAPES[second][1]
    reports = told(app, writer)
    assert ended_at(reports) == [len(reports) - 1]


@pytest.mark.parametrize("place", PLACES)
def test_a_replacement_that_fails(app: Celery, line: Line, writer: Recorder, place: str) -> None:
    """When a task of what replaces another fails, the run has failed."""

    @app.task(name="fails", shared=False)
    def fails(*args: Any) -> None:
        raise RuntimeError("it broke")

    @app.task(name="badly", bind=True, shared=False)
    def badly(self: Any) -> None:
        raise self.replace(chain(app.tasks["work"].si(), fails.si(), app.tasks["work"].si()))

    begin(line, PLACES[place][0](badly.si(), app.tasks["work"].si))
    failed = [report for report in told(app, writer) if report.state == "failed"]
    assert [(report.of[:2], report.error) for report in failed] == [
        ((7, "the-run"), "RuntimeError: it broke")
    ]


def test_a_member_that_adds_another(
    app: Celery, line: Line, writer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a task adds to its chord is a step of the same run."""
    # Only Redis can do the counting; what is sent is the same.
    monkeypatch.setattr(app.backend, "add_to_chord", lambda *args: None, raising=False)
    tasks = app.tasks
    begin(line, chord([tasks["joins"].si(), tasks["work"].si()], tasks["work"].si()))
    parts = [headers.get("beatstore_part") for headers in line.worked if headers["task"] == "work"]
    assert sorted(str(part) for part in parts) == ["1/1", "step", "step"]


@pytest.mark.parametrize("place", PLACES)
def test_headers_that_are_passed_on(app: Celery, line: Line, writer: Recorder, place: str) -> None:
    """What a task sends with a copy of its own headers is none of its run, alone or in a canvas."""

    @app.task(name="passes on", bind=True, shared=False)
    def passes_on(self: Any) -> None:
        theirs = {**(self.request.headers or {}), "tenant": "a"}
        copied = child.si().set(headers=theirs)
        copied.apply_async()
        chain(copied.clone(), copied.clone()).apply_async()
        chord([copied.clone()], copied.clone()).apply_async()
        child.apply_async(headers=theirs)

    @app.task(name="child", shared=False)
    def child() -> None: ...

    begin(line, PLACES[place][0](passes_on.si(), app.tasks["work"].si))
    children = [headers for headers in line.worked if headers["task"] == "child"]
    assert len(children) >= 5
    assert not [name for one in children for name in one if name.startswith("beatstore_")]
    assert {one["tenant"] for one in children} == {"a"}
    reports = told(app, writer)
    assert ended_at(reports) == [len(reports) - 1]


def test_a_class_that_is_not_the_app_s(app: Celery, line: Line, writer: Recorder) -> None:
    """It does not matter what class a task is of, or what it does about being replaced."""
    import celery

    class Own(celery.Task):  # type: ignore[type-arg]
        def on_replace(self, sig: Any) -> Any:
            return super().on_replace(sig.set(priority=3))

    @app.task(name="own", bind=True, base=Own, shared=False)
    def own(self: Any) -> None:
        raise self.replace(chain(app.tasks["work"].si(), app.tasks["work"].si()))

    begin(line, own.si())
    reports = told(app, writer)
    assert ended_at(reports) == [len(reports) - 1]
    assert len(line.worked) == 5


def test_the_delay_of_the_next_message(app: Celery, line: Line, writer: Recorder) -> None:
    """A retry, a replacement and the next task of a chain say for how long they wait."""

    @app.task(name="retried", bind=True, shared=False)
    def retried(self: Any) -> None:
        if self.request.retries == 0:
            raise self.retry(countdown=100)

    @app.task(name="postponed", bind=True, shared=False)
    def postponed(self: Any) -> None:
        raise self.replace(app.tasks["work"].si().set(countdown=200))

    begin(line, retried.si())
    begin(line, postponed.si())
    begin(line, chain(app.tasks["work"].si(), app.tasks["work"].si().set(countdown=300)))
    delays = [report.delay for report in told(app, writer) if report.delay]
    assert delays == [pytest.approx(seconds, abs=5) for seconds in (100, 200, 300)]


def test_the_expiry_of_the_next_message(app: Celery, line: Line, writer: Recorder) -> None:
    """A retry, a replacement and the next task of a chain say when they expire."""

    @app.task(name="retried", bind=True, shared=False)
    def retried(self: Any, **how: Any) -> None:
        if self.request.retries == 0:
            raise self.retry(countdown=0, **how)

    @app.task(name="replaced by two", bind=True, shared=False)
    def by_two(self: Any) -> None:
        work = app.tasks["work"].si()
        raise self.replace(group(work.clone().set(expires=200), work.clone().set(expires=300)))

    begin(line, retried.si().set(expires=100))
    begin(line, retried.si(expires=200))
    begin(line, retried.si())
    begin(line, by_two.si())
    begin(line, chain(app.tasks["work"].si(), app.tasks["work"].si().set(expires=400)))
    found = [report.expires for report in told(app, writer) if report.state == "sent"]
    assert found[:3] == [pytest.approx(100, abs=5), pytest.approx(200, abs=5), inf]
    assert found[3] == pytest.approx(200, abs=5)
    *_, first, last = (one.expires for one in told(app, writer) if one.state == "succeeded")
    assert (first, last) == (pytest.approx(400, abs=5), None)


@pytest.fixture
def traced() -> Iterator[None]:
    """Give each message a header `headers` with a copy of the others, as tracers do."""

    def trace(*, headers: dict[str, Any], **_: Any) -> None:
        ours = {name: headers[name] for name in headers if name.startswith("beatstore_")}
        copied = ours if headers["task"] == "passes on" else {}
        headers["headers"] = {"trace": "a", **copied, **headers.get("headers", {})}

    signals.before_task_publish.connect(trace)
    yield
    signals.before_task_publish.disconnect(trace)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("shape", ["task", "chain", "chord"])
@pytest.mark.parametrize("place", PLACES)
def test_headers_within_headers(
    app: Celery, line: Line, writer: Recorder, place: str, shape: str
) -> None:
    """A retry or a replacement belongs to the run also where celery hides the task's headers."""

    @app.task(name="again", bind=True, shared=False)
    def again(self: Any) -> None:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        raise self.replace(SHAPES[shape][0](app.tasks["passes on"].si))

    @app.task(name="passes on", bind=True, shared=False)
    def passes_on(self: Any) -> None:
        theirs = {**self.request.headers}
        child.apply_async(headers={**theirs, "headers": theirs})
        self.retry(countdown=0) if self.request.retries < 1 else None

    @app.task(name="child", bind=True, shared=False)
    def child(self: Any) -> None:
        self.retry(countdown=0) if self.request.retries < 1 else None

    begin(line, PLACES[place][0](again.si(), app.tasks["work"].si))
    for task, runs in {"again": {7}, "passes on": {7}, "child": {None}}.items():
        found = {one.get("beatstore_run_id") for one in line.worked if one["task"] == task}
        assert found == runs, task
    reports = told(app, writer)
    assert ended_at(reports) == [len(reports) - 1]


def test_messages_that_are_odd(
    app: Celery, line: Line, writer: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that a task sends, however odd, is kept from being sent."""

    @app.task(name="odd", bind=True, shared=False)
    def odd(self: Any) -> None:
        send: Any = app.send_task
        send("work", chain=[None, 3], chord={"options": None})
        send("work", chord={"task": "celery.chord", "kwargs": None, "options": {"chain": 5}})
        send("work", headers={"beatstore_run_id": "x", "beatstore_part": ["1/2"]})

    odd.si().apply_async(task_id="the-run", headers=RUN)
    line.work_on(*line.messages.pop(0))
    assert [headers["task"] for headers, _ in line.messages] == ["work"] * 3
    assert "Signal handler" not in caplog.text
    assert told(app, writer)[-1].state == "succeeded"
