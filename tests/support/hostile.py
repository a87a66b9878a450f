"""Values that nobody should give, for Hypothesis: text, JSON and schedules of every odd kind.

`texts` are any characters, half surrogate pairs and NUL among them, short and very long.
`worded` is the same, and text that is nearly what some grammar wants. `jsons` are what JSON
holds, and what it doesn't; `schedules` what `schedule=` takes, nearly takes, and doesn't.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from beatstore import Every, Once, Schedule
from tests.support.thorough import tries

__all__ = [
    "CRON",
    "ISO",
    "RRULE",
    "ZONES",
    "examples",
    "jsons",
    "schedules",
    "texts",
    "worded",
]

#: Text that has broken programs before.
_KNOWN = (
    *("", " ", "\t", "\n", "a\nb", " a", "a ", "\0", "a\0b", "\x1b[31mred", "\x7f", "\x85"),
    *("\u2028", "\u2029", "\u202egnp.exe", "\u200fא", "مرحبا", "\u200b", "\ufeff", "\ufeffa"),
    *("\ud800", "a\udfff", "\ud83d\ude00", "😀", "𝒳" * 64, "e\u0301", "é", "ﬃ", "İ", "ß", "\uffff"),
    *("%", "%s", "%(a)s", "{0}", "{}", "*", "?", "[", "[a", "!", "_", "\\", "'", '"', "`", ":a"),
    *("--", "-", "--help", "-1", "0", "1e400", "nan", "NULL", "None", "true", "[]", "{}", "@"),
    *("'; DROP TABLE beatstore_entry; --", "$(true)", "../../etc/passwd", "/etc/localtime"),
    *("a" * 64, "a" * 65, "a" * 255, "a" * 256, "ü" * 255, "😀" * 255, "😀" * 256, "é" * 70_000),
)

#: Alphabets, and words, in which text is likely to be nearly right.
CRON = ("0123456789*/,-#LW? @", "JAN", "MON", "sun", "@daily", "0 2 * * *", "*/5 ", "59 23 31 2 *")
ISO = ("0123456789-:.+TZ ", "2026-01-15T12:00:00+00:00", "9999-12-31", "0001-01-01T00:00+14:00")
RRULE = (
    *("=;,:-+0123456789TZ", "FREQ=", "YEARLY", "DAILY", "SECONDLY", ";INTERVAL=", ";COUNT="),
    *(";UNTIL=", ";BYDAY=", "MO", "-1SU", ";BYMONTHDAY=", ";BYSETPOS=", ";BYWEEKNO=", ";WKST="),
    *("\n", "RRULE:", "DTSTART", ";TZID=", "20260115T120000Z", "EXDATE:", "RDATE:"),
)
ZONES = (
    *("Europe/Berlin", "UTC", "utc", "Etc/GMT+5", "US/Eastern", "localtime", "posixrules"),
    *("Europe", "Europe/", "/", "..", "zone.tab", "tzdata.zi", "+01:00", "EST5EDT", "Asia/"),
)


def examples(full: int, *, each: int = 1) -> settings:
    """Say how many cases a test tries: `full`, or `BEATSTORE_TEST_EXAMPLES`; `each` at a time."""
    count = max(1, int(os.environ.get("BEATSTORE_TEST_EXAMPLES", tries(full))) // each)
    checks = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)
    return settings(max_examples=count, deadline=None, suppress_health_check=checks)


def texts() -> SearchStrategy[str]:
    """Generate any text at all."""
    anything = st.text(st.characters(), max_size=40)  # with half surrogate pairs
    long = st.builds(lambda part, count: part * count, st.text(max_size=5), st.integers(50, 5000))
    return st.one_of(st.sampled_from(_KNOWN), anything, long)


def worded(words: Sequence[str]) -> SearchStrategy[str]:
    """Generate text that is made of `words`, the first of which is an alphabet; or any."""
    part = st.one_of(st.text(words[0], max_size=12), st.sampled_from(list(words[1:])))
    return st.one_of(st.lists(part, max_size=12).map("".join), texts())


def _deep(levels: int) -> Any:
    found: Any = 1
    for level in range(levels):
        found = [found] if level % 2 else {"a": found}
    return found


def _endless() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


def jsons() -> SearchStrategy[Any]:
    """Generate JSON, and what looks like it: other types, too deep, too large."""
    numbers = st.one_of(
        st.integers(),
        st.sampled_from([2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400]),
        st.floats(),
    )
    odd = st.sampled_from([b"a", {1}, datetime(2026, 1, 1), object(), int, 1j, Every(5)])
    leaves = st.one_of(st.none(), st.booleans(), numbers, texts(), odd)
    keys = st.one_of(texts(), texts(), texts(), numbers, st.none())
    nested = st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(keys, inner, max_size=4),
            st.tuples(inner, inner),
        ),
        max_leaves=12,
    )
    deep = st.sampled_from([50, 88, 89, 90, 91, 200, 5000]).map(_deep)
    return st.one_of(nested, nested, deep, st.builds(_endless))


def schedules() -> SearchStrategy[Any]:
    """Generate what may be given as a schedule."""
    utc = timezone.utc
    edges: tuple[Any, ...] = (
        *(datetime(1, 1, 1), datetime(1, 1, 1, tzinfo=utc), date(2026, 1, 1)),
        *(datetime(9999, 12, 31, 23, 59, 59, 999999, utc), datetime(9999, 12, 31)),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9))),
        *(timedelta.min, timedelta.max, timedelta(0), timedelta(microseconds=1)),
        *(0, -1, 1e-9, 1e300, float("inf"), float("nan"), 10**400, True, object(), Schedule),
        *([], {}, b"0 2 * * *", Once(datetime(2026, 1, 15, 12, tzinfo=utc))),
    )
    return st.one_of(
        worded(CRON),
        worded(RRULE),
        worded(ISO),
        st.sampled_from(edges),
        st.floats(),
        st.integers(),
        st.datetimes(timezones=st.none() | st.timezones()),
        st.timedeltas(),
    )
