"""The fields of an entry, each defined once.

The checks of an edit, the merge of a sync, export and load, and the options and views of the
command line all derive from `FIELDS`. A new field needs a line in `beatstore.types`, for type
checkers and `help`, a field of `Declared` here, a column in `beatstore.database.models`, and the
code that uses it.

Invariants:
    * `beatstore.types.EntryOptions` has the same fields with the same types; a test compares
      them.
    * `left_out` is part of stored baselines and exported documents: it keeps its value when the
      default of a field changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, cast, get_args

from beatstore.config import MISFIRES
from beatstore.definition import edges, fields
from beatstore.definition.metadata import Check, Effect, Field, Option, fields_of, stored
from beatstore.types import DeclaredUpstreams, Duration, Misfire, Overlap, ScheduleLike, TaskLike

__all__ = [
    "COLUMNS",
    "DEFAULTS",
    "FIELDS",
    "VALUES",
    "Declared",
    "EntrySpec",
    "columns_of",
    "read_once",
]

# -- checks ------------------------------------------------------------------------------


def _or_none(check: Check, none: object = None) -> Check:
    """Return a check that also accepts None, and stores `none` for it."""
    return lambda name, value: none if value is None else check(name, value)


def _factor(name: str, value: Any) -> float:
    return float(fields.number(name, value, least=1))


_INSTANT = _or_none(fields.instant)
_SPREAD = _or_none(fields.seconds, none=0.0)

# Not from `rules`, which `import beatstore` does not need.
_OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)


# -- the fields --------------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """An entry that code declares, in a list `SCHEDULES` or for `Store.sync`.

    The arguments are those of `Store.add`. They are not checked here: `sync` checks them, and
    refuses only the entries that are invalid.

        SCHEDULES = [
            Declared("nightly", "etl.extract", "0 2 * * *", timezone="Europe/Berlin"),
            Declared("load", "etl.load", after=["nightly"], max_retries=3),
        ]
    """

    name: str
    task: TaskLike = field(metadata=stored(("task",), effect="call"))
    schedule: ScheduleLike | None = field(
        default=None,
        metadata=stored(("kind", "spec"), group="due", effect="due", form="own"),
    )
    _: KW_ONLY
    args: Sequence[Any] = field(
        default=(),
        metadata=stored(
            ("args",),
            left_out=[],
            effect="call",
            form="values",
            option=Option("array", "Positional arguments, as a JSON array."),
        ),
    )
    kwargs: Mapping[str, Any] | None = field(
        default=None,
        metadata=stored(
            ("kwargs",),
            left_out={},
            effect="call",
            form="values",
            option=Option("object", "Keyword arguments, as a JSON object."),
        ),
    )
    options: Mapping[str, Any] | None = field(
        default=None,
        metadata=stored(
            ("options",),
            left_out={},
            effect="call",
            form="values",
            option=Option("object", "Message options, as a JSON object."),
        ),
    )
    timezone: str | None = field(
        default=None,
        metadata=stored(
            ("timezone",),
            group="due",
            effect="due",
            form="own",
            option=Option("zone", "Zone of the schedule, and of given and shown times."),
        ),
    )
    start_at: datetime | None = field(
        default=None,
        metadata=stored(
            ("start_at",),
            check=_INSTANT,
            group="due",
            effect="due",
            form="instant",
            option=Option("time", "Nothing is due before this time."),
        ),
    )
    end_at: datetime | None = field(
        default=None,
        metadata=stored(
            ("end_at",),
            check=_INSTANT,
            effect="limit",
            form="instant",
            option=Option("time", "Nothing is due after this time."),
        ),
    )
    max_runs: int | None = field(
        default=None,
        metadata=stored(
            ("max_runs",),
            check=_or_none(partial(fields.whole, least=1)),
            effect="limit",
            option=Option("whole", "The entry is finished after this many runs.", least=1),
        ),
    )
    jitter: Duration | None = field(
        default=None,
        metadata=stored(
            ("jitter_s",),
            check=_SPREAD,
            effect="policy",
            option=Option("span", "Delay each send by up to this much, to spread load."),
        ),
    )
    misfire: Misfire | None = field(
        default=None,
        metadata=stored(
            ("misfire",),
            check=_or_none(partial(fields.choice, options=MISFIRES)),
            effect="policy",
            one_shot=True,
            option=Option(
                "text", "What to do with due times that beat sees too late.", choices=MISFIRES
            ),
        ),
    )
    grace: Duration | None = field(
        default=None,
        metadata=stored(
            ("grace_s",),
            check=_or_none(fields.seconds),
            effect="policy",
            one_shot=True,
            option=Option("span", "How late is too late, for --misfire."),
        ),
    )
    after: DeclaredUpstreams = field(
        default=(),
        metadata=stored(
            check=_or_none(lambda _, given: edges.checked(given)),
            left_out=[],
            form="own",
            one_shot=True,
            option=Option(
                "edge",
                "Run after this entry: NAME, or NAME:on=done,first_free; repeatable.",
                many=True,
            ),
        ),
    )
    overlap: Overlap = field(
        default="allow",
        metadata=stored(
            ("overlap",),
            check=partial(fields.choice, options=_OVERLAPS),
            effect="policy",
            option=Option(
                "text",
                "What to do if it is due before its last run has ended.",
                choices=_OVERLAPS,
            ),
        ),
    )
    run_timeout: Duration | None = field(
        default=None,
        metadata=stored(
            ("run_timeout_s",),
            check=_or_none(partial(fields.seconds, above=True)),
            effect="policy",
            one_shot=True,
            option=Option("span", "Mark a run as lost after this long without a report."),
        ),
    )
    max_retries: int = field(
        default=0,
        metadata=stored(
            ("max_retries",),
            check=fields.whole,
            one_shot=True,
            option=Option("whole", "Number of retries after a run failed."),
        ),
    )
    retry_delay: Duration = field(
        default=300,
        metadata=stored(
            ("retry_delay_s",),
            check=fields.seconds,
            one_shot=True,
            option=Option("span", "Delay from a failure to the retry."),
        ),
    )
    retry_backoff: float = field(
        default=1,
        metadata=stored(
            ("retry_backoff",),
            check=_factor,
            one_shot=True,
            option=Option("number", "Multiply the delay by this for each further retry."),
        ),
    )
    retry_jitter: Duration = field(
        default=0,
        metadata=stored(
            ("retry_jitter_s",),
            check=_SPREAD,
            one_shot=True,
            option=Option("span", "Delay each retry by up to this much more."),
        ),
    )
    tags: Iterable[str] = field(
        default=(),
        metadata=stored(
            check=lambda _, given: fields.tags(given),
            left_out=[],
            form="own",
            one_shot=True,
            option=Option("text", "Tag to find the entry by; repeatable.", name="tag", many=True),
        ),
    )
    description: str | None = field(
        default=None,
        metadata=stored(
            ("description",),
            check=fields.note,
            one_shot=True,
            option=Option("text", "Description for people."),
        ),
    )
    paused: bool = field(
        default=False,
        metadata=stored(check=fields.flag, group=None, form="own"),
    )

    def __post_init__(self) -> None:
        """Replace iterators by tuples, since they are read more than once."""
        for name, given in (("tags", self.tags), ("after", self.after)):
            # By its type, since isinstance would make a proxy create its task.
            kind = type(given)
            if kind is not tuple and kind is not list and issubclass(kind, Iterator):
                object.__setattr__(self, name, tuple(cast("Iterable[Any]", given)))

    def given(self) -> dict[str, Any]:
        """Return its fields without the name, for `edits.check`."""
        found = {name: getattr(self, name) for name in _DECLARED}
        # An empty value keeps that of a signature.
        return found | {name: found[name] or None for name in VALUES}


@dataclass(frozen=True)
class EntrySpec(Declared):
    """All fields of an entry: what code declares, and the owner."""

    source: str = field(
        default="api", metadata=stored(("source",), check=fields.text, group=None), kw_only=True
    )

    def given(self) -> dict[str, Any]:
        """Return its fields without the name, for `edits.check`."""
        return {**super().given(), "source": self.source}


# -- what is derived from them ------------------------------------------------------------


#: All fields of an entry except its name, by their names.
FIELDS: Mapping[str, Field] = MappingProxyType({one.name: one for one in fields_of(EntrySpec)})

#: The defaults, by the names of the options.
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {name: one.default for name, one in FIELDS.items() if one.has_default and name != "schedule"}
)

#: The columns of these fields in the entry's row.
COLUMNS: tuple[str, ...] = tuple(column for one in FIELDS.values() for column in one.columns)

#: The fields whose columns hold JSON that encodes values of other types too.
VALUES: tuple[str, ...] = tuple(name for name, one in FIELDS.items() if one.form == "values")

_DECLARED = tuple(one.name for one in fields_of(Declared))


def columns_of(*effects: Effect) -> frozenset[str]:
    """Return the columns of the fields that have one of these effects."""
    those = (one for one in FIELDS.values() if one.effect in effects)
    return frozenset(column for one in those for column in one.columns)


def read_once(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with no iterator among them, since they are read more than once."""
    found = dict(given)
    if isinstance(given.get("tags"), Iterator):
        found["tags"] = tuple(given["tags"])
    if given.get("after"):
        found["after"] = edges.checked(given["after"])
    return found
