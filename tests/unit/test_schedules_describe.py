"""Schedules in words: what exactly is said, and what it costs."""

from __future__ import annotations

import tracemalloc
from datetime import datetime, timedelta, timezone

import pytest

from beatstore.errors import ScheduleError
from beatstore.schedules import Cron, Every, Once, RRule, Schedule, Solar, describe, parse
from beatstore.schedules.shortcuts import daily, hourly, minutely, monthly, weekly
from tests.support.cost import Cost

UTC = timezone.utc
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
BERLIN = "Europe/Berlin"
WEEKDAYS = "BYDAY=MO,TU,WE,TH,FR"
NINE = "BYHOUR=9;BYMINUTE=0;BYSECOND=0"
MONDAY = "DTSTART:20260105T090000\nRRULE:"
LONGEST = 160

CRONS = {
    # times
    "* * * * *": "every minute",
    "*/1 * * * *": "every minute",
    "*/15 * * * *": "every 15 minutes",
    "0-59/15 * * * *": "every 15 minutes",
    "*/7 * * * *": "every 7 minutes from 0 to 56 past every hour",
    "*/25 * * * *": "at 0, 25 and 50 minutes past every hour",
    "0 * * * *": "every hour",
    "30 * * * *": "at 30 minutes past every hour",
    "1 * * * *": "at 1 minute past every hour",
    "5,20,50 * * * *": "at 5, 20 and 50 minutes past every hour",
    "0-29 * * * *": "every minute from 0 to 29 past every hour",
    "0-9,30,45-50 * * * *": "at 0 to 9, 30 and 45 to 50 minutes past every hour",
    "0 3 * * *": "every day at 03:00",
    "0 9,17 * * mon-fri": "Monday to Friday at 09:00 and 17:00",
    "0,30 9,17 * * *": "every day at 09:00, 09:30, 17:00 and 17:30",
    "0 8-17 * * *": "every hour from 08:00 to 17:00",
    "30 8-23/3 * * *": "every 3 hours from 08:30 to 23:30",
    "30 8-17/3 * * *": "every day at 08:30, 11:30, 14:30 and 17:30",
    "0 */2 * * *": "every 2 hours from 00:00 to 22:00",
    "0 */5 * * *": "every 5 hours from 00:00 to 20:00",
    "0 */12 * * *": "every 12 hours from 00:00 to 12:00",
    "0 */13 * * *": "every 13 hours from 00:00 to 13:00",
    "*/15 8-17 * * mon-fri": "every 15 minutes, from 08:00 to 17:45, on weekdays",
    "*/20 2 * * *": "every 20 minutes, from 02:00 to 02:40",
    "*/15 8,9,11,20-23 * * *": "every 15 minutes in the hours 8, 9, 11 and 20 to 23",
    "*/40 8-17 * * *": "every 40 minutes from 0 to 40 past each hour from 8 to 17",
    "5,10 */2 * * *": "at 5 and 10 minutes past every 2nd hour from 0 to 22",
    "1,2,4,7,11,16 9 * * *": "at 1, 2, 4, 7, 11 and 16 minutes past 09:00",
    "1-5,8 9 * * *": "at 1 to 5 and 8 minutes past 09:00",
    # what is different only when clocks change
    "0,15,30,45 8-17 * * *": "at 0, 15, 30 and 45 minutes past each hour from 8 to 17",
    "0,15,30,45 0-23 * * *": "every 15 minutes (once each when clocks change)",
    "0 0-23 * * *": "every hour (once each when clocks change)",
    "30 */24 * * *": "every day at 00:30 (not in a skipped hour, twice in a repeated one)",
    # the sixth field is the second, and the seventh the year
    "* * * * * *": "every second",
    "* * * * * */10": "every 10 seconds",
    "* * * * * 10,20": "at 10 and 20 seconds past every minute",
    "0 9 * * mon-fri 30": "Monday to Friday at 09:00:30",
    "0 0 12 * * *": "every second, from 00:00:00 to 00:00:59, on the 12th of every month",
    "30 0 12 * * 0": "on the 12th of every month at 00:30",
    "0 9 * * * */7": "every 7 seconds from 0 to 56 past 09:00",
    "* 9-10 * * * */20": "every 20 seconds, from 09:00:00 to 10:59:40",
    "5 * * * * 1": "at 1 second of minute 5 of every hour",
    "*/5 8-17 * * * */30": (
        "every 30 seconds of every 5th minute from 0 to 55 of each hour from 8 to 17"
    ),
    "* 9 * * * 3,4,9": "at 3, 4 and 9 seconds of every minute of hour 9",
    "0 12 24 12 * 0 2026": "on the 24th of December at 12:00, in 2026",
    "0 0 * * * 0 2026-2030": "every day at 00:00, from 2026 to 2030",
    "0 0 * * * 0 2026/2": "every day at 00:00, every 2 years from 2026 to 2098",
    "0 0 * * * 0 2026,2028": "every day at 00:00, in 2026 and 2028",
    # days
    "0 0 ? * 1-5": "Monday to Friday at 00:00",
    "0 0 * * 7": "every Sunday at 00:00",
    "0 0 * * sat,sun": "every Saturday and Sunday at 00:00",
    "0 0 * * fri-mon": "Friday to Monday at 00:00",
    "0 0 * * 1,3,5": "every Monday, Wednesday and Friday at 00:00",
    "0 0 * jun-aug sun": "every Sunday from June to August at 00:00",
    "*/5 * * 1 *": "every 5 minutes, in January",
    "*/5 * 1 * *": "every 5 minutes, on the 1st of every month",
    "0 0 1 * *": "on the 1st of every month at 00:00",
    "0 0 1-7 * *": "on the 1st to 7th of every month at 00:00",
    "0 0 */2 * *": "on every 2nd day from the 1st to the 31st of every month at 00:00",
    "0 0 11-13,22 * *": "on the 11th to 13th and 22nd of every month at 00:00",
    "0 0 1,15,L * *": "on the 1st, 15th and last day of every month at 00:00",
    "0 0 L 2 *": "on the last day of February at 00:00",
    "0 0 31 * *": "on the 31st of every month that has it at 00:00",
    "0 0 1 1,4,7,10 *": "on the 1st of January, April, July and October at 00:00",
    "0 0 1 jun-aug *": "on the 1st of June to August at 00:00",
    "0 0 15W * *": "on the working day nearest to the 15th of every month at 00:00",
    "0 0 31W * *": (
        "on the working day nearest to the 31st or the last day of every month at 00:00"
    ),
    "0 18 * * L5": "on the last Friday of every month at 18:00",
    "0 10 * * tue#2": "on the 2nd Tuesday of every month at 10:00",
    "0 10 * * tue#5": "on the 5th Tuesday of every month that has it at 10:00",
    "0 0 * * 1#1,1#3,5#2": ("on the 1st and 3rd Monday and the 2nd Friday of every month at 00:00"),
    # two day fields
    "0 0 13 * fri": "on the 13th of every month and also every Friday at 00:00",
    "0 0 1,15 6 fri#1": (
        "on the 1st and 15th of the month and also on the 1st Friday of the month,"
        " in June, at 00:00"
    ),
    "0 0 13 * fri days=and": "on the 13th of every month, if it is a Friday, at 00:00",
    "0 0 13 * mon-fri days=and": (
        "on the 13th of every month, if it is Monday to Friday, at 00:00"
    ),
    "0 0 8 * mon#2 days=and": (
        "on the 8th of every month, if it is the 2nd Monday of the month, at 00:00"
    ),
    "0 0 */10 * fri": (
        "on the 1st, 11th, 21st and 31st of every month, if it is a Friday, at 00:00"
    ),
    "0 0 1-31 * mon": "every day at 00:00",
    "0 0 1 * 0-6": "every day at 00:00",
    # aliases
    "@hourly": "every hour",
    "@daily": "every day at 00:00",
    "@midnight": "every day at 00:00",
    "@weekly": "every Sunday at 00:00",
    "@monthly": "on the 1st of every month at 00:00",
    "@yearly": "on the 1st of January at 00:00",
    "@annually": "on the 1st of January at 00:00",
}

RULES = {
    f"FREQ=DAILY;{NINE}": "every day at 09:00",
    "FREQ=DAILY;BYHOUR=9,17;BYMINUTE=30;BYSECOND=0": "every day at 09:30 and 17:30",
    "FREQ=HOURLY;BYMINUTE=0;BYSECOND=0": "every hour",
    "FREQ=MINUTELY;BYSECOND=0": "every minute",
    "FREQ=SECONDLY": "every second",
    f"FREQ=WEEKLY;{WEEKDAYS};{NINE}": "Monday to Friday at 09:00",
    f"FREQ=MONTHLY;BYDAY=-1FR;{NINE}": "on the last Friday of every month at 09:00",
    f"FREQ=MONTHLY;BYDAY=2TU;{NINE};COUNT=12": (
        "on the 2nd Tuesday of every month at 09:00, 12 times"
    ),
    f"FREQ=DAILY;{NINE};COUNT=1": "every day at 09:00, once",
    f"FREQ=MONTHLY;BYMONTHDAY=-4,1;{NINE}": (
        "on the 1st and 4th to last day of every month at 09:00"
    ),
    f"FREQ=MONTHLY;BYMONTHDAY=13;BYDAY=FR;{NINE}": (
        "on the 13th of every month, if it is a Friday, at 09:00"
    ),
    f"FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;{NINE}": "on the 29th of February at 09:00",
    f"FREQ=YEARLY;BYDAY=20MO;{NINE}": "on the 20th Monday of the year at 09:00",
    f"FREQ=YEARLY;BYDAY=1MO;BYMONTH=3;{NINE}": "on the 1st Monday of March at 09:00",
    f"FREQ=YEARLY;BYYEARDAY=1,100,-1;{NINE}": "on the 1st, 100th and last day of the year at 09:00",
    f"FREQ=YEARLY;BYWEEKNO=20;{NINE}": "every day in the 20th week of the year at 09:00",
    f"FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO;WKST=SU;{NINE}": (
        "every Monday, in the 20th week of the year, weeks from Sunday, at 09:00"
    ),
    # BYSETPOS
    f"FREQ=MONTHLY;{WEEKDAYS};BYSETPOS=-1;{NINE}": (
        "on the last working day of every month at 09:00"
    ),
    f"FREQ=MONTHLY;BYDAY=SA,SU;BYSETPOS=1,-1;{NINE}": (
        "on the 1st and last Saturday or Sunday of every month at 09:00"
    ),
    f"FREQ=MONTHLY;BYMONTH=3;{WEEKDAYS};BYSETPOS=2;{NINE}": (
        "on the 2nd working day of March at 09:00"
    ),
    f"FREQ=YEARLY;{WEEKDAYS};BYSETPOS=100;{NINE}": (
        "on the 100th working day of every year at 09:00"
    ),
    f"FREQ=MONTHLY;INTERVAL=2;BYDAY=MO;BYSETPOS=2;{NINE}": (
        "every 2 months on the 2nd Monday at 09:00"
    ),
    # intervals count from a start
    f"{MONDAY}FREQ=DAILY;INTERVAL=3": "every 3 days at 09:00, from 2026-01-05",
    f"{MONDAY}FREQ=DAILY;INTERVAL=3;{WEEKDAYS}": (
        "every 3 days, only Monday to Friday, at 09:00, from 2026-01-05"
    ),
    f"{MONDAY}FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR": (
        "every 2 weeks on Monday and Friday at 09:00, from 2026-01-05"
    ),
    f"{MONDAY}FREQ=WEEKLY;INTERVAL=2;{WEEKDAYS};WKST=SU": (
        "every 2 weeks, Monday to Friday, weeks from Sunday, at 09:00, from 2026-01-05"
    ),
    f"{MONDAY}FREQ=WEEKLY;INTERVAL=2;{WEEKDAYS},SA,SU": (
        "every 2 weeks, every day, at 09:00, from 2026-01-05"
    ),
    f"{MONDAY}FREQ=MONTHLY;INTERVAL=3;BYMONTHDAY=31": (
        "every 3 months on the 31st at 09:00, from 2026-01-05"
    ),
    f"{MONDAY}FREQ=YEARLY;INTERVAL=4": (
        "every 4 years on the 5th of January at 09:00, from 2026-01-05"
    ),
    f"{MONDAY}FREQ=HOURLY;INTERVAL=7": "every 7 hours, from 2026-01-05 09:00",
    f"{MONDAY}FREQ=HOURLY;INTERVAL=7;BYMINUTE=30;BYDAY=MO": (
        "every 7 hours at 30 minutes past the hour, only on every Monday, from 2026-01-05 09:00"
    ),
    f"{MONDAY}FREQ=MINUTELY;INTERVAL=45;BYHOUR=9,10,11": (
        "every 45 minutes, only from 09:00 to 11:59, from 2026-01-05 09:00"
    ),
    f"{MONDAY}FREQ=SECONDLY;INTERVAL=90": "every 90 seconds, from 2026-01-05 09:00",
    # start, end, dates and several lines
    "DTSTART:20260105T120000\nFREQ=DAILY;BYHOUR=9": "every day at 09:00, from 2026-01-05 12:00",
    f"FREQ=DAILY;{NINE};UNTIL=20261231T230000Z": "every day at 09:00, until 2026-12-31 23:00 UTC",
    f"FREQ=DAILY;{NINE};UNTIL=20261231T230000": "every day at 09:00, until 2026-12-31 23:00",
    f"FREQ=DAILY;{NINE};UNTIL=20261231": "every day at 09:00, until 2026-12-31",
    f"FREQ=DAILY;{NINE}\nEXDATE:20260501T090000": "every day at 09:00, except 2026-05-01 09:00",
    f"FREQ=DAILY;{NINE}\nEXDATE;TZID={BERLIN}:20260501T090000": (
        "every day at 09:00, except 2026-05-01 09:00"
    ),
    f"FREQ=DAILY;{NINE}\nRDATE:20260502T110000,20260501T093000": (
        "every day at 09:00, and on 2026-05-01 09:30 and 2026-05-02 11:00"
    ),
    "RDATE:20260501T090000,20260601T100000Z": "on 2026-05-01 09:00 and 2026-06-01 10:00 UTC",
    "FREQ=DAILY;BYHOUR=9;BYMINUTE=0\nRRULE:FREQ=WEEKLY;BYDAY=MO;BYHOUR=17;BYMINUTE=5": (
        "every day at 09:00; and every Monday at 17:05"
    ),
    f"{MONDAY}FREQ=DAILY;COUNT=5\nRRULE:FREQ=HOURLY;INTERVAL=7": (
        "every day at 09:00, 5 times; and every 7 hours (once each when clocks change);"
        " from 2026-01-05 09:00"
    ),
    # no sentence says these
    "FREQ=DAILY;BYHOUR=9,10,11;BYSETPOS=2": "FREQ=DAILY;BYHOUR=9,10,11;BYSETPOS=2",
    "FREQ=MONTHLY;BYDAY=MO;BYHOUR=9,17;BYSETPOS=1": (
        "FREQ=MONTHLY;BYDAY=MO;BYHOUR=9,17;BYSETPOS=1"
    ),
    "FREQ=MINUTELY;INTERVAL=7;BYMINUTE=0,1,7": "FREQ=MINUTELY;INTERVAL=7;BYMINUTE=0,1,7",
    "FREQ=HOURLY;INTERVAL=5\nEXDATE:20260501T090000": "every 5 hours, except 2026-05-01 09:00",
}

OTHERS = [
    (Every(90, NEW_YEAR), "every 90 seconds since 2026-01-01 00:00 UTC"),
    (Every(90), "every 90 seconds"),
    (Every(1), "every second"),
    (Every(0.5), "every 0.5 seconds"),
    (Every(3600), "every hour"),
    (Every(5400), "every 90 minutes"),
    (Every(86_400), "every 24 hours"),
    (Every(604_800), "every 7 days"),
    (Every(4_000), "every 1 h 6 min 40 s"),
    (Every(1_234.5), "every 1234.5 s"),
    (Every(3_155_760_000), "every 36,525 d"),
    (parse("every", "300", None, NEW_YEAR), "every 5 minutes since 2026-01-01 00:00 UTC"),
    (parse("rrule", f"FREQ=DAILY;{NINE}", None, NEW_YEAR), "every day at 09:00"),
    (
        parse("rrule", f"FREQ=DAILY;{NINE};COUNT=2", None, NEW_YEAR),
        "every day at 09:00, from 2026-01-01, 2 times",
    ),
    (Once(NEW_YEAR + timedelta(seconds=9)), "once at 2026-01-01 00:00:09 UTC"),
    (Once(NEW_YEAR + timedelta(microseconds=5)), "once at 2026-01-01 00:00:00.000005 UTC"),
    (Once(datetime.min.replace(tzinfo=UTC)), "once at 0001-01-01 00:00 UTC"),
    (Solar("sunset", 52.37, 4.9), "at sunset in 52.37° N, 4.90° E"),
    (Solar("dawn_civil", -33.125, -70.6), "at civil dawn in 33.125° S, 70.60° W"),
    (Solar("dusk_astronomical", 0, 0), "at astronomical dusk in 0.00° N, 0.00° E"),
    (Solar("solar_noon", 90, 180), "at solar noon in 90.00° N, 180.00° E"),
    (daily(9, 30), "every day at 09:30"),
    (weekly("mon", 9), "every Monday at 09:00"),
    (monthly(1, 9), "on the 1st of every month at 09:00"),
    (monthly(31, 9), "on the last of the 28th to 31st of every month at 09:00"),
    (hourly(6), "every 6 hours"),
    (minutely(7), "every 7 minutes"),
]


@pytest.mark.parametrize(("spec", "words"), CRONS.items(), ids=CRONS)
def test_a_cron_is_told_in_these_words(spec: str, words: str) -> None:
    """Each syntax of cron has a sentence, and the zone is not in it."""
    assert describe(Cron.parse(spec)) == words
    assert describe(Cron.parse(spec, BERLIN)) == words


@pytest.mark.parametrize(("text", "words"), RULES.items(), ids=RULES)
def test_a_recurrence_is_told_in_these_words(text: str, words: str) -> None:
    """Each part of a recurrence is in its sentence; where there is none, the text stands."""
    assert describe(RRule(text, BERLIN)) == words


@pytest.mark.parametrize(("schedule", "words"), OTHERS, ids=[words for _, words in OTHERS])
def test_other_kinds_are_told_in_these_words(schedule: Schedule, words: str) -> None:
    """Intervals, instants, the sun and the shortcuts have sentences too."""
    assert describe(schedule) == words


def test_the_sixth_field_is_never_the_first() -> None:
    """Six fields are not read as Quartz reads them: the second is the last one."""
    assert describe(Cron("0 0 12 * * *")) != describe(Cron("0 12 * * *"))
    assert describe(Cron("1 2 * * * 3")) == "every day at 02:01:03"


def stamps(count: int, minute: int) -> str:
    """Return dates as RFC 5545 writes them."""
    days = (NEW_YEAR + timedelta(days=day, minutes=minute) for day in range(count))
    return ",".join(f"{day:%Y%m%dT%H%M%S}" for day in days)


MANY = "1,2,4,6,9,12,15,17,20,22,25,27,30,33,36,38,41,44,46,49,52,54,57,59"
LONG = {
    f"{MANY},11,13,19,21,24,29,32,35,40,43,48,51,56 * * * *": ("at 37 minutes of every hour"),
    f"* * * * * {MANY},11,13,19,21,24,29,32,35,40,43,48,51,56": (
        "at 37 different seconds past every minute"
    ),
    "0 0 2,3,5,6,8,9,11,12,14,15,17,18,20,21,23,24,26,27,29,30 1,2,4,5,7,8 *": (
        "on 20 days of January, February, April, May, July and August at 00:00"
    ),
    "0 0 * * * 0 " + ",".join(map(str, [*range(1970, 2099, 5), 1971])): (
        "every day at 00:00, in 27 years from 1970 to 2095"
    ),
}


@pytest.mark.parametrize(("spec", "words"), LONG.items(), ids=LONG.values())
def test_long_lists_are_shortened(spec: str, words: str) -> None:
    """What would be a long list is counted instead."""
    assert describe(Cron(spec)) == words


def test_many_dates_are_counted() -> None:
    """Hundreds of dates are told by their number."""
    added, removed = f"RDATE:{stamps(240, 1)}", f"EXDATE:{stamps(230, 2)}"
    assert describe(RRule(f"FREQ=DAILY;{NINE}\n{added}")) == "every day at 09:00, and on 240 dates"
    whole = describe(RRule(f"FREQ=DAILY;{NINE}\n{added}\n{removed}"))
    assert whole == "every day at 09:00, and on 240 dates, except 230 dates"
    assert describe(RRule(added)) == "on 240 dates"


def test_a_long_spec_is_cut() -> None:
    """Where neither a sentence nor the spec is short, the words show that something is left out."""
    odd = "1,3,5-6,8,10-11,13,15-16,18,20-21,23"
    spec = f"{MANY} {odd} {odd},25-26 1,2,4,5,7,8,10,11 mon#1,tue#2,wed#3,thu#4,fri#5,sun#1 {MANY}"
    words = describe(Cron(spec))
    assert words[:-1] == spec[: LONGEST - 1]
    assert len(words) == LONGEST
    assert words.endswith("…")


SECONDS = ",".join(map(str, range(60)))
POSITIONS = ",".join(map(str, [*range(1, 367), *range(-366, 0)]))
HEAVY: list[Schedule] = [
    Cron("* * * * * *"),
    Cron(f"{SECONDS} * * * * {SECONDS}"),
    Cron("*/7 1-23/2 */3 */5 * */7 1970-2099"),
    Every(0.1),
    Every(3_155_760_000, NEW_YEAR),
    RRule("DTSTART:19000101T000000\nRRULE:FREQ=SECONDLY"),
    RRule("FREQ=SECONDLY;INTERVAL=86399"),
    RRule("FREQ=DAILY;COUNT=10000"),
    RRule(f"FREQ=YEARLY;BYYEARDAY={POSITIONS}"),
    RRule(f"FREQ=YEARLY;BYSETPOS={POSITIONS};BYDAY=MO,TU"),
    RRule("\n".join(["RRULE:FREQ=DAILY;BYSECOND=" + SECONDS] * 10)),
    RRule(f"FREQ=DAILY\nRDATE:{stamps(500, 1)}"),
    RRule(f"FREQ=DAILY\nEXDATE:{stamps(500, 1)}"),
]


@pytest.mark.parametrize("schedule", HEAVY, ids=lambda one: one.spec[:40])
def test_words_are_short_and_cheap(schedule: Schedule) -> None:
    """However much a schedule says or is due, its words take under 5 ms and 160 characters."""
    describe(schedule)
    least = 1.0
    for _ in range(3):
        with Cost() as cost:
            words = describe(schedule)
        least = min(least, cost.seconds)
    assert len(words) <= LONGEST
    assert "\n" not in words
    assert least < 0.005


@pytest.mark.parametrize(
    "spec",
    [
        "0-999999999 * * * *",
        "*/999999999 * * * *",
        "0 0 * * * 0 1970-999999999",
        "0 0 1-999999999 * *",
        "0 0 * * 1-999999999",
    ],
)
def test_an_absurd_range_takes_no_memory(spec: str) -> None:
    """A range of a thousand million numbers is refused before anything holds them."""
    tracemalloc.start()
    try:
        with pytest.raises(ScheduleError):
            describe(Cron(spec))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


class Own(Schedule):
    """A schedule of a user's own class."""

    kind = "own"

    @property
    def spec(self) -> str:
        return "when the\nmoon is full"

    def _after(self, count: int) -> int | None:
        return None

    def _before(self, count: int) -> int | None:
        return None


def test_other_classes_are_told_by_their_spec() -> None:
    """A schedule that beatstore does not know has its spec for words, in one line."""
    assert describe(Own()) == "when the moon is full"
