"""The digest of a declaration: the same in every process, and another for whatever differs."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery, chain, signature
from celery.schedules import crontab, schedule, solar

from beatstore import After, Cron, Declared, Every, Once, RRule, Settings, Solar, daily, weekly
from beatstore.definition import edits
from beatstore.definition.identity import digest, form
from beatstore.errors import NoIdentityError

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)

app = Celery("declared", broker="memory://", set_as_current=False)
app.conf.timezone = "Asia/Tokyo"


@app.task(name="send")
def send(*_: object) -> None:
    """Do nothing."""


class Word(str, enum.Enum):
    """Text that JSON takes for text."""

    SKIP = "skip"


class Odd(crontab):
    """A crontab with an opinion of its own."""

    def is_due(self, last_run_at: datetime) -> tuple[bool, datetime]:
        """Say yes."""
        return True, last_run_at


def of(schedule: Any = "0 2 * * *", task: Any = "t", **given: Any) -> str | None:
    """Return the digest of a declaration."""
    return digest(Declared("a", task, schedule, **given), "UTC", None)


def wanted(schedule: Any = "0 2 * * *", task: Any = "t", **given: Any) -> edits.CheckedFields:
    """Return what is stored of it."""
    return edits.check(
        {**Declared("a", task, schedule, **given).given(), "source": "x"}, Settings()
    )


#: Declarations of which no two say the same.
DIFFERENT: list[dict[str, Any]] = [
    *({}, {"task": "u"}, {"schedule": "0 3 * * *"}),
    *({"schedule": crontab(minute=0, hour=2)}, {"schedule": crontab(minute="0", hour=3)}),
    *({"schedule": crontab(day_of_month=2)}, {"schedule": crontab(day_of_week=2)}),
    *({"schedule": crontab(month_of_year=2)}, {"schedule": crontab(minute={1, 2})}),
    *({"schedule": crontab(minute={1, 3})}, {"schedule": crontab(minute=0, hour=2, app=app)}),
    *({"schedule": schedule(30)}, {"schedule": schedule(31)}, {"schedule": schedule(30, True)}),
    *({"schedule": solar("sunset", 1, 2)}, {"schedule": solar("sunset", 2, 1)}),
    *({"schedule": solar("sunrise", 1, 2)}, {"schedule": Solar("sunset", 1, 2)}),
    *({"schedule": 60}, {"schedule": timedelta(seconds=61)}, {"schedule": Every(60, NOON)}),
    *({"schedule": Every(62)}, {"schedule": Once(NOON)}, {"schedule": NOON + timedelta(1)}),
    *({"schedule": daily(9)}, {"schedule": daily(9, timezone="Asia/Tokyo")}),
    *({"schedule": weekly("mon", 9)}, {"schedule": Cron("0 0 1 * 1")}),
    *({"schedule": Cron("0 0 1 * 1", day_or=False)}, {"schedule": RRule("FREQ=DAILY")}),
    *({"args": [1]}, {"args": [True]}, {"args": [1.0]}, {"args": ["1"]}, {"args": [[1]]}),
    *({"args": [None]}, {"args": [{"a": 1}]}, {"args": [["a", 1]]}, {"kwargs": {"a": 1}}),
    *({"kwargs": {"a": 1, "b": 2}}, {"kwargs": {"a": "1"}}, {"options": {"queue": "q"}}),
    *({"options": {"expires": timedelta(seconds=5)}}, {"options": {"expires": 6}}),
    *({"timezone": "Asia/Tokyo"}, {"start_at": NOON}, {"end_at": NOON}, {"max_runs": 1}),
    *({"jitter": 1}, {"grace": 1}, {"grace": timedelta(seconds=2)}, {"misfire": "skip"}),
    *({"overlap": "skip"}, {"run_timeout": 1}, {"max_retries": 1}, {"retry_delay": 1}),
    *({"retry_backoff": 2}, {"retry_jitter": 1}, {"description": "d"}, {"paused": True}),
    *({"tags": ["x"]}, {"tags": ["x", "y"]}, {"after": ["x"]}, {"after": ["x", "y"]}),
    *({"after": [After("x", on="done")]}, {"after": [After("x", first_free=True)]}),
    *({"after": [After("x", timeout=5)]}, {"after": [After("x", align="same")]}),
    *({"task": signature("send", (1,))}, {"task": signature("send", (2,))}),
    *({"task": signature("send", (1,), queue="q")}, {"task": signature("send", kwargs={"a": 1})}),
    {"task": chain(send.s(1), send.s(2), app=app)},
]


def test_whatever_makes_another_row_has_another_digest() -> None:
    """All that can be declared counts: schedules of all kinds, and every field."""
    digests = [of(**given) for given in DIFFERENT]
    assert None not in digests
    assert len({*digests}) == len(DIFFERENT)


def test_settings_that_decide_count_too() -> None:
    """The default zone and the allowed tasks are part of the digest."""
    contexts: list[tuple[Any, ...]] = [("UTC", None), ("Asia/Tokyo", None), ("UTC", ("t*",))]
    assert len({digest(Declared("a", "t", 60), *context) for context in contexts}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"kwargs": {"a": 1, "b": 2}}, {"kwargs": {"b": 2, "a": 1}}),
        ({"args": (1, 2)}, {"args": [1, 2]}),
        ({"misfire": Word.SKIP}, {"misfire": "skip"}),
        ({"tags": {"x", "y", "z"}}, {"tags": {"z", "y", "x"}}),
        ({"task": send}, {"task": "send"}),
        ({"task": send.s(1)}, {"task": signature("send", (1,), app=app)}),
        ({"schedule": crontab(minute={1, 20, 3})}, {"schedule": crontab(minute={3, 20, 1})}),
        ({"start_at": NOON}, {"start_at": datetime(2026, 1, 15, 12, tzinfo=ZoneInfo("UTC"))}),
    ],
)
def test_the_same_has_the_same_digest(one: dict[str, Any], other: dict[str, Any]) -> None:
    """What says the same in other words is recognised, and makes the same row."""
    assert of(**one) == of(**other) is not None
    assert wanted(**one) == wanted(**other)


@pytest.mark.parametrize(
    "given",
    [
        {"args": [object()]},
        {"kwargs": {1: 2}},
        {"schedule": Odd()},
        {"schedule": crontab(nowfun=lambda: NOON)},
        {"schedule": object()},
        {"task": object()},
        {"task": partial(send)},
        {"schedule": crontab(minute=5), "args": [{"a": [NoIdentityError]}]},
    ],
)
def test_what_is_not_certain_has_no_digest(given: dict[str, Any]) -> None:
    """What can't be told without storing it is read in full at each sync."""
    assert of(**given) is None


def test_what_contains_itself_has_no_digest() -> None:
    """A list that goes round ends in no digest, not in an error."""
    endless: list[Any] = []
    endless.append(endless)
    assert of(args=endless) is None


def test_the_digest_is_that_of_other_processes() -> None:
    """Neither the seed of hashes nor the order of imports shows in it."""
    code = (
        "from tests.unit.test_declared import DIFFERENT, of\n"
        "print([of(**given) for given in DIFFERENT])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {repr([of(**given) for given in DIFFERENT])}


def test_generators_are_not_used_up() -> None:
    """Something that can be read once only has no digest, and is still whole afterwards."""
    words: Iterator[str] = iter(["x"])
    with pytest.raises(NoIdentityError):
        form(words)
    assert list(words) == ["x"]
