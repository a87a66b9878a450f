"""`app.conf.beat_schedule` as entries that can be stored; no database."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery, chain, group
from celery.beat import BeatLazyFunc, ScheduleEntry
from celery.schedules import BaseSchedule, crontab, schedule, solar

from beatstore import Cron, Declared, Every, RRule
from beatstore.config import Settings
from beatstore.definition.edits import check
from beatstore.discovery.beatschedule import CLEANUP, beat_entries, evaluated
from beatstore.errors import LazyArgumentError

UTC = timezone.utc


@pytest.fixture
def app() -> Iterator[Celery]:
    """Return an app in Berlin whose results do not expire."""
    app = Celery("tests", set_as_current=False)
    app.conf.update(timezone="Europe/Berlin", result_expires=None)
    yield app
    app.close()


def read(app: Celery, given: Any) -> Declared:
    """Return the one entry that `beat_schedule` has, named x."""
    app.conf.beat_schedule = {"x": given}
    entries, refused = beat_entries(app)
    assert not refused
    (found,) = entries
    assert found.name == "x"
    return found


def reason(app: Celery, given: Any) -> str:
    """Return why the one entry of `beat_schedule`, named x, is refused."""
    app.conf.beat_schedule = {"x": given, "good": {"task": "t", "schedule": 30}}
    entries, refused = beat_entries(app)
    assert [entry.name for entry in entries] == ["good"]
    return refused["x"]


def row(found: Declared) -> dict[str, Any]:
    """Return the columns that an entry is stored with, in an app of another zone."""
    return check(found.given(), Settings(default_timezone="Asia/Tokyo")).columns


# -- schedules -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected", "zone"),
    [
        (crontab(minute=0, hour=4), Cron("0 4 * * *", "Europe/Berlin"), "Europe/Berlin"),
        (
            crontab(minute=0, hour=0, day_of_month=13, day_of_week="fri"),
            Cron("0 0 13 * 5", "Europe/Berlin", day_or=False),
            "Europe/Berlin",
        ),
        (30, Every(30), "Asia/Tokyo"),
        (2.5, Every(2.5), "Asia/Tokyo"),
        (timedelta(hours=3), Every(10800), "Asia/Tokyo"),
        (schedule(90), Every(90), "Asia/Tokyo"),
        (Cron("0 4 * * *", "Asia/Kolkata"), Cron("0 4 * * *", "Asia/Kolkata"), "Asia/Kolkata"),
        (Cron("0 4 * * *"), Cron("0 4 * * *", "Europe/Berlin"), "Europe/Berlin"),
        ("0 4 * * *", Cron("0 4 * * *", "Europe/Berlin"), "Europe/Berlin"),
    ],
    ids=[
        *("crontab", "both day fields", "seconds", "float", "timedelta", "interval"),
        *("ours with a zone", "ours", "text"),
    ],
)
def test_a_schedule_is_carried(app: Celery, value: Any, expected: Any, zone: str) -> None:
    """What celery's beat takes means the same here; a wall clock is that of the app."""
    columns = row(read(app, {"task": "t", "schedule": value}))
    assert (columns["kind"], columns["spec"]) == (expected.kind, expected.spec)
    assert columns["timezone"] == zone


def test_the_sun_is_carried(app: Celery) -> None:
    """A solar schedule keeps its event and place."""
    pytest.importorskip("ephem")
    columns = row(read(app, {"task": "t", "schedule": solar("sunset", -37.8, 144.9)}))
    assert (columns["kind"], columns["spec"]) == ("solar", "sunset -37.8 144.9")


def test_a_crontab_with_a_zone_of_its_own_keeps_it(app: Celery) -> None:
    """The zone of the schedule is stronger than the app's."""
    value = crontab(minute=0, hour=4)
    value.tz = ZoneInfo("America/Lima")
    assert row(read(app, {"task": "t", "schedule": value}))["timezone"] == "America/Lima"


@pytest.mark.parametrize(
    ("value", "relative", "expected"),
    [
        (timedelta(days=1), True, Cron("0 0 * * *", "Asia/Kolkata")),
        (timedelta(minutes=90), True, Cron("0 * * * *", "Asia/Kolkata")),
        (
            timedelta(days=3),
            True,
            RRule("DTSTART:20240101T000000 RRULE:FREQ=DAILY;INTERVAL=3", "Asia/Kolkata"),
        ),
        (
            3 * 3600,
            True,
            Every(10800, anchor=datetime(2024, 1, 1, tzinfo=ZoneInfo("Asia/Kolkata"))),
        ),
        (
            schedule(3 * 3600, relative=True),
            False,
            Every(10800, anchor=datetime(2024, 1, 1, tzinfo=ZoneInfo("Asia/Kolkata"))),
        ),
        (schedule(3 * 3600), True, Every(10800)),
        (crontab(minute=0), True, Cron("0 * * * *", "Asia/Kolkata")),
        (30, False, Every(30)),
    ],
)
def test_relative_is_carried(app: Celery, value: Any, expected: Any, *, relative: bool) -> None:
    """`relative` counts from the app's clock; as in celery, it is for plain intervals only."""
    app.conf.timezone = "Asia/Kolkata"
    columns = row(read(app, {"task": "t", "schedule": value, "relative": relative}))
    assert (columns["kind"], columns["spec"]) == (expected.kind, expected.spec)
    if expected.timezone:
        assert columns["timezone"] == expected.timezone


class Business(BaseSchedule):
    """A schedule of somebody's own, which does not even call its base."""

    def __init__(self) -> None:
        pass

    def is_due(self, last_run_at: datetime) -> Any:
        """Never."""
        return False, 3600


def test_a_schedule_that_is_code_is_left_to_the_check(app: Celery) -> None:
    """What computes its own times is refused where it is stored, with its reason."""
    for value in (Business(), lambda: 30, crontab(0, 4, nowfun=lambda: datetime.now(UTC))):
        found = read(app, {"task": "t", "schedule": value})
        with pytest.raises(ValueError, match="schedule: expected"):
            row(found)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "t", "schedule": 0.5, "relative": True}, "a second or more"),
        ({"task": "t", "schedule": 30, "queue": "q"}, "key: expected one of args, kwargs"),
        (None, "NoneType"),
        (["task"], "ValueError"),
    ],
)
def test_what_can_not_be_read_is_refused_alone(app: Celery, given: Any, words: str) -> None:
    """An entry that is wrong is refused with the reason, and the others are read."""
    assert words in reason(app, given)


def test_a_name_that_is_no_text_is_refused(app: Celery) -> None:
    """A key of `beat_schedule` may be anything to Python, and only text here."""
    app.conf.beat_schedule = {7: {"task": "t", "schedule": 30}}
    reason = "name: expected text, got 7; write 'nightly'"
    assert beat_entries(app) == ([], {"a key of type int": reason})


def test_a_zone_without_a_name_is_refused_for_wall_clocks_only(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app with the machine's own clock has intervals, but no crontab that can be stored."""
    monkeypatch.setattr(app, "timezone", timezone(timedelta(hours=1)))
    assert "a zone with a name" in reason(app, {"task": "t", "schedule": crontab(0, 4)})
    assert read(app, {"task": "t", "schedule": 30}).timezone is None


# -- the rest of an entry ------------------------------------------------------------------


def test_arguments_and_options_are_carried(app: Celery) -> None:
    """What celery would send is what is stored."""
    given = {
        "task": "t",
        "schedule": 30,
        "args": (1, "b"),
        "kwargs": {"c": [2]},
        "options": {"queue": "q", "expires": 60, "headers": {"h": "1"}},
    }
    columns = row(read(app, given))
    assert columns["args"] == [1, "b"]
    assert columns["kwargs"] == {"c": [2]}
    assert columns["options"] == {"queue": "q", "expires": 60, "headers": {"h": "1"}}


def test_what_add_periodic_task_adds_is_there(app: Celery) -> None:
    """Tasks, signatures and canvases, with their names and options, before and after setup."""

    @app.task(name="tests.say", shared=False)
    def say(*args: Any) -> None:
        """Do nothing."""

    app.add_periodic_task(10.0, say.s("hello"), name="hello", expires=5)
    app.conf.beat_schedule.update({"conf": {"task": "t", "schedule": 30}})
    app.add_periodic_task(crontab(minute=0), say.s("hourly"))
    app.add_periodic_task(crontab(hour=4), chain(say.si("a"), say.si("b")).set(queue="q"), name="c")
    app.add_periodic_task(20.0, group(say.si("a"), say.si("b")), name="g")
    entries, refused = beat_entries(app)
    found = {entry.name: row(entry) for entry in entries}
    assert not refused
    assert sorted(found) == ["c", "conf", "g", "hello", "tests.say('hourly')"]
    assert (found["hello"]["args"], found["hello"]["options"]) == (["hello"], {"expires": 5})
    assert found["tests.say('hourly')"]["timezone"] == "Europe/Berlin"
    assert found["c"]["task"] == "celery.chain"
    assert [one["args"] for one in found["c"]["kwargs"]["tasks"]] == [["a"], ["b"]]
    assert found["g"]["task"] == "celery.group"


def test_an_entry_of_celery_is_read(app: Celery) -> None:
    """`beat_schedule` may hold celery's own entries, whose counters are beat's business."""
    entry = ScheduleEntry(name="y", task="t", schedule=crontab(0, 4), args=(1,), app=app)
    found = read(app, entry)
    assert (found.task, found.args, row(found)["spec"]) == ("t", [1], "0 4 * * *")


def test_the_starting_deadline_counts_for_crontabs(app: Celery) -> None:
    """What celery would leave out as too late is left out here; intervals know no such limit."""
    app.conf.beat_cron_starting_deadline = 7200
    late = read(app, {"task": "t", "schedule": crontab(0, 4)})
    assert (late.grace, late.misfire) == (7200, "skip")
    every = read(app, {"task": "t", "schedule": 30})
    assert (every.grace, every.misfire) == (None, None)
    app.conf.beat_cron_starting_deadline = None
    assert read(app, {"task": "t", "schedule": crontab(0, 4)}).misfire is None


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({"result_expires": 3600}, True),
        ({"result_expires": None}, False),
        ({"result_expires": 3600, "result_backend": "cache+memory://"}, False),
    ],
)
def test_the_cleanup_comes_under_celerys_conditions(
    app: Celery, settings: dict[str, Any], *, there: bool
) -> None:
    """`celery.backend_cleanup` is part of it, unless `beat_schedule` has its own."""
    app.conf.update(settings)
    found, _ = beat_entries(app)
    assert [entry.name for entry in found] == [CLEANUP] * there
    app.conf.beat_schedule = {CLEANUP: {"task": "mine", "schedule": 30}}
    assert [entry.task for entry in beat_entries(app)[0]] == ["mine"]


# -- functions among the arguments ---------------------------------------------------------


def today() -> str:
    """Return a day."""
    return "2026-01-15"


def broken() -> str:
    """Fail as a lost connection would."""
    raise OSError("no such host")


LAZY = {
    "task": "t",
    "schedule": 30,
    "args": ("plain", BeatLazyFunc(today)),
    "kwargs": {"sum": BeatLazyFunc(max, 3, 4), "bad": BeatLazyFunc(broken)},
}


def test_a_function_is_named_on_the_row(app: Celery) -> None:
    """The row holds JSON that says which function is called, and where it is written."""
    columns = row(read(app, LAZY))
    name = f"{today.__module__}.today"
    assert columns["args"] == ["plain", {"beatstore_lazy": name, "entry": "x", "argument": 1}]
    assert columns["kwargs"]["sum"] == {
        "beatstore_lazy": "builtins.max",
        "entry": "x",
        "argument": "sum",
    }


def test_a_function_is_called_at_each_send(app: Celery) -> None:
    """What is sent is the value; what is no such name is sent as it is."""
    columns = row(read(app, LAZY))
    assert [evaluated(app, value) for value in columns["args"]] == ["plain", "2026-01-15"]
    assert evaluated(app, columns["kwargs"]["sum"]) == 4
    assert evaluated(app, {"entry": "x"}) == {"entry": "x"}


def test_a_function_that_raises_is_an_error_of_the_message(app: Celery) -> None:
    """Whatever it raises: an OSError in it must not be taken for a broker that is away."""
    columns = row(read(app, LAZY))
    with pytest.raises(LazyArgumentError, match=r"broken for argument 'bad' of 'x' raised OSError"):
        evaluated(app, columns["kwargs"]["bad"])


def test_a_name_without_an_address_is_the_same_at_each_start(app: Celery) -> None:
    """Celery names a signature by its repr, which for a function shows where it is in memory."""

    @app.task(name="tests.say", shared=False)
    def say(*args: Any) -> None:
        """Do nothing."""

    lazy = [BeatLazyFunc(today), BeatLazyFunc(today)]
    assert app.add_periodic_task(10.0, say.s(lazy[0])) != repr(say.s(lazy[1]))
    ((entry,), refused) = beat_entries(app)
    assert entry.name == "tests.say(<celery.beat.BeatLazyFunc object>)"
    assert evaluated(app, row(entry)["args"][0]) == "2026-01-15"
    app.add_periodic_task(20.0, say.s(lazy[1]))
    _, refused = beat_entries(app)
    assert list(refused) == [entry.name]
    assert "write add_periodic_task(…, name=…)" in refused[entry.name]


@pytest.mark.parametrize(
    "code",
    [
        {},
        {"x": {"task": "t", "schedule": 30}},
        {"x": {**LAZY, "args": (BeatLazyFunc(today),)}},
        {"x": {**LAZY, "args": ("plain", BeatLazyFunc(functools.partial(max, 1)))}},
        {"x": {**LAZY, "args": ("plain", "plain")}},
        {"x": None},
    ],
    ids=["entry gone", "no arguments", "moved", "another one", "no function", "not an entry"],
)
def test_a_function_that_is_not_there_is_an_error_of_the_message(app: Celery, code: Any) -> None:
    """A row that outlived its code, or is another app's, says which function is missing."""
    (_, stored) = row(read(app, LAZY))["args"]
    app.conf.beat_schedule = code
    with pytest.raises(LazyArgumentError, match=r"today is not argument 1 of 'x'"):
        evaluated(app, stored)


@pytest.mark.parametrize("entry", [None, 7, ["x"], "x"])
@pytest.mark.parametrize("argument", [None, 99, -99, "no", [], {}])
def test_any_row_is_an_error_of_the_message(app: Celery, entry: Any, argument: Any) -> None:
    """A row that a person wrote can name nothing that is not an argument of an entry."""
    app.conf.beat_schedule = {"x": LAZY}
    with pytest.raises(LazyArgumentError):
        evaluated(app, {"beatstore_lazy": "os.system", "entry": entry, "argument": argument})


# -- long names ----------------------------------------------------------------------------


def test_a_long_name_is_kept_by_its_digest(app: Celery) -> None:
    """Celery names an entry after all arguments: a long name keeps its beginning, and is one."""

    @app.task(name="tests.say", shared=False)
    def say(*args: Any) -> None:
        """Do nothing."""

    texts = ["a" * 242, "a" * 243, "a" * 242 + "b", "a" * 3000]
    names = [app.add_periodic_task(60.0, say.s(text)) for text in texts]
    assert [len(name) for name in names] == [255, 256, 256, 3013]
    entries, refused = beat_entries(app)
    assert not refused
    found = [entry.name for entry in entries]
    assert found[0] == names[0]
    assert [len(name) for name in found] == [255] * 4
    assert len(set(found)) == 4
    for entry, text in zip(entries, texts, strict=True):
        assert row(entry)["args"] == [text]


def test_the_digest_of_a_name_never_changes(app: Celery) -> None:
    """A restart, another Python and another process find the row of a long name again."""
    app.conf.beat_schedule = {"é" * 300: {"task": "t", "schedule": 30}}
    ((entry,), _) = beat_entries(app)
    assert entry.name == "é" * 237 + "… 7250b66610f8b7db"


def test_a_long_name_finds_its_function(app: Celery) -> None:
    """A function among the arguments is called at the send, under a long name too."""
    lazy = BeatLazyFunc(today)
    app.conf.beat_schedule = {"x" * 300: {"task": "t", "schedule": 30, "args": [lazy]}}
    ((entry,), _) = beat_entries(app)
    assert evaluated(app, row(entry)["args"][0]) == "2026-01-15"
