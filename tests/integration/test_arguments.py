"""Arguments of every type that kombu's JSON carries: a worker gets what it gets by `apply_async`.

The bodies of two messages are compared, as bytes: of the one that celery's own `apply_async`
sends, and of the one that beat sends for what was stored in one way or another.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.app.task import Task
from kombu import serialization
from sqlalchemy import text

import beatstore
from beatstore import Declared, ManualClock, Once, Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.discovery.beatschedule import SOURCE, beat_entries
from beatstore.errors import InvalidEntryError
from beatstore.moving import schedulers
from tests.support.brokers import Broker
from tests.support.carried import VALUES, Money, as_sent, bodies, money_known
from tests.support.command import Command
from tests.support.harness.inprocess import keeping, new_app, tick_until_idle
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.of_app

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=2)

ARGS = list(VALUES.values())
KWARGS = {name.replace(" ", "_"): value for name, value in VALUES.items()}


@pytest.fixture
def app(memory_broker: Broker, migrated_url: str, clock: ManualClock) -> Iterator[Celery]:
    """Return an app whose tasks are beatstore's; its store reads the test's clock."""
    app = new_app(
        memory_broker,
        migrated_url,
        beatstore_listen=False,
        beatstore_eta_threshold=3600,
        accept_content=["json", "yaml", "pickle"],
        result_expires=None,
    )
    app.task_cls = "beatstore:Task"

    def take(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    for name in ("carried.take", "carried.more"):
        app.task(take, name=name, shared=False)
    with keeping(app, clock):
        yield app


@pytest.fixture
def beat(scheduler: DBScheduler, clock: ManualClock, memory_broker: Broker) -> Callable[[], Any]:
    """Return what lets beat send all that is due two days on, and returns the bodies."""

    def tick() -> list[bytes]:
        clock.set(LATER)
        tick_until_idle(scheduler)
        return bodies(memory_broker)

    return tick


def task(app: Celery, name: str = "take") -> Any:
    """Return a task of the app."""
    return app.tasks[f"carried.{name}"]


def applied(broker: Broker, signature: Any, **options: Any) -> list[bytes]:
    """Return the bodies of the messages that celery's own `apply_async` sends."""
    signature.apply_async(**options)
    return bodies(broker)


def test_an_entry_sends_what_apply_async_sends(
    app: Celery, store: Store, beat: Callable[[], Any], memory_broker: Broker
) -> None:
    """The bytes of the body are the same for values of every type, on every database."""
    wanted = applied(memory_broker, task(app).s(*ARGS, **KWARGS))
    store.add("a", task(app), Once(NOON), args=ARGS, kwargs=KWARGS)
    assert beat() == wanted


@pytest.mark.parametrize("way", ["schedule", "threshold", "store"])
def test_a_far_call_sends_what_apply_async_sends(
    app: Celery, store: Store, beat: Callable[[], Any], memory_broker: Broker, way: str
) -> None:
    """A call that is due in a day carries the same bytes as one that is due now."""
    wanted = applied(memory_broker, task(app).s(*ARGS, **KWARGS))
    if way == "schedule":
        task(app).schedule(ARGS, KWARGS, countdown=86400)
    elif way == "threshold":
        task(app).apply_async(ARGS, KWARGS, countdown=86400)
    else:
        store.schedule(task(app).s(*ARGS, **KWARGS), countdown=86400)
    assert len(store.entries()) == 1
    assert beat() == wanted


def canvas(app: Celery, shape: str) -> Any:
    """Return a new canvas of a shape, with values of every type in its signatures."""
    one, two = task(app).si(*ARGS), task(app, "more").si(**KWARGS)
    if shape == "link":
        return one.set(link=two, link_error=[one.clone()])
    if shape == "eta of a step":
        return chain(one, two.set(eta=LATER, expires=LATER + timedelta(1)))
    kinds: dict[str, Any] = {"chain": chain, "group": group}
    return kinds[shape](one, two) if shape in kinds else chord([one, two], two.clone())


@on_sqlite
@pytest.mark.parametrize("shape", ["chain", "group", "chord", "link", "eta of a step"])
def test_a_canvas_sends_what_apply_async_sends(
    app: Celery, store: Store, beat: Callable[[], Any], memory_broker: Broker, shape: str
) -> None:
    """Values inside signatures, at any depth, arrive as celery alone sends them."""
    app.conf.result_backend = "cache+memory://"
    before = [json.loads(body) for body in applied(memory_broker, canvas(app, shape))]
    store.schedule(canvas(app, shape), at=NOON)
    after = [json.loads(body) for body in beat()]
    assert len(before) == len(after) > 0
    assert _without_run(after) == _without_run(before)


def _without_run(value: Any) -> Any:
    """Return a body without ids and headers, which are each run's own, and beat's `retry`."""
    own = ("task_id", "root_id", "parent_id", "reply_to", "group_id", "headers", "retry")
    if isinstance(value, dict):
        return {key: _without_run(item) for key, item in value.items() if key not in own}
    return [_without_run(item) for item in value] if isinstance(value, list) else value


def test_storing_the_same_again_changes_nothing(store: Store) -> None:
    """`put` and `sync` know an equal value again, in whatever type it is given."""
    first = store.put("a", "t", 60, args=ARGS, kwargs=KWARGS)
    assert store.put("a", "t", 60, args=ARGS, kwargs=KWARGS).version == first.version
    declared = [Declared("b", "t", 60, args=ARGS, kwargs=KWARGS)]
    store.sync(declared, source="code")
    assert store.sync(declared, source="code").unchanged == ("b",)
    changed = store.put("a", "t", 60, args=[*ARGS[:-1], "another"], kwargs=KWARGS)
    assert changed.version > first.version


def test_what_code_changed_follows_and_what_was_edited_stays(store: Store) -> None:
    """Compare and merge work on values of every type as on plain JSON."""
    one, two = uuid.UUID(int=1), uuid.UUID(int=2)
    store.sync([Declared("a", "t", 60, args=[one], kwargs={"d": Decimal(1)})], source="code")
    store.change("a", kwargs={"d": Decimal("1.0")})
    store.sync([Declared("a", "t", 60, args=[two], kwargs={"d": Decimal(1)})], source="code")
    entry = store.get("a")
    assert as_sent(entry.args) == [two]
    assert str(as_sent(entry.kwargs)["d"]) == "1.0"
    assert store.get("a").edited == ("kwargs",)


def test_what_was_read_can_be_written_back(store: Store) -> None:
    """`change` takes values from an entry that was read, beside new ones."""
    given = {"id": uuid.UUID(int=1), "n": 2**70}
    store.add("a", "t", 60, kwargs=given, options={"headers": {"when": NOON}})
    entry = store.get("a")
    store.change("a", kwargs={**entry.kwargs, "at": NOON}, options=entry.options)
    again = store.get("a")
    assert as_sent(again.kwargs) == {**given, "at": NOON}
    assert as_sent(again.options) == {"headers": {"when": NOON}}
    assert store.change("a", description="x").kwargs == again.kwargs


@pytest.mark.parametrize(
    "given",
    [
        {"__type__": "order", "__value__": 1},
        {"__type__": "datetime", "__value__": "2026-01-01T00:00:00"},
    ],
)
def test_kombus_own_notation_is_refused(app: Celery, store: Store, given: Any) -> None:
    """A dict that a worker would get as something else is refused, wherever it is given."""
    nested = {"a": [given]}
    calls: list[Callable[[], Any]] = [
        lambda: store.add("a", "t", 60, args=[given]),
        lambda: store.put("a", "t", 60, kwargs=nested),
        lambda: store.put("a", "t", 60, kwargs=given),
        lambda: store.put("a", "t", 60, options={"headers": nested}),
        lambda: store.put("a", task(app).s(given), 60),
        lambda: store.put("a", chain(task(app).s(1), task(app).s(nested)), 60),
        lambda: store.put("a", "t", 60, options={"link": task(app).s(given)}),
        lambda: store.schedule(task(app).s(given), countdown=5),
        lambda: task(app).schedule((given,), countdown=5),
        lambda: task(app).apply_async((given,), countdown=86400),
    ]
    for call in calls:
        with pytest.raises(InvalidEntryError, match="__type__"):
            call()
    done = store.sync([Declared("a", "t", 60, args=[given])], source="code")
    assert "__type__" in done.refused["a"]
    assert store.entries() == []


def test_beat_schedule_sends_what_apply_async_sends(
    app: Celery, store: Store, beat: Callable[[], Any], memory_broker: Broker
) -> None:
    """Values of every type in `beat_schedule` arrive as celery's own beat would send them."""
    wanted = applied(memory_broker, task(app).s(*ARGS, **KWARGS))
    app.conf.beat_schedule = {
        "a": {"task": "carried.take", "schedule": 172800, "args": ARGS, "kwargs": KWARGS}
    }
    entries, refused = beat_entries(app)
    assert not refused
    store.sync(entries, source=SOURCE)
    assert beat() == wanted


def test_what_is_exported_can_be_loaded(
    app: Celery, store: Store, beat: Callable[[], Any], memory_broker: Broker
) -> None:
    """Through lines of strict JSON, the same entry arrives, and sends the same."""
    wanted = applied(memory_broker, task(app).s(*ARGS, **KWARGS))
    store.add("a", task(app), Once(LATER), args=ARGS, kwargs=KWARGS)
    lines = [json.dumps(one, allow_nan=False) for one in store.export()]
    before = store.get("a")
    store.remove("a")
    store.load(lines)
    assert (store.get("a").args, store.get("a").kwargs) == (before.args, before.kwargs)
    assert store.load(lines).unchanged == 1
    assert beat() == wanted


def test_a_document_with_an_unknown_type_is_refused(store: Store) -> None:
    """A type that kombu can't read is refused when it is loaded, by its name."""
    store.add("a", "t", 60, args=[uuid.UUID(int=1)])
    lines = [json.dumps(one).replace('"uuid"', '"order"') for one in store.export()]
    store.remove("a")
    with pytest.raises(beatstore.LoadError, match="'order'"):
        store.load(lines)


def test_a_change_of_values_is_on_record(store: Store) -> None:
    """The audit shows values of other types as they are stored."""
    store.add("a", "t", 60, args=[uuid.UUID(int=1)])
    store.change("a", args=[uuid.UUID(int=2), 2**70])
    change = store.audit("a")[0]
    assert as_sent(change.before) == {"args": [uuid.UUID(int=1)]}
    assert as_sent(change.after) == {"args": [uuid.UUID(int=2), 2**70]}


def test_an_importer_reads_values_as_their_scheduler_does() -> None:
    """What kombu marks in other schedulers' tables is the value; an unknown type is refused."""
    marked = json.dumps({"id": {"__type__": "uuid", "__value__": {"hex": uuid.UUID(int=1).hex}}})
    task = {"task": "t", "interval_id": 1, "args": "[NaN]"}
    tables: dict[str, list[dict[str, Any]]] = {
        "tasks": [
            {**task, "id": 1, "name": "good", "kwargs": marked, "headers": marked},
            {**task, "id": 2, "name": "bad", "kwargs": marked.replace("uuid", "order")},
        ],
        "interval": [{"id": 1, "every": 60, "period": "seconds"}],
        **{kind: [] for kind in ("crontab", "solar", "clocked")},
    }
    found = schedulers.read("django-celery-beat", tables, NOON, schedulers.How(), lambda name: None)
    [entry] = found.entries
    assert entry.kwargs == {"id": uuid.UUID(int=1)}
    assert entry.options == {"headers": {"id": uuid.UUID(int=1)}}
    assert repr(entry.args) == "[nan]"
    assert "'order'" in found.refused["bad"]


@on_sqlite
def test_the_command_line_takes_what_it_shows(store: Store, migrated_url: str) -> None:
    """What `show` prints of the arguments can be given to `--args` and `--kwargs`."""
    call = Command(migrated_url, "url")
    store.add("a", "t", 60, args=ARGS, kwargs=KWARGS, options={"headers": {"d": Decimal(1)}})
    shown = call("show", "a", "--json").json
    args, kwargs = json.dumps(shown["args"]), json.dumps(shown["kwargs"])
    options = f"headers={json.dumps(shown['options']['headers'])}"
    done = call("add", "b", "t", "--every", "60", "--args", args, "--kwargs", kwargs,
                "--option", options)  # fmt: skip
    assert done.code == 0, done.err
    one, other = store.get("a"), store.get("b")
    assert (one.args, one.kwargs, one.options) == (other.args, other.kwargs, other.options)
    assert str(VALUES["uuid"].hex) in call("show", "a").out
    bad = call("add", "c", "t", "--every", "60", "--args", '[{"__type__": "x", "__value__": 1}]')
    assert bad.code == 2
    assert "'x'" in bad.err


# -- what is in the row ----------------------------------------------------------------------


def test_plain_sql_may_say_a_value_and_a_bad_one_fails_alone(
    app: Celery, store: Store, beat: Callable[[], Any], memory_broker: Broker
) -> None:
    """A row's `__type__` is read as a worker reads it; what it can't read fails that run."""
    wanted = applied(memory_broker, task(app).s(uuid.UUID(int=1)))
    for name in ("before", "bad", "worse", "after"):
        store.add(name, task(app), Once(NOON), max_retries=3, retry_delay=1)
    good = {"__type__": "uuid", "__value__": {"hex": uuid.UUID(int=1).hex}}
    deep: Any = {"__type__": "uuid", "__value__": {"hex": "no"}}
    for _ in range(20):
        deep = [deep]
    rows = {"before": [good], "after": [good], "bad": [{**good, "__type__": "order"}]}
    with store.database.session() as session:
        for name, args in {**rows, "worse": [deep]}.items():
            session.execute(
                text("UPDATE beatstore_entry SET args = :args WHERE name = :name"),
                {"args": json.dumps(args), "name": name},
            )
    assert beat() == [*wanted, *wanted]
    states = {run.entry_name: (run.state, run.attempt) for run in store.runs()}
    assert states == {
        **dict.fromkeys(("before", "after"), ("sent", 1)),
        **dict.fromkeys(("bad", "worse"), ("failed", 1)),
    }
    assert len(store.runs()) == 4
    assert "'order'" in str(store.runs("bad")[0].reason)
    shown = store.get("bad").args  # a view is not held up by it
    assert shown == [{**good, "__type__": "order"}]


def test_what_is_too_deep_for_a_database_is_refused(store: Store, backend: str) -> None:
    """MariaDB's JSON has 31 levels: a deeper value is an error of the entry, and no outage."""
    most = 29 if backend == "mariadb" else 90
    deep: Any = "end"
    for _ in range(most - 1):
        deep = [deep]
    for give in (
        lambda value: store.put("a", "t", 60, args=value),
        lambda value: store.sync([Declared("b", "t", 60, args=value)], source="code"),
    ):
        give([deep[0]])
        assert give([deep])
    assert store.get("a").args == store.get("b").args == [deep]
    with pytest.raises(InvalidEntryError, match="levels"):
        store.put("a", "t", 60, args=[[deep]])
    assert store.get("a").args == [deep]
    declared = [Declared("b", "t", 60, args=[[deep]]), Declared("c", "t", 60)]
    done = store.sync(declared, source="code")
    assert "levels" in done.refused["b"]
    assert done.created == ("c",)


# -- serializers -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["options", "task", "app"])
@pytest.mark.parametrize("serializer", ["pickle", "yaml"])
def test_the_serializer_of_a_message_gets_real_values(  # noqa: PLR0917
    app: Celery,
    store: Store,
    beat: Callable[[], Any],
    memory_broker: Broker,
    serializer: str,
    where: str,
) -> None:
    """The option's, the task's or the app's serializer counts, and writes the same bytes."""
    given = [NOON, {"b": b"\xff", "d": NOON.date()}, 2**70]
    options = {"serializer": serializer} if where == "options" else {}
    if where == "task":
        task(app).serializer = serializer
    if where == "app":
        app.conf.task_serializer = serializer
    name = task(app).name if where != "app" else "elsewhere.task"
    app.signature(name, given).apply_async(**options)
    [wanted] = bodies(memory_broker)
    store.add("a", name, Once(NOON), args=given, options=options)
    [body] = beat()
    # By what they say: pickle refers to an object that it has seen before, and writes an equal
    # one again.
    content_type = serialization.registry.name_to_type[serializer]
    read = [serialization.loads(one, content_type, "binary", force=True) for one in (body, wanted)]
    assert [list(args) for args, *_ in read] == [given, given]
    assert read[0][1:] == read[1][1:]


def test_what_a_serializer_cannot_write_is_refused_by_name(
    app: Celery, store: Store, beat: Callable[[], Any]
) -> None:
    """With the option, or for a far call, at once; else the run fails alone, with the reason."""
    given = [uuid.UUID(int=1)]  # which YAML does not know
    with pytest.raises(InvalidEntryError, match="yaml"):
        store.add("a", "t", 60, args=given, options={"serializer": "yaml"})
    task(app).serializer = "yaml"
    with pytest.raises(InvalidEntryError, match="yaml"):
        task(app).apply_async(given, countdown=86400)
    store.add("a", task(app), Once(NOON), args=given, max_retries=2)
    store.add("b", task(app, "more"), Once(NOON), args=given)
    assert len(beat()) == 1
    [run] = store.runs("a")
    assert run.state == "failed"
    assert "UUID" in str(run.reason)


def test_an_applications_type_is_carried(
    app: Celery, store: Store, beat: Callable[[], Any], memory_broker: Broker
) -> None:
    """What `register_type` adds to kombu is stored and sent, as long as it is registered."""
    given = [Money(Decimal("1.50")), timedelta(minutes=1)]
    with money_known(spans=True):
        wanted = applied(memory_broker, task(app).s(*given))
        store.add("a", task(app), Once(NOON), args=given)
        assert beat() == wanted
    with pytest.raises(InvalidEntryError, match="total_seconds"):
        store.add("b", "t", 60, args=[timedelta(minutes=1)])


def test_a_retryable_call_keeps_its_values(
    app: Celery, store: Store, beat: Callable[[], Any], memory_broker: Broker
) -> None:
    """A retry that is stored carries the values of the call that failed."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("not yet")

    made: Task[Any, Any] = app.task(fail, name="carried.fail", shared=False)
    wanted = applied(memory_broker, made.s(*ARGS, **KWARGS))
    beatstore.retryable(made, max_retries=1, retry_delay=60)(*ARGS, **KWARGS)
    assert beat() == wanted
