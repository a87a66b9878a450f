"""One value at a time: what is stored is what was given, or an error says what to write."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatstore.definition import fields
from beatstore.errors import InvalidEntryError

UTC = timezone.utc


class Colour(str, Enum):
    """A text that is an enum too."""

    RED = "red"


class Level(IntEnum):
    """A number that is an enum too."""

    HIGH = 3


@pytest.mark.parametrize("name", ["a", "Nightly report", "größe/1", "x" * 255, "日本"])
def test_a_line_of_text_is_taken_as_it_is(name: str) -> None:
    """Any line of 1 to 255 characters is a name, in any script and case."""
    assert fields.text("name", name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "a ", "\ta", "a\nb", "a\0", "x" * 256, "\ud800", "a\u2028b", None, 1, b"a"]
)
def test_text_that_would_be_cut_lost_or_mistaken_is_refused(name: Any) -> None:
    """Space at the ends, control characters, half characters and length over 255 are refused."""
    with pytest.raises(InvalidEntryError) as caught:
        fields.text("name", name)
    assert caught.value.field == "name"


def test_a_refused_name_comes_with_one_that_would_do() -> None:
    """The error of a name with stray space says the name without it."""
    with pytest.raises(InvalidEntryError, match="write 'a b'"):
        fields.text("name", " a\n b ")


def test_tags_are_sorted_and_each_once() -> None:
    """The order and number of times in which tags are given make no difference."""
    assert fields.tags({"b", "a"}) == fields.tags(["a", "b", "a"]) == ("a", "b")
    assert fields.tags([]) == ()


@pytest.mark.parametrize("tags", ["etl", [""], ["x" * 65], [1], None, {"a": 1}, b"a"])
def test_what_is_no_list_of_words_is_no_tags(tags: Any) -> None:
    """A single string, an empty, long or other tag is refused."""
    with pytest.raises(InvalidEntryError) as caught:
        fields.tags(tags)
    assert caught.value.field == "tags"


def test_an_instant_is_kept_in_utc_with_its_microseconds() -> None:
    """An aware datetime of any zone becomes the same instant in UTC."""
    at = datetime(2525, 11, 11, 9, 30, 0, 123456, tzinfo=ZoneInfo("Europe/Berlin"))
    assert fields.instant("at", at) == at
    assert fields.instant("at", at).tzinfo is UTC
    latest = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert fields.instant("at", latest) == latest


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 1, 1),
        datetime(999, 12, 31, tzinfo=UTC),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))),
        date(2026, 1, 1),
        "2026-01-01T00:00:00Z",
        0,
    ],
)
def test_an_instant_that_is_naive_or_out_of_range_is_refused(at: Any) -> None:
    """Naive datetimes, dates, text, and what no database can hold in UTC are refused."""
    with pytest.raises(InvalidEntryError) as caught:
        fields.instant("start_at", at)
    assert caught.value.field == "start_at"


def test_spans_are_seconds_or_timedeltas() -> None:
    """A number of seconds and the timedelta of that length are the same."""
    assert fields.seconds("grace", 90) == fields.seconds("grace", timedelta(minutes=1.5)) == 90.0
    assert fields.seconds("grace", 0) == 0.0


@pytest.mark.parametrize(
    "span", [-1, timedelta(seconds=-1), math.nan, math.inf, 1e9, 10**400, True, "60", None]
)
def test_what_is_no_span_is_refused(span: Any) -> None:
    """Negative, endless and non-numeric spans are refused, and True is not one second."""
    with pytest.raises(InvalidEntryError, match="grace: expected seconds, 0 or more"):
        fields.seconds("grace", span)


@pytest.mark.parametrize("value", [0, 2**31, 1.0, True, "1", None])
def test_what_is_no_count_is_refused(value: Any) -> None:
    """A count is an int from 1 to what the column holds."""
    with pytest.raises(InvalidEntryError, match="max_runs: expected a whole number"):
        fields.whole("max_runs", value, least=1)


def test_notes_may_have_lines_but_no_nul() -> None:
    """A description is text of any lines, or None; NUL and endless text are refused."""
    assert fields.note("description", "a\n\tb") == "a\n\tb"
    assert fields.note("description", None) is None
    for bad in ("a\0", "x" * 16_001, "\ud800", 3):
        with pytest.raises(InvalidEntryError):
            fields.note("description", bad)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=20,
)


@given(JSON)
def test_what_json_holds_is_given_back_as_it_was(value: Any) -> None:
    """Every JSON value is accepted unchanged, and survives being written and read."""
    stored = fields.plain("args", value)
    assert stored == value
    assert json.loads(json.dumps(stored, allow_nan=False)) == value


def test_subclasses_become_the_plain_values_they_stand_for() -> None:
    """Tuples become lists; enums of text and numbers, and subclasses of dict, become plain."""

    class Mine(dict):  # type: ignore[type-arg]
        pass

    stored = fields.plain("args", ((1, 2), Mine(a=Colour.RED), Level.HIGH))
    assert stored == [[1, 2], {"a": "red"}, 3]
    assert [type(item) for item in stored] == [list, dict, int]
    assert type(stored[1]["a"]) is str


@pytest.mark.parametrize(
    ("value", "path", "write"),
    [
        (
            {"when": datetime(2026, 1, 1, tzinfo=UTC)},
            "kwargs['when']",
            "'2026-01-01T00:00:00+00:00'",
        ),
        ({"a": [{"b": {1, 2}}]}, "kwargs['a'][0]['b']", "sorted"),
        ({"a": b"x"}, "kwargs['a']", "base64"),
        ({"a": timedelta(minutes=1)}, "kwargs['a']", "60.0"),
        ({"a": print}, "kwargs['a']", "compute in the task"),
        ({"a": Decimal("1.1")}, "kwargs['a']", "str"),
        ({"a": UUID(int=1)}, "kwargs['a']", "str"),
        ({"a": object()}, "kwargs['a']", "str"),
        ({"a": math.nan}, "kwargs['a']", "None"),
        ({"a": -math.inf}, "kwargs['a']", "None"),
        ({"a": 2**64}, "kwargs['a']", "text"),
        ({"a": {1: "x"}}, "kwargs['a']", "'1'"),
        ({None: 1}, "kwargs", "'None'"),
    ],
)
def test_what_json_would_change_is_refused_by_its_path(value: Any, path: str, write: str) -> None:
    """A value that JSON can't give back as it was is refused, with its path and a remedy."""
    with pytest.raises(InvalidEntryError) as caught:
        fields.plain("kwargs", value)
    assert caught.value.field == path
    assert write in str(caught.value.write)


def test_a_list_that_contains_itself_is_refused() -> None:
    """Endless and very deep values are refused rather than overflowing the stack."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidEntryError, match="does not contain itself"):
        fields.plain("args", endless)


def test_half_a_character_is_no_text() -> None:
    """Text that UTF-8 can't encode is refused: a broker could not carry it."""
    with pytest.raises(InvalidEntryError, match="UTF-8"):
        fields.plain("args", ["\ud800"])


@pytest.mark.parametrize(("given", "write"), [("pausd", "'paused'"), ("foo", None), ("", None)])
def test_only_a_word_that_is_alike_is_suggested(given: str, write: str | None) -> None:
    """A word that is like none of those that are known comes with no guess."""
    with pytest.raises(InvalidEntryError) as caught:
        fields.choice("state", given, ("active", "paused", "broken"))
    assert caught.value.write == write
