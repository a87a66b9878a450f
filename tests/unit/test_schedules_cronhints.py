"""Expressions of other schedulers: what the error says to write instead, and that it works."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import pytest

from beatstore.errors import ScheduleError
from beatstore.schedules import Cron, Every, Once, RRule, Schedule

NOW = datetime(2026, 11, 27, 12, 34, 56, tzinfo=timezone.utc)

HINTS = [
    # A member that is known elsewhere, or nearly known here.
    ("0 0 * * fri#6", '"fri#5"', "five of a weekday"),
    ("0 0 * * 5#0", '"5#5"', "five of a weekday"),
    ("0 0 * * friL", '"L5"', "last one of the month"),
    ("0 0 * * 5L", '"L5"', "last one of the month"),
    ("0 0 * * 7L", '"L0"', "last one of the month"),
    ("0 0 * * 5#L", '"L5"', "last one of the month"),
    ("0 0 * * L", '"sat"', "Quartz"),
    ("0 0 0W * *", '"15W"', "one day from 1 to 31"),
    ("0 0 32W * *", '"15W"', "one day from 1 to 31"),
    ("0 0 1-5W * *", '"15W"', "working days"),
    ("0 0 LW * *", "RRule(", "BYSETPOS=-1"),
    ("0 0 L-3 * *", "RRule(", "BYMONTHDAY=-4"),
    ("0 0 L-0 * *", '"L"', "last day"),
    ("0 0 L-31 * *", "RRule(", "BYMONTHDAY=-31"),
    ("0 0 L-3W * *", '"L"', "28W"),
    ("0 9 * * monday", '"mon"', ""),
    ("0 9 * january *", '"jan"', ""),
    ("60 * * * *", '"0"', ""),
    ("0 24 * * *", '"0"', ""),
    ("? * * * *", '"*"', ""),
    ("H/15 * * * *", None, "jitter="),
    ("0~30 * * * *", None, "jitter="),
    # Steps.
    ("*/0 * * * *", '"*"', "at least 1"),
    ("1-9/0 * * * *", '"1-9"', "at least 1"),
    ("*/90 * * * *", '"0"', "would mean hourly"),
    ("*/90 * * * *", "Every(5400)", "every 90 minutes"),
    ("5/90 * * * *", '"5"', "would mean hourly"),
    ("0 */36 * * *", "Every(129600)", "would mean daily"),
    ("0 0 */40 * *", "Every(3456000)", "would mean monthly"),
    ("0 0 1 */18 *", '"1"', "would mean yearly"),
    ("0 0 * * */8", "Every(691200)", "would mean weekly"),
    ("* * * * * */90", "Every(90)", "once a minute"),
    ("0 0 1 1 * 0 2030-2026", '"2026-2030"', "earlier to the later"),
    # Amazon EventBridge: minute hour day month weekday year, Sunday is 1.
    ("0 12 * * ? *", '"0 12 * * *"', "the year"),
    ("0 12 ? * MON-FRI *", '"0 12 * * mon-fri"', "the year"),
    ("0 0 1 1 ? 2030", '"0 0 1 1 * 0 2030"', "the year"),
    ("cron(15 10 ? * 6L 2026-2027)", '"15 10 * * L5 0 2026-2027"', "AWS"),
    ("cron(0 9 ? * 2-6 *)", '"0 9 * * mon-fri"', "AWS"),
    ("cron(0 8 ? * 6#3 *)", '"0 8 * * fri#3"', "AWS"),
    ("cron(0/15 * ? * L *)", '"0/15 * * * sat"', "AWS"),
    ("rate(5 minutes)", "Every(300)", "AWS"),
    ("rate(1 day)", "Every(86400)", "AWS"),
    ("at(2026-11-20T13:00:00)", "Once(", "AWS"),
    # Quartz and Spring: the second first, in Quartz Sunday is 1.
    ("0 0 12 * * ?", '"0 12 * * *"', "Quartz"),
    ("0 0/5 14 * * ?", '"0/5 14 * * *"', "Quartz"),
    ("10 0/5 * * * ?", '"0/5 * * * * 10"', "Quartz"),
    ("0 15 10 ? * 6L 2026-2028", '"15 10 * * L5 0 2026-2028"', "Quartz"),
    ("0 15 10 ? * 6#3", '"15 10 * * fri#3"', "Quartz"),
    ("0 0 9 * * MON-FRI", '"0 9 * * mon-fri"', "Spring"),
    # robfig/cron and Kubernetes, crontab(5), systemd, App Engine.
    ("@every 1h30m", "Every(5400)", "interval"),
    ("@every 1.5h", "Every(5400)", "interval"),
    ("@every 100ms", "Every(300)", "interval"),
    ("every 2 hours", "Every(7200)", "interval"),
    ("CRON_TZ=Asia/Tokyo 0 6 * * *", '"0 6 * * *"', 'timezone="Asia/Tokyo"'),
    ("TZ=UTC 0 6 * * *", '"0 6 * * *"', 'timezone="UTC"'),
    ("@reboot", None, "beat_init"),
    ("0 0 * * * root /usr/bin/backup", '"0 0 * * *"', "no command"),
    ("0 0 * * * /usr/bin/backup", '"0 0 * * *"', "no command"),
    ("daily", '"@daily"', ""),
    ("*-*-* 02:00", '"0 2 * * mon-fri"', "systemd"),
    ("Mon..Fri *-*-* 02:00:00", '"0 2 * * mon-fri"', "systemd"),
]


def schedules(write: str, expression: str) -> list[Schedule]:
    """Return what the copyable parts of a hint make; each has to be valid."""
    made: list[Schedule] = [Every(float(found)) for found in re.findall(r"Every\((\d+)\)", write)]
    made += [RRule(found) for found in re.findall(r'RRule\("([^"]+)"\)', write)]
    made += [Once(NOW)] if write.startswith("Once(") else []
    texts = re.findall(r'"([^"]+)"', re.sub(r'RRule\("[^"]+"\)|timezone="[^"]+"', "", write))
    for text in texts:
        whole = " " in text or text.startswith("@")
        fields = {"1-5": "0 0 * * 1-5", "28W": "0 0 28W * *", "L6": "0 0 * * L6"}
        made.append(Cron(text if whole else fields.get(text) or replaced(text, expression)))
    return made


def replaced(text: str, expression: str) -> str:
    """Return the expression with the hint in the place of the field at fault."""
    for at in range(len(expression.split())):
        fields = expression.split()
        fields[at] = text
        try:
            Cron(" ".join(fields))
        except ScheduleError:
            continue
        return " ".join(fields)
    raise AssertionError(text)


@pytest.mark.parametrize(("expression", "write", "words"), HINTS, ids=[one[0] for one in HINTS])
def test_the_error_says_what_to_write(expression: str, write: str | None, words: str) -> None:
    """What another scheduler knows is refused with a text to copy, and the text is valid here."""
    with pytest.raises(ScheduleError) as caught:
        Cron(expression)
    assert caught.value.field == "expression"
    assert words in str(caught.value)
    assert caught.value.write is not None
    if write is not None:
        assert write in str(caught.value)
        assert schedules(caught.value.write, expression)


@pytest.mark.parametrize(
    "expression",
    [
        "0 12 ? * mon 0",
        "0 0 ? * ?",
        "0 0 1 * ?",
        "*/60 * * * *",
        "0 */24 * * *",
        "0 0 ? * 1 0 2030",
    ],
)
def test_what_has_one_meaning_stays(expression: str) -> None:
    """A ? in the order of this library, and a step as long as its field, are no mistakes."""
    assert Cron(expression).next_after(NOW) is not None
