"""The edge from an entry to an upstream, as a value, and its checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any

from beatstore.definition import fields
from beatstore.definition.identity import form, identity
from beatstore.errors import InvalidEntryError
from beatstore.rules.outcomes import ALIGNS, CONDITIONS, ON_FAILURE
from beatstore.types import Align, Duration, On, OnUpstreamFailure, Task

__all__ = ["After", "told", "wanted"]


@dataclass(frozen=True)
class After:
    """An upstream of an entry, and what is asked of it.

    Args:
        name: the upstream's name.
        on: what its run must come to: "success", "done" (whatever it came to) or
            "failure". Several completions before the downstream runs count as one.
        first_free: the downstream's first run need not wait. With the entry's own name,
            which only then is allowed, it never runs while its last run has not ended.
        align: "latest": any completion since the downstream ran last. "same": the
            upstream's run of the same due time. None: "same" for an entry without a clock
            all of whose upstreams descend from one entry with a clock, else "latest"; that
            is decided when the edge is written.
        on_upstream_failure: "wait" for the next success, or "skip": the occurrence is given
            up when the upstream has failed, which its own downstreams take for a failure.
        timeout: how long to wait, in seconds or a timedelta; then it is given up likewise.
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
            # In code that declares entries, a task stands for its first entry.
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


def wanted(given: object) -> tuple[After, ...]:
    """Return the edges that an argument `after` asks for, checked, each upstream once."""
    if isinstance(given, str | After):
        given = [given]
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise InvalidEntryError("after", given, "a list of names or After(…)", "['extract']")
    found = [_checked(one) for one in given]
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidEntryError("after", name, "each upstream once")
    return tuple(found)


def _checked(given: object) -> After:
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


def told(one: After) -> dict[str, Any]:
    """Return an edge as the audit keeps it: its upstream, and what is not the default.

    An alignment that is left out is "latest".
    """
    found = {
        field.name: value
        for field in fields_of(After)
        if (value := getattr(one, field.name)) != field.default
    }
    if found.get("align") == "latest":
        del found["align"]
    return found
