"""The form of an entry: each field of `beatstore.definition.spec` as text, both ways.

For each text that can't be read, a sentence says what to write instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from beatstore.definition.edges import read_edge, write_edge
from beatstore.definition.metadata import Field
from beatstore.definition.spec import FIELDS
from beatstore.definition.values import canonical, decoded, encoded
from beatstore.errors import ScheduleError
from beatstore.records import Entry
from beatstore.schedules import Every, Once, RRule, Schedule, Solar
from beatstore.text import times
from beatstore.text.secrets import HIDDEN
from beatstore.text.values import read_span, write_span
from beatstore.web.call import Call

__all__ = ["KINDS", "Input", "inputs", "read_fields", "texts_of"]

#: The kinds of schedule, with what is written for each.
KINDS: Mapping[str, str] = {
    "cron": "cron: 0 2 * * mon-fri",
    "every": "every: 30s, 5m, 1h30m",
    "once": "once: 2026-01-31 03:00",
    "rrule": "rrule: FREQ=MONTHLY;BYDAY=1MO",
    "solar": "solar: sunset,52.5,13.4",
    "after": "none: after its upstreams",
}

#: The fields of text that may have several lines.
_LINES = frozenset(("description",))

#: The kinds of fields that hold a number or an instant.
_NUMBERS = frozenset(("span", "time", "number"))

#: The parts of a solar schedule.
_SOLAR_PARTS = 3


@dataclass(frozen=True, slots=True)
class Input:
    """A field as it is asked for.

    Attributes:
        name: of the field.
        label: what stands beside it.
        help: the line below it.
        long: whether it has several lines.
        choices: the words to choose from; the first is the default.
    """

    name: str
    label: str
    help: str
    long: bool = False
    choices: tuple[str, ...] = ()


def inputs(call: Call) -> list[Input]:
    """Return the fields of the form but for the name, the task and the schedule."""
    return [_input(call, field) for field in FIELDS.values() if field.option is not None]


def _input(call: Call, field: Field) -> Input:
    option = field.option
    assert option is not None
    choices = option.choices
    if choices and field.default is None:
        choices = ("", *choices)
    long = option.kind in ("array", "object") or option.many or field.name in _LINES
    said = option.help.replace("; repeatable", "").replace("--", "")
    if option.kind == "zone":  # on the command line, it is also that of given and shown times
        said = "Zone of the schedule."
    if option.kind == "time":
        said += f" In {call.zone.key}, if you write no other zone behind it."
    if option.many:
        said += " One on each line."
    return Input(field.name, field.name.replace("_", " "), said, long, choices)


# -- from an entry to text -----------------------------------------------------------------


def texts_of(call: Call, entry: Entry) -> dict[str, str]:
    """Return what the form shows of an entry, by the names of the inputs."""
    texts = {"name": entry.name, "task": entry.task, "kind": entry.kind, "spec": _spec(call, entry)}
    for field in FIELDS.values():
        if field.option is not None:
            texts[field.name] = _written(call, field, _value(entry, field))
    return texts


def _value(entry: Entry, field: Field) -> Any:
    if field.name in ("tags", "after"):
        return getattr(entry, field.name)
    return getattr(entry, field.columns[0])


def _spec(call: Call, entry: Entry) -> str:
    try:
        schedule = entry.schedule
    except ScheduleError:
        return entry.spec
    if isinstance(schedule, Once):
        return times.full(schedule.at, call.zone)
    if isinstance(schedule, Every):
        return write_span(schedule.seconds)
    return "" if schedule is None else entry.spec


def _written(call: Call, field: Field, value: Any) -> str:
    assert field.option is not None
    kind = field.option.kind
    if value is None or value in ((), [], {}):
        return ""
    writers: Mapping[str, Callable[[Any], str]] = {
        "array": lambda given: _as_json(call, field, given),
        "object": lambda given: _as_json(call, field, given),
        "edge": lambda edges: "\n".join(map(write_edge, edges)),
        "span": lambda seconds: "" if seconds == field.left_out == 0 else write_span(seconds),
        "time": lambda at: times.full(at, call.zone),
        "number": lambda number: f"{number:g}",
    }
    if kind in _NUMBERS and not _is_finite(value):
        return str(value)  # plain SQL wrote it, and the form can put it right
    if kind in writers:
        return writers[kind](value)
    return "\n".join(value) if isinstance(value, tuple) else str(value)


def _is_finite(value: Any) -> bool:
    """Return whether a value is an instant or a number that there is."""
    return not isinstance(value, str) and not (isinstance(value, float) and not isfinite(value))


def _as_json(call: Call, field: Field, value: Any) -> str:
    """Return arguments as JSON, without their secrets; `_unhidden` puts those back."""
    shown = call.redacted(field.name, encoded(field.name, value))
    return json.dumps(shown, ensure_ascii=False)


# -- from text to the arguments of `Store.add` ----------------------------------------------


def read_fields(
    call: Call,
    form: Mapping[str, str],
    shown: Mapping[str, str] | None = None,
    entry: Entry | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arguments that a form asks for, and what is wrong with texts by their fields.

    Args:
        call: the request; times without an offset are in its zone.
        form: the texts.
        shown: what the form showed before; texts that are as they were are left out. None for
            a new entry, where empty texts are left out.
        entry: the entry as it is stored; None for a new one.
    """
    given: dict[str, Any] = {}
    problems: dict[str, str] = {}
    before = shown or {}
    for field in FIELDS.values():
        text = _sent(form, field.name)
        if field.option is None or text == _sent(before, field.name):
            continue
        try:
            given[field.name] = _argument(call, field, text, entry)
        except (ValueError, ScheduleError) as error:
            problems[field.name] = str(error)
    if form.get("task", "").strip() != before.get("task", ""):
        given["task"] = form.get("task", "").strip()
    if shown is None or any(_sent(form, part) != _sent(shown, part) for part in ("kind", "spec")):
        try:
            given["schedule"] = _schedule(call, form)
        except (ValueError, ScheduleError) as error:
            problems["schedule"] = str(error)
    return given, problems


def _sent(texts: Mapping[str, str], name: str) -> str:
    """Return a text with its lines as they were: browsers send each with a carriage return."""
    return texts.get(name, "").replace("\r\n", "\n").replace("\r", "\n").strip()


def _argument(call: Call, field: Field, text: str, entry: Entry | None) -> Any:
    value = _read(call, field, text)
    if field.form != "values":
        return value
    if entry is not None:
        original = encoded(field.name, _value(entry, field))
        shown = call.redacted(field.name, original)
        value = _unhidden(value, shown, original)
        _refuse_marks(value, shown, original)
    return decoded(field.name, value)


def _read(call: Call, field: Field, text: str) -> Any:
    assert field.option is not None
    if not text:
        return field.default
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    readers: Mapping[str, Callable[[str], Any]] = {
        "array": lambda given: _json(given, list),
        "object": lambda given: _json(given, dict),
        "edge": lambda _: [read_edge(line) for line in lines],
        "number": float,
        "span": read_span,
        "time": call.instant,
        "whole": _whole,
    }
    if field.option.many and field.option.kind == "text":
        return lines
    return readers.get(field.option.kind, str)(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text[:60]!r} is not a whole number; write 10")
    return int(text)


def _json(text: str, kind: type) -> Any:
    example = '["one", 2]' if kind is list else '{"key": 1}'
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}); write {example}") from error
    if not isinstance(found, kind):
        raise ValueError(f"expected {example}, got {text[:60]}")  # noqa: TRY004  (it is text)
    return found


def _unhidden(edited: Any, shown: Any, original: Any) -> Any:
    """Return edited arguments with what the form had hidden as it is stored.

    Args:
        edited: what came back.
        shown: what the form showed.
        original: what is stored.
    """
    if canonical(edited) == canonical(shown):
        return original
    if isinstance(edited, dict) and isinstance(shown, dict) and isinstance(original, dict):
        return {
            key: _unhidden(value, shown[key], original[key])
            if key in shown and key in original
            else value
            for key, value in edited.items()
        }
    if isinstance(edited, list) and isinstance(shown, list) and isinstance(original, list):
        return _unhidden_items(edited, shown, original)
    return edited


def _unhidden_items(edited: list[Any], shown: list[Any], original: list[Any]) -> list[Any]:
    """Return the items of an edited list; one that looks as before may be in another place now."""
    looks = [canonical(one) for one in shown[: len(original)]]
    places: list[int | None] = []
    for at, look in enumerate(map(canonical, edited)):
        if looks[at : at + 1] == [look] and len(edited) == len(looks):
            places.append(at)
        else:
            places.append(looks.index(look) if looks.count(look) == 1 else None)
    found = []
    for at, (item, place) in enumerate(zip(edited, places, strict=True)):
        if place is not None:
            found.append(original[place])
        elif len(edited) == len(looks) and at not in places:
            found.append(_unhidden(item, shown[at], original[at]))  # changed in its place
        else:
            found.append(item)
    return found


def _refuse_marks(edited: Any, shown: Any, original: Any) -> None:
    """Refuse arguments in which a mark stands for a secret that is not known to belong there.

    Raises:
        ValueError: the message says what to write.
    """
    stored = set(_texts(original))
    marks = set(_texts(shown)) - stored
    for text in _texts(edited):
        hides = text in marks or (HIDDEN in text and any(HIDDEN in mark for mark in marks))
        if hides and text not in stored:
            raise ValueError(
                f"{text[:60]!r} stands for a secret that is not shown, and it is not where the "
                "secret was; write the secret itself"
            )


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in JSON data, but for the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _schedule(call: Call, form: Mapping[str, str]) -> Schedule | str | None:
    kind, spec = form.get("kind", ""), _sent(form, "spec")
    if kind == "after":
        return None
    if not spec:
        raise ValueError(f"nothing is written; write as in {KINDS.get(kind, kind)!r}")
    makers: Mapping[str, Callable[[str], Schedule | str]] = {
        "cron": str,
        "every": lambda given: Every(read_span(given)),
        "once": lambda given: Once(call.instant(given)),
        "rrule": RRule,
        "solar": _solar,
    }
    if kind not in makers:
        raise ValueError(f"expected one of {', '.join(KINDS)}, got {kind[:50]!r}")
    return makers[kind](spec)


def _solar(text: str) -> Solar:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != _SOLAR_PARTS:
        raise ValueError(
            f"expected an event, a latitude and a longitude, got {text[:60]!r}; "
            "write sunset,52.5,13.4"
        )
    return Solar(parts[0], float(parts[1]), float(parts[2]))
