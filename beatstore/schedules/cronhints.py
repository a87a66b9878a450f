"""Recognise cron expressions in other schedulers' dialects, and suggest what to write.

Users paste expressions that work elsewhere. An expression that means something else here, or
nothing, is refused with a suggestion. Nothing is translated silently.

Sources: the manuals of Quartz 2.5 and Spring 6 (seconds first, Sunday is 1 in Quartz), Amazon
EventBridge (a sixth field with the year, Sunday is 1), systemd.time(7) of systemd 255,
crontab(5) of cronie 1.7 and OpenBSD 7, Jenkins 2, Kubernetes 1.31 (robfig/cron 3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from beatstore.errors import ScheduleError

__all__ = ["refuse_foreign", "suggest_day", "suggest_weekday"]

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_ORDER = "5 fields (minute hour day month weekday), optionally followed by second and year"
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
    """Refuse an expression in another scheduler's dialect, and suggest what to write.

    Args:
        expression: the expression.
        texts: its fields in lower case, without an alias.

    Raises:
        ScheduleError: the expression is in another dialect.
    """
    text = " ".join(texts)
    _refuse_forms(expression, text)
    if len(texts) > _FIVE and "?" in texts:
        _refuse_question_mark(expression, texts)
    if len(texts) > _FIVE and texts[5].lstrip("/")[:1].isalpha():
        if _SIXTH_NAMES.match(texts[5]):
            _refuse(
                expression, f"{_ORDER}; Quartz and Spring have seconds first", _from_quartz(texts)
            )
        _refuse(expression, f"{_ORDER}; no command", f'"{" ".join(texts[:5])}"')


def _refuse_forms(expression: str, text: str) -> None:
    """Refuse texts that are not a row of fields."""
    if match := _WRAPPED.fullmatch(text):
        _refuse_wrapped(expression, *match.groups())
    if match := _ZONE.fullmatch(text):
        wanted = "an expression without a time zone, which is passed as timezone="
        _refuse(expression, wanted, f'"{match[2]}" and timezone="{_zone_as_given(expression)}"')
    if text == "@reboot":
        wanted = "a time, since no entry is due at a start"
        write = '"@hourly" or another alias; or run code in celery\'s signal beat_init'
        _refuse(expression, wanted, write)
    if text.startswith(("@every ", "every ")):
        _refuse(expression, "a cron expression; write intervals as Every", _interval(text))
    if text in _WORDS:
        _refuse(expression, "a cron expression", f'"@{text}"')
    if _SYSTEMD.search(text):
        wanted = "a cron expression, not systemd's OnCalendar or another calendar text"
        _refuse(expression, wanted, '"0 2 * * mon-fri" for Mon..Fri *-*-* 02:00')


def _refuse_wrapped(expression: str, how: str, inner: str) -> None:
    if how == "rate":
        _refuse(expression, "a cron expression; write AWS's rate as Every", _interval(inner))
    if how == "at":
        _refuse(
            expression, "a cron expression; write AWS's at as Once", "Once(datetime(…, tzinfo=…))"
        )
    wanted = "an expression without AWS's cron(…), and without the year as its sixth field"
    _refuse(expression, wanted, _from_aws(inner.split()))


def _refuse_question_mark(expression: str, texts: Sequence[str]) -> None:
    """Refuse six or seven fields whose ? shows that their order is Quartz's or AWS's."""
    if "?" in (texts[3], texts[5]) and "?" not in (texts[2], texts[4]):
        _refuse(expression, f"{_ORDER}; Quartz has seconds first", _from_quartz(texts))
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
    """Return the names of weekdays that were counted from Sunday = 1."""
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


def suggest_day(member: str) -> str | None:
    """Suggest what to write for an invalid member of the day-of-month field."""
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


def suggest_weekday(member: str) -> str | None:
    """Suggest what to write for an invalid member of the day-of-week field."""
    if match := re.fullmatch(r"(?P<day>[0-7]|[a-z]{3})(l|#l)", member):
        number = _number_of(match["day"])
        return None if number is None else f'"L{number}" for the last one of the month'
    if match := re.fullmatch(r"(?P<day>[0-7]|[a-z]{3})#\d+", member):
        number = _number_of(match["day"])
        wanted = f'"{match["day"]}#5", since a month has at most five of a weekday'
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
