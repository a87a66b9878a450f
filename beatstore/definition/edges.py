"""Dependencies: the edge from an entry to an upstream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any

from beatstore.definition import fields
from beatstore.definition.identity import form, identity
from beatstore.errors import InvalidEntryError
from beatstore.rules.outcomes import ALIGNS, CONDITIONS, ON_FAILURE
from beatstore.text.values import read_span, write_span
from beatstore.types import Align, Duration, On, OnUpstreamFailure, Task

__all__ = ["After", "as_json", "checked", "new_waits", "read_edge", "write_edge"]


@dataclass(frozen=True)
class After:
    """An upstream of an entry, and the condition on its runs.

    Args:
        name: the upstream's name.
        on: the outcome to wait for: "success", "failure" or "done" (any outcome). Several
            completions before the downstream runs count as one.
        first_free: the downstream's first run does not wait. An edge to the entry itself
            requires this: each run then waits for the end of the one before.
        align: "latest" accepts any completion since the downstream last ran. "same" requires
            the upstream's run of the same due time. None chooses when the edge is written:
            "same" for an entry without a schedule if all its upstreams descend from one entry
            with a schedule, else "latest".
        on_upstream_failure: "wait" for the next success, or "skip" the occurrence when the
            upstream fails. A skip counts as a failure for further downstreams.
        timeout: seconds or a timedelta to wait. Then the occurrence is skipped, as above.
    """

    name: str
    on: On = "success"
    first_free: bool = False
    align: Align | None = None
    on_upstream_failure: OnUpstreamFailure = "wait"
    timeout: Duration | None = None

    if TYPE_CHECKING:

        def __init__(  # noqa: PLR0917  (the fields, in their order)
            self,
            # In code that declares entries, a task means its first entry.
            name: str | Task,
            on: On = "success",
            first_free: bool = False,
            align: Align | None = None,
            on_upstream_failure: OnUpstreamFailure = "wait",
            timeout: Duration | None = None,
        ) -> None: ...


@identity.register
def _(value: After) -> object:
    return form([getattr(value, field.name) for field in fields_of(value)])


def checked(given: object) -> tuple[After, ...]:
    """Return the checked edges of an argument `after`."""
    if isinstance(given, str | After):
        given = [given]
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise InvalidEntryError("after", given, "a list of names or After(…)", "['extract']")
    found = [_checked_one(one) for one in given]
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidEntryError("after", name, "each upstream once")
    return tuple(found)


def _checked_one(given: object) -> After:
    one = After(given) if isinstance(given, str) else given
    if not isinstance(one, After):
        raise InvalidEntryError("after", given, "a name or After(…)", "After('extract')")
    timeout = None if one.timeout is None else fields.seconds("timeout", one.timeout, above=True)
    return After(
        fields.text("after", one.name),
        fields.choice("on", one.on, CONDITIONS),
        fields.flag("first_free", one.first_free),
        None if one.align is None else fields.choice("align", one.align, ALIGNS),
        fields.choice("on_upstream_failure", one.on_upstream_failure, ON_FAILURE),
        timeout,
    )


def new_waits(asked: Iterable[After], there: Iterable[After]) -> list[After]:
    """Return the edges that wait for something else than those that are there.

    How long an edge waits, and whether a failure ends its wait, is no part of what it waits for.
    """
    known = {_awaited(one) for one in there}
    return [one for one in asked if _awaited(one) not in known]


def _awaited(one: After) -> After:
    return replace(one, on_upstream_failure="wait", timeout=None)


def as_json(one: After) -> dict[str, Any]:
    """Return an edge as JSON: its upstream, and the fields that are not the default.

    `align` is omitted if it is "latest".
    """
    found = {
        field.name: value
        for field in fields_of(After)
        if (value := getattr(one, field.name)) != field.default
    }
    if found.get("align") == "latest":
        del found["align"]
    return found


#: The conditions that can be written after a name.
_CONDITIONS = frozenset(field.name for field in fields_of(After)) - {"name"}


def read_edge(text: str) -> After:
    """Read an edge as people write it: `extract`, or `extract:on=done,first_free`.

    A name may contain colons: text after the last colon is part of the name, unless it consists
    of fields of `After`.

    Raises:
        ValueError: the value of a condition can't be read.
    """
    name, colon, rest = text.rpartition(":")
    pairs = [part.partition("=") for part in rest.split(",")]
    if not colon or not all(key.strip() in _CONDITIONS for key, _, _ in pairs):
        return After(text)
    conditions: dict[str, Any] = {}
    for key, equals, word in pairs:
        conditions[key.strip()] = _condition(key.strip(), word.strip() if equals else "true")
    return After(name, **conditions)


def _condition(key: str, word: str) -> Any:
    if key == "first_free":
        if word.lower() not in ("true", "false"):
            raise ValueError(f"first_free: expected true or false, got {word!r}; write first_free")
        return word.lower() == "true"
    return read_span(word) if key == "timeout" else word


def write_edge(edge: After) -> str:
    """Return an edge as `read_edge` reads it."""
    conditions = [
        key if value is True else f"{key}={write_span(value) if key == 'timeout' else value}"
        for key, value in as_json(edge).items()
        if key != "name"
    ]
    return f"{edge.name}:{','.join(conditions)}" if conditions else edge.name
