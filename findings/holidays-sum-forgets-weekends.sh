#!/usr/bin/env bash
# Library: holidays 0.109.
#
# A good guess: `holidays.IL() + own`, the documented way to join two calendars, has the holidays of both
# and otherwise works as before: Friday is no working day in Israel.
#
# What it does: the sum has the holidays, and neither the weekend nor the working Saturdays of its
# parts. Its weekend is Saturday and Sunday, whatever is added: with Israel, Saudi Arabia or Bangladesh
# on both sides, too. is_working_day() then says that Friday is a working day there and Sunday is not,
# and get_nth_working_day() and get_working_days_count() count so. In a sum with China the Saturdays that
# are worked in place of a holiday's bridge days are free. `update()` or `append()` on the calendar itself
# keeps all this.
#
# Documented: the sum is, with the attributes that it joins: years, country, subdivision, observed,
# language. Weekends are not named.
#
# Why it matters to schedulers: a job of "each working day" is right with the country alone. Once the
# company's own days are added it runs on the day of rest, and does not run on the first day of the week.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet holidays==0.109

timeout 60 venv/bin/python - <<'PYTHON'
import datetime

import holidays

MONDAY = datetime.date(2026, 11, 23)
WEEK = [MONDAY + datetime.timedelta(days=day) for day in range(7)]
WORKED = datetime.date(2026, 2, 14)  # a Saturday before the Spring Festival


def company(calendar):
    own = holidays.HolidayBase()
    own.update({"2026-12-28": "Stocktaking"})
    return calendar + own


def updated(calendar):
    calendar.update({"2026-12-28": "Stocktaking"})
    return calendar


def free(calendar):
    return " ".join(day.strftime("%a") for day in WEEK if not calendar.is_working_day(day))


calendars = {
    "Israel": holidays.IL(),
    "Israel, update()": updated(holidays.IL()),
    "Israel + own days": company(holidays.IL()),
    "Israel + Israel": holidays.IL() + holidays.IL(),
    "Saudi Arabia": holidays.SA(),
    "Saudi Arabia + Israel": holidays.SA() + holidays.IL(),
    "Bangladesh": holidays.BD(),
    "Bangladesh + own days": company(holidays.BD()),
}
seen = {name: free(calendar) for name, calendar in calendars.items()}
for name, days in seen.items():
    print(f"{name:22} free: {days}")
china, sum_of_china = holidays.CN(), company(holidays.CN())
saturdays = china.is_working_day(WORKED), sum_of_china.is_working_day(WORKED)
print(f"{WORKED:%a %d %b %Y} is worked in China: {saturdays[0]}; with own days: {saturdays[1]}")

for name, days in seen.items():
    expected = "Sat Sun" if "+" in name else "Fri Sat"
    assert days == expected, (name, days)
assert saturdays == (True, False)
assert company(holidays.IL()).get("2026-12-28") == "Stocktaking"
PYTHON
