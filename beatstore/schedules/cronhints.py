"""What to write instead of expressions that other schedulers know.

People paste what works elsewhere. What means something else here is refused, and what means
nothing here is refused too, each with the text to write. Nothing is translated silently: a
hint may be copied, after a look at it.

Sources: the manuals of Quartz 2.5 and Spring 6 (seconds first, Sunday is 1 in Quartz), Amazon
EventBridge (a sixth field with the year, Sunday is 1), systemd.time(7) of systemd 255,
crontab(5) of cronie 1.7 and OpenBSD 7, Jenkins 2, Kubernetes 1.31 (robfig/cron 3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from beatstore.errors import ScheduleError

__all__ = ["refuse_foreign", "word_for_day", "word_for_weekday"]

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_ORDER = "5 fields (minute hour day month weekday), 6 with the second last, or 7 with a year"
_FIVE = 5  # fields, without a second
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_WRAPPED = re.compile(r"(cron|rate|at)\((.*)\)", re.ASCII)
_SPAN = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*(s|m(?![os])|h|d)[a-z]*", re.ASCII)
_ZONE = re.compile(r"(?:cron_)?tz=(\S+)\s+(.*)", re.ASCII)
_YEAR = re.compile(r"\d{4}\b", re.ASCII)
_WORDS = ("hourly", "daily", "weekly", "monthly", "yearly", "annually", "midnight")
_SYSTEMD = re.compile(r"\d:\d|\.\.|\*-\*|\*-\d+[-~]|-\*-", re.ASCII)
_SIXTH_NAMES = re.compile(r"(?:sun|mon|tue|wed|thu|fri|sat|\?|\d?l)", re.ASCII)


def refuse_foreign(expression: str, texts: Sequence[str]) -> None:
    """Refuse what is written for another scheduler, and say what to write here.

    Args:
        expression: as it was given.
        texts: its fields in lower case, without an alias.

    Raises:
        ScheduleError: it is such an expression.
    """
    text = " ".join(texts)
    _refuse_forms(expression, text)
    if len(texts) > _FIVE and "?" in texts:
        _refuse_question_mark(expression, texts)
    if len(texts) > _FIVE and texts[5].lstrip("/")[:1].isalpha():
        if _SIXTH_NAMES.match(texts[5]):
            _refuse(expression, f"{_ORDER}; in Quartz and Spring it is first", _from_quartz(texts))
        _refuse(expression, f"{_ORDER}, and no command", f'"{" ".join(texts[:5])}"')


def _refuse_forms(expression: str, text: str) -> None:
    """Refuse what is no row of fields at all."""
    if match := _WRAPPED.fullmatch(text):
        _refuse_wrapped(expression, *match.groups())
    if match := _ZONE.fullmatch(text):
        wanted = "an expression without its zone, which is an argument of its own"
        _refuse(expression, wanted, f'"{match[2]}" and timezone="{_zone_as_given(expression)}"')
    if text == "@reboot":
        wanted = "a time; no entry is due when something starts"
        write = '"@hourly" and so on; or use celery\'s signal beat_init when beat starts'
        _refuse(expression, wanted, write)
    if text.startswith(("@every ", "every ")):
        _refuse(expression, "a cron expression; an interval is Every", _interval(text))
    if text in _WORDS:
        _refuse(expression, "a cron expression", f'"@{text}"')
    if _SYSTEMD.search(text):
        wanted = "a cron expression, not systemd's OnCalendar or another calendar text"
        _refuse(expression, wanted, '"0 2 * * mon-fri" for Mon..Fri *-*-* 02:00')


def _refuse_wrapped(expression: str, how: str, inner: str) -> None:
    if how == "rate":
        _refuse(expression, "a cron expression; AWS's rate is Every", _interval(inner))
    if how == "at":
        _refuse(expression, "a cron expression; AWS's at is Once", "Once(datetime(…, tzinfo=…))")
    wanted = "an expression without AWS's cron(…), and without the year as its sixth field"
    _refuse(expression, wanted, _from_aws(inner.split()))


def _refuse_question_mark(expression: str, texts: Sequence[str]) -> None:
    """Refuse six or seven fields in an order that a ? gives away."""
    if "?" in (texts[3], texts[5]) and "?" not in (texts[2], texts[4]):
        _refuse(expression, f"{_ORDER}; in Quartz it is first", _from_quartz(texts))
    sixth = texts[5]
    if len(texts) == _FIVE + 1 and (sixth == "*" or _YEAR.match(sixth)):
        wanted = f"{_ORDER}; AWS's sixth field is the year"
        _refuse(expression, wanted, _from_aws(texts))


def _from_aws(texts: Sequence[str]) -> str | None:
    """Return an expression of AWS (minute hour day month weekday year) in our order."""
    if len(texts) != _FIVE + 1:
        return None
    minute, hour, day, month, weekday, year = texts
    return _ours([minute, hour, day, month, weekday], "0", year)


def _from_quartz(texts: Sequence[str]) -> str:
    """Return an expression of Quartz (second minute ... weekday, perhaps a year) in our order."""
    year = texts[6] if len(texts) > _FIVE + 1 else "*"
    return _ours(list(texts[1:6]), texts[0], year)


def _ours(five: list[str], second: str, year: str) -> str:
    five[2] = "*" if five[2] == "?" else five[2]
    five[4] = "*" if five[4] == "?" else _weekdays_from_one(five[4])
    rest = [] if second == "0" and year == "*" else [second]
    rest += [] if year == "*" else [year]
    return f'"{" ".join([*five, *rest])}"'


def _weekdays_from_one(text: str) -> str:
    """Return weekdays that were counted from Sunday = 1, by their names."""
    if text == "l":
        return "sat"
    if match := re.fullmatch(r"([1-7])l", text):
        return f"L{int(match[1]) - 1}"
    before_step, slash, step = text.partition("/")
    named = re.sub(r"(?<![#\d])[1-7](?!\d)", lambda n: WEEKDAYS[int(n[0]) - 1], before_step)
    return named + slash + step


def _interval(text: str) -> str:
    seconds = sum(float(count) * _UNITS[unit] for count, unit in _SPAN.findall(text))
    return f"Every({seconds:.12g})" if seconds else "Every(300) for each five minutes"


def _zone_as_given(expression: str) -> str:
    return expression.split(maxsplit=1)[0].partition("=")[2]


def word_for_day(member: str) -> str | None:
    """Return what to write for a member of the day-of-month field that isn't understood."""
    at = "BYHOUR=9;BYMINUTE=0;BYSECOND=0"
    if member == "lw":
        workdays = "BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1"
        return f'RRule("FREQ=MONTHLY;{workdays};{at}") for the last working day'
    if member == "l-0":
        return '"L" for the last day'
    if match := re.fullmatch(r"l-(\d{1,2})", member):
        back = min(int(match[1]) + 1, 31)
        return f'RRule("FREQ=MONTHLY;BYMONTHDAY=-{back};{at}"), counted from the end of the month'
    if re.fullmatch(r"l-\d+w", member):
        return '"L" for the last day, or a fixed day such as "28W"'
    if member.endswith("w") or member.startswith("w"):
        return '"15W", with one day from 1 to 31; or "1-5" as day of week for working days'
    return None


def word_for_weekday(member: str) -> str | None:
    """Return what to write for a member of the day-of-week field that isn't understood."""
    if match := re.fullmatch(r"(?P<day>[0-7]|[a-z]{3})(l|#l)", member):
        number = _number_of(match["day"])
        return None if number is None else f'"L{number}" for the last one of the month'
    if match := re.fullmatch(r"(?P<day>[0-7]|[a-z]{3})#\d+", member):
        number = _number_of(match["day"])
        wanted = f'"{match["day"]}#5", as a month has five of a weekday at most'
        return None if number is None else f'{wanted}; or "L{number}" for the last one'
    if member == "l":
        return '"sat" for each Saturday, as Quartz reads it; or "L6" for the last one of the month'
    return None


def _number_of(day: str) -> int | None:
    if day.isdigit():
        return int(day) % 7
    return WEEKDAYS.index(day) if day in WEEKDAYS else None


def _refuse(expression: str, expected: str, write: str | None) -> None:
    raise ScheduleError("expression", expression, expected, write)
