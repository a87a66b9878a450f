"""Every argument of the API that takes text, or more, given what nobody should give.

What comes of it is an error of beatstore's own that can be read, or the value is stored and
is what was given. The methods are found, not listed: a new one is tried too.

`BEATSTORE_TEST_EXAMPLES=10000` tries so many cases of each argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import beatstore
from beatstore import After, Declared, Entry, Store
from beatstore.definition.spec import FIELDS
from beatstore.definition.values import decoded
from beatstore.errors import BeatstoreError, ScheduleError, StoreError
from tests.support.carried import as_sent
from tests.support.hostile import (
    CRON,
    RRULE,
    ZONES,
    examples,
    jsons,
    schedules,
    texts,
    worded,
)

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)

#: What is no argument of a call, or none that takes text.
NOT_TEXT = {"self", "session", "given"}

#: What a good call is made of, by the name of the argument.
GOOD: dict[str, Any] = {
    "name": "there",
    "task": "tests.note",
    "schedule": "0 2 * * *",
    "signature": "tests.note",
    "at": NOON,
    "since": NOON - timedelta(days=1),
    "until": NOON + timedelta(days=1),
    "step": 3600,
    "run": 1,
    "actor": "somebody",
    "upstreams": ("above",),
    "names": ("there",),
    "documents": (),
    "entries": (),
    "calls": (),
    "sources": {},
    "source": "code",
    "state": "failed",
}

#: Methods that add an entry, and need a name that is free.
ADDING = ("add", "schedule")

#: Methods that do not take part: they are about a server or a whole database.
LEFT_OUT = {"from_app", "close", "migrate", "check", "status"}


def of_after() -> SearchStrategy[Any]:
    """Generate upstreams."""
    one = st.builds(
        After,
        st.sampled_from(["above", "there"]) | texts(),
        on=st.sampled_from(["success", "done"]) | texts(),
        first_free=st.booleans() | texts(),
        align=st.sampled_from(["latest", "same"]) | texts(),
        on_upstream_failure=st.sampled_from(["wait", "skip"]) | texts(),
        timeout=st.none() | st.floats() | texts(),
    )
    return st.one_of(texts(), one, st.lists(one | texts(), max_size=4), jsons())


#: What to give an argument, where text alone would be too little.
STRATEGIES: dict[str, SearchStrategy[Any]] = {
    "task": texts() | jsons(),
    "signature": st.one_of(
        texts(),
        jsons(),
        st.fixed_dictionaries(
            {"task": st.just("tests.note") | texts()},
            optional={"args": jsons(), "kwargs": jsons(), "options": jsons()},
        ),
    ),
    "schedule": schedules(),
    "args": st.lists(jsons(), max_size=3) | jsons(),
    "kwargs": st.dictionaries(texts(), jsons(), max_size=3) | jsons(),
    "options": st.one_of(
        st.dictionaries(
            st.sampled_from(
                [
                    *("queue", "priority", "expires", "headers", "link", "stamped_headers"),
                    *("time_limit", "retry", "retry_policy", "delivery_mode", "eta", "chord"),
                ]
            )
            | texts(),
            jsons(),
            max_size=3,
        ),
        jsons(),
    ),
    "timezone": worded(ZONES),
    "tags": st.lists(texts(), max_size=4) | texts() | jsons(),
    "after": of_after(),
    "upstreams": st.tuples(texts() | st.just("above")),
    "state": texts() | st.lists(texts(), max_size=3),
    "names": st.lists(texts(), max_size=3) | texts(),
}

_SAID = {name: STRATEGIES.get(name, texts()) for name in ("schedule", "timezone", "args", "kwargs")}
_SAID |= {name: STRATEGIES[name] for name in ("options", "tags", "after")}
_SAID |= {name: texts() for name in ("misfire", "overlap", "description")}

STRATEGIES["entries"] = st.lists(
    st.fixed_dictionaries(
        {"name": texts() | st.sampled_from("ab"), "task": texts() | st.just("tests.note")},
        optional=_SAID,
    ).map(lambda said: Declared(**said)),
    max_size=4,
)
STRATEGIES["refused"] = st.dictionaries(texts(), texts(), max_size=3)
STRATEGIES["sources"] = st.dictionaries(
    texts(), st.tuples(STRATEGIES["entries"], STRATEGIES["refused"]), max_size=2
)
STRATEGIES["documents"] = st.lists(jsons() | texts(), max_size=3)


#: Types of arguments, by whose name alone one does not see that text may come along.
WORDS = (
    "TaskLike",
    "ScheduleLike",
    "EntryState",
    "EntryOnly",
    "RunState",
    "Misfire",
    "Overlap",
    "Upstreams",
)


def takes_text(name: str, parameter: inspect.Parameter) -> bool:
    """Say whether an argument takes text, or things that hold text."""
    said = str(parameter.annotation)
    wide = any(word in said for word in ("str", "Any", "Mapping", "Sequence", "Iterable", *WORDS))
    return wide and name not in NOT_TEXT


def cases() -> Iterator[tuple[str, str]]:
    """Yield each method with each of its arguments that takes text."""
    for method, function in inspect.getmembers(Store, inspect.isfunction):
        if method.startswith("_") or method in LEFT_OUT:
            continue
        parameters = inspect.signature(function).parameters
        yield from ((method, name) for name, one in parameters.items() if takes_text(name, one))
        if method == "change":
            yield from ((method, name) for name in (*FIELDS, "new_name", "no such field"))


CASES = list(cases())


@pytest.fixture
def backend() -> str:
    """Keep to the database that is the quickest."""
    return "sqlite"


@pytest.fixture
def store(migrated_url: str) -> Iterator[Store]:
    """Return a store with two entries, one of which has run; what is written may be lost."""
    store = Store(migrated_url)
    store.add("above", "tests.note", "0 1 * * *")
    store.add("there", "tests.note", "0 2 * * *", after=["above"], tags=["a"])
    store.trigger("there")
    yield store
    store.close()


def call(store: Store, method: str, argument: str, value: Any) -> Any:
    """Call a method as it should be, but for one argument."""
    function = getattr(store, method)
    parameters = inspect.signature(function).parameters
    needed = {
        name: GOOD[name]
        for name, one in parameters.items()
        if one.default is one.empty and name in GOOD and one.kind is not one.VAR_POSITIONAL
    }
    if method in ADDING:
        needed["name"] = "new"
    if method == "schedule" and argument != "at":
        needed["at"] = NOON
    given = {**needed, argument: value}
    variadic = [name for name, one in parameters.items() if one.kind is one.VAR_POSITIONAL]
    if variadic:
        rest = value if argument in variadic else GOOD.get(variadic[0], ())
        given.pop(variadic[0], None)
        return function(*given.values(), *(rest if isinstance(rest, tuple) else (rest,)))
    found = function(**given)
    return list(found) if isinstance(found, Iterator) else found


def readable(error: BeatstoreError) -> None:
    """Fail unless an error is fit for a log, and is not about the database."""
    text = str(error)
    assert text
    assert len(text) < 2000
    text.encode()
    assert not isinstance(error, StoreError), text


def stored(entry: Entry, argument: str, value: Any) -> None:
    """Fail unless an entry holds what was given."""
    if argument in ("args", "kwargs") and value:
        assert same(decoded(argument, getattr(entry, argument)), value)
    elif argument == "options" and isinstance(value, Mapping) and "expires" not in value:
        assert same(decoded(argument, entry.options), value)
    elif argument in ("task", "signature", "name", "new_name"):
        column = {"signature": "task", "new_name": "name"}.get(argument, argument)
        if isinstance(value, str):
            assert getattr(entry, column) == value
    elif argument in ("timezone", "misfire", "overlap", "source", "description"):
        assert value is None or getattr(entry, argument) == value


def same(held: Any, given: Any) -> bool:
    """Say whether what is held is what a message would carry: lists, and text for keys."""
    if isinstance(given, Mapping):
        found = {key: item for one, item in given.items() for key in as_sent({one: 0})}
        return held.keys() == found.keys() and all(same(held[key], found[key]) for key in found)
    if isinstance(given, list | tuple | set):
        pairs = zip(held, given, strict=True)
        return isinstance(held, list) and all(same(one, two) for one, two in pairs)
    return repr(held) == repr(as_sent(given))


def tried(store: Store, method: str, argument: str, value: Any) -> None:
    """Call a method with a value, see what comes of it, and undo it."""
    with store.database.session() as session:
        before = session.connection().exec_driver_sql("SELECT max(id) FROM beatstore_entry")
        last = before.scalar_one()
    made: Any = None
    try:
        made = call(store, method, argument, value)
    except BeatstoreError as error:
        readable(error)
    if isinstance(made, Entry):
        held = store.get(made.name)
        stored(held, argument, value)
        assert repr(held)
        if argument == "tags" and not isinstance(value, str):
            assert list(store.get(made.name).tags) == sorted(set(value))
    restore(store, last)


def test_any_argument(store: Store) -> None:
    """Whatever some argument is given: a clear error, or it is held as it was given."""

    @examples(300)
    @given(st.sampled_from(CASES), st.data())
    def try_it(case: tuple[str, str], data: st.DataObject) -> None:
        method, argument = case
        tried(store, method, argument, data.draw(STRATEGIES.get(argument, texts())))

    try_it()


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("method", "argument"), CASES)
def test_an_argument(store: Store, method: str, argument: str) -> None:
    """The same for each argument, as many times."""

    @examples(100)
    @given(STRATEGIES.get(argument, texts()))
    def try_it(value: Any) -> None:
        tried(store, method, argument, value)

    try_it()


def restore(store: Store, last: int) -> None:
    """Make the tables what they were, as far as a method may have changed them."""
    with store.database.session() as session:
        connection = session.connection()
        for statement in (
            f"DELETE FROM beatstore_dependency WHERE downstream_id > {last}",
            f"DELETE FROM beatstore_tag WHERE entry_id > {last}",
            f"DELETE FROM beatstore_entry WHERE id > {last}",
            "DELETE FROM beatstore_audit WHERE id > 10",
            "UPDATE beatstore_entry SET name = 'there' WHERE id = 2",
        ):
            connection.exec_driver_sql(statement)


#: What makes a schedule, and the arguments of it that take text.
MAKERS: Mapping[str, tuple[Callable[..., Any], dict[str, SearchStrategy[Any]]]] = {
    "Cron": (beatstore.Cron, {"expression": worded(CRON), "timezone": st.none() | worded(ZONES)}),
    "RRule": (beatstore.RRule, {"text": worded(RRULE), "timezone": st.none() | worded(ZONES)}),
    "Solar": (
        beatstore.Solar,
        {
            "event": st.sampled_from(["sunrise", "dusk_civil"]) | texts(),
            "lat": st.floats() | st.integers(),
            "lon": st.floats() | st.integers(),
        },
    ),
    "Every": (beatstore.Every, {"seconds": schedules()}),
    "Once": (beatstore.Once, {"at": schedules()}),
    "weekly": (
        beatstore.weekly,
        {
            "day": worded(("", "mon", "Sunday", "tue")),
            "hour": st.integers(-1, 25),
            "timezone": st.none() | worded(ZONES),
        },
    ),
    "as_schedule": (
        # Which function it is depends on its first argument, that has no name.
        lambda given, zone: beatstore.as_schedule(given, timezone=zone),
        {"given": schedules(), "zone": worded(ZONES)},
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_schedule_is_made_or_refused(name: str) -> None:
    """What a schedule is made of is refused with the reason, or it answers ever after."""
    make, arguments = MAKERS[name]

    @examples(100)
    @given(st.fixed_dictionaries(arguments))
    def try_it(given: Mapping[str, Any]) -> None:
        try:
            schedule = make(**given)
        except ScheduleError as error:
            readable(error)
            return
        following = schedule.next_after(NOON)
        assert following is None or following > NOON
        assert len(schedule.between(NOON, NOON + timedelta(days=1), 3)) <= 3
        assert beatstore.as_schedule(schedule) == schedule

    try_it()
