"""Numbers, lists and times of day in English, for `describe`.

What is due at the same times of day has different words if it differs when clocks change (see
`once` in `wall.py`). Each sentence has a usual meaning: "every 15 minutes" follows the clock,
"at 09:00" is due once. A note in brackets tells of the other one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["ONCE", "TimeWords", "joined", "listed", "ordinal", "step_of", "times_in_words"]

_HOURS, _MINUTES = 24, 60
_FEW = 5  # times that are listed one by one
_SOME = 6  # numbers that are listed one by one
_RUN = 4  # numbers in a row that are written as "4 to 7"
_SERIES = 3  # numbers at equal distances that are written as "every 7 ... from ... to ..."
_ENDINGS = {int(one[0]): one[1:] for one in ("1st", "2nd", "3rd")}

ONCE = " (once each when clocks change)"
_CLOCK = " (not in a skipped hour, twice in a repeated one)"


class TimeWords(NamedTuple):
    """Times of day in words.

    `one_by_one` says that the text has the form "at 09:00 and 17:30". `once` is its usual meaning
    when clocks change.
    """

    text: str
    one_by_one: bool
    once: bool


def joined(words: Sequence[str], last: str = "and") -> str:
    """Return a list as English writes it: "a, b and c"."""
    *most, final = words
    return f"{', '.join(most)} {last} {final}" if most else final


def ordinal(number: int) -> str:
    """Return "1st", "2nd" and so on; -1 is "last", and -2 "2nd to last"."""
    if number < 0:
        return "last" if number == -1 else f"{ordinal(-number)} to last"
    last = 0 if number // 10 % 10 == 1 else number % 10
    return f"{number}{_ENDINGS.get(last, 'th')}"


def listed(numbers: Sequence[int], run: int = _RUN) -> list[str]:
    """Return ascending numbers as words; `run` or more in a row become one range."""
    found: list[str] = []
    rows: list[list[int]] = []
    for number in numbers:
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    for row in rows:
        found += [f"{row[0]} to {row[-1]}"] if len(row) >= run else map(str, row)
    return found


def step_of(numbers: Sequence[int]) -> int | None:
    """Return the distance of ascending numbers; None if it varies, or they are too few."""
    steps = {after - before for before, after in pairwise(numbers)}
    return steps.pop() if len(steps) == 1 and len(numbers) >= _SERIES else None


def times_in_words(
    hours: Sequence[int],
    minutes: Sequence[int],
    seconds: Sequence[int],
    *,
    once: bool,
    exact: bool,
) -> TimeWords:
    """Return all combinations of hours, minutes and seconds in words.

    Args:
        hours: ascending, as are the others; none is empty.
        minutes: the minutes.
        seconds: the seconds.
        once: the rule for clock changes, see `wall.py`.
        exact: False shortens long lists to their length.
    """
    hours, minutes, seconds = tuple(hours), tuple(minutes), tuple(seconds)
    forms = list(_forms(hours, minutes, seconds, exact=exact))
    for form in forms:
        if form.once == once:
            return form
    usual = forms[0]
    return TimeWords(usual.text + (ONCE if once else _CLOCK), usual.one_by_one, once)


def _forms(
    hours: Sequence[int], minutes: Sequence[int], seconds: Sequence[int], *, exact: bool
) -> Iterator[TimeWords]:
    """Yield the sentences for times of day, the best one first."""
    if len(hours) * len(minutes) * len(seconds) <= _FEW:
        clock = [
            f"{hour:02}:{minute:02}" + (f":{second:02}" if any(seconds) else "")
            for hour in hours
            for minute in minutes
            for second in seconds
        ]
        yield TimeWords(f"at {joined(clock)}", one_by_one=True, once=True)
    follows = _is_star(minutes, _MINUTES) or _is_star(hours, _HOURS)
    by_parts = _by_minute(hours, minutes, exact=exact)
    if seconds != (0,):
        by_parts = iter([_of_seconds(hours, minutes, seconds, exact=exact)])
    for form in by_parts:
        yield TimeWords(form, one_by_one=False, once=not follows)
    if seconds == (0,) and _is_star(minutes, _MINUTES) and len(minutes) <= _SOME:
        past = f"{_minutes_listed(minutes)} past {_of_hours(hours)}"
        yield TimeWords(past, one_by_one=False, once=not _is_star(hours, _HOURS))


def _by_minute(hours: Sequence[int], minutes: Sequence[int], *, exact: bool) -> Iterator[str]:
    """Yield the sentence for times on the full minute."""
    every_hour = len(hours) == _HOURS
    step = step_of(hours) or (_gap(hours) if _is_star(hours, _HOURS) else None)
    evenly, pause = _is_even(minutes), _every(_gap(minutes), "minute")
    if minutes == (0,) and every_hour:
        yield "every hour"
    elif len(minutes) == 1 and step and not every_hour:
        first, last = (f"{hour:02}:{minutes[0]:02}" for hour in (hours[0], hours[-1]))
        yield f"{_every(step, 'hour')} from {first} to {last}"
    elif evenly and every_hour:
        yield pause
    elif evenly and _is_row(hours):
        yield f"{pause}, from {hours[0]:02}:00 to {hours[-1]:02}:{minutes[-1]:02}"
    elif evenly:
        yield f"{pause} in {_of_hours(hours)}"
    elif _is_star(minutes, _MINUTES) and not (every_hour and len(minutes) <= _SOME):
        yield f"{_series(minutes, 'minute')} past {_of_hours(hours)}"
    else:
        yield _past(hours, minutes, exact=exact)


def _past(hours: Sequence[int], minutes: Sequence[int], *, exact: bool) -> str:
    if len(minutes) <= _SOME:
        return f"{_minutes_listed(minutes)} past {_of_hours(hours)}"
    if step_of(minutes):
        return f"{_series(minutes, 'minute')} past {_of_hours(hours)}"
    if exact:
        return f"at {joined(listed(minutes))} minutes past {_of_hours(hours)}"
    return f"at {len(minutes)} minutes of {_of_hours(hours)}"


def _of_seconds(
    hours: Sequence[int], minutes: Sequence[int], seconds: Sequence[int], *, exact: bool
) -> str:
    """Return the sentence for times with seconds."""
    all_minutes = len(minutes) == _MINUTES
    said = _seconds_listed(seconds, exact=exact)
    if all_minutes and len(hours) == _HOURS:
        return said if _is_even(seconds) else f"{said} past every minute"
    connected = (all_minutes and _is_row(hours)) or (len(hours) == 1 and _is_row(minutes))
    if _is_even(seconds) and connected:
        first = f"{hours[0]:02}:{minutes[0]:02}:00"
        return f"{said}, from {first} to {hours[-1]:02}:{minutes[-1]:02}:{seconds[-1]:02}"
    hour = f"hour {hours[0]}" if len(hours) == 1 else _of_hours(hours)
    if all_minutes:
        return f"{said} of every minute of {hour}"
    if len(hours) == len(minutes) == 1:
        return f"{said} past {hours[0]:02}:{minutes[0]:02}"
    if len(minutes) > _SOME and (step := step_of(minutes)):
        which = f"every {ordinal(step)} minute" if step > 1 else "every minute"
        return f"{said} of {which} from {minutes[0]} to {minutes[-1]} of {hour}"
    which = f"minute{'s' * (len(minutes) > 1)} {joined(listed(minutes))}"
    if not exact and len(minutes) > _SOME:
        which = f"{len(minutes)} minutes"
    return f"{said} of {which} of {hour}"


def _seconds_listed(seconds: Sequence[int], *, exact: bool) -> str:
    if _is_even(seconds):
        return _every(_gap(seconds), "second")
    if len(seconds) > _SOME and step_of(seconds):
        return _series(seconds, "second")
    if exact or len(seconds) <= _SOME:
        return f"at {joined(listed(seconds))} second{'s' * (seconds != (1,))}"
    return f"at {len(seconds)} different seconds"


def _minutes_listed(minutes: Sequence[int]) -> str:
    return f"at {joined(listed(minutes))} minute{'s' * (minutes != (1,))}"


def _of_hours(hours: Sequence[int]) -> str:
    step = step_of(hours)
    if len(hours) == _HOURS:
        return "every hour"
    if len(hours) == 1:
        return f"{hours[0]:02}:00"
    if step == 1:
        return f"each hour from {hours[0]} to {hours[-1]}"
    if step and len(hours) > _SERIES:
        return f"every {ordinal(step)} hour from {hours[0]} to {hours[-1]}"
    return f"the hours {joined(listed(hours, _SERIES))}"


def _series(numbers: Sequence[int], unit: str) -> str:
    return f"{_every(_gap(numbers), unit)} from {numbers[0]} to {numbers[-1]}"


def _every(count: int, unit: str) -> str:
    return f"every {unit}" if count == 1 else f"every {count} {unit}s"


def _gap(numbers: Sequence[int]) -> int:
    return numbers[1] - numbers[0] if len(numbers) > 1 else _MINUTES


def _is_star(numbers: Sequence[int], size: int) -> bool:
    """Return whether a star with a step could mean these numbers of a field."""
    return len(numbers) > 1 and tuple(numbers) == tuple(range(0, size, _gap(numbers)))


def _is_even(numbers: Sequence[int]) -> bool:
    """Return whether minutes or seconds are at equal distances across the whole hour."""
    return _is_star(numbers, _MINUTES) and not _MINUTES % _gap(numbers)


def _is_row(numbers: Sequence[int]) -> bool:
    return numbers[-1] - numbers[0] == len(numbers) - 1
