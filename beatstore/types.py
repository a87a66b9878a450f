"""The types of the public API: the words of its policies, its options and its protocols.

Type checkers read all of this. At run time constants such as `MISFIRES` are made of the words,
and `takes` writes the options into docstrings, for `help`.

Invariants:
    * Each word, each option and its documentation is defined here and nowhere else.
    * Importing this imports neither SQLAlchemy nor celery; protocols stand for their classes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ForwardRef, Literal, Protocol, TypeAlias, TypedDict, TypeVar

from beatstore.errors import InvalidEntryError
from beatstore.schedules import Schedule
from beatstore.words import similar

__all__ = [
    "Align",
    "App",
    "CelerySchedule",
    "ChangeOptions",
    "DeclaredUpstreams",
    "Duration",
    "EndState",
    "EntryExtra",
    "EntryKind",
    "EntryOnly",
    "EntryOptions",
    "EntryState",
    "Misfire",
    "NamedTask",
    "On",
    "OnUpstreamFailure",
    "OneShotOptions",
    "Overlap",
    "Page",
    "RunSort",
    "RunState",
    "ScheduleLike",
    "ScheduledOptions",
    "SessionLike",
    "Task",
    "TaskLike",
    "Upstream",
    "Upstreams",
    "refuse_unknown",
    "takes",
]

# -- words -------------------------------------------------------------------------------

Misfire: TypeAlias = Literal["skip", "coalesce", "all"]
Overlap: TypeAlias = Literal["allow", "skip", "wait"]
On: TypeAlias = Literal["success", "done", "failure"]
Align: TypeAlias = Literal["latest", "same"]
OnUpstreamFailure: TypeAlias = Literal["wait", "skip"]
EntryKind: TypeAlias = Literal["once", "cron", "every", "rrule", "solar", "after"]
EntryState: TypeAlias = Literal["active", "paused", "finished", "missed", "cancelled", "broken"]
RunState: TypeAlias = Literal[
    "claimed", "sent", "started", "succeeded", "failed", "lost", "cancelled", "missed", "skipped"
]
#: How runs can be sorted.
RunSort: TypeAlias = Literal["due", "sent", "started", "finished", "runtime", "lateness"]
#: What can be read with an entry besides its columns.
EntryExtra: TypeAlias = Literal["tags", "after", "edited"]
#: Entries that somebody should look at: the newest run that has an outcome failed or was lost; no
#: beat has picked it up in time; something due waits for an upstream or a run; it differs from
#: what its code declares.
EntryOnly: TypeAlias = Literal["failing", "overdue", "waiting", "edited"]
#: The states that `Store.end` can give a run.
EndState: TypeAlias = Literal["succeeded", "failed", "cancelled"]

# -- values ------------------------------------------------------------------------------

#: Seconds, or a timedelta.
Duration: TypeAlias = float | timedelta


class NamedTask(Protocol):
    """A celery task, made by `@app.task` or `@shared_task`."""

    @property
    def name(self) -> str:
        """The name in its messages."""

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it now."""


class CelerySchedule(Protocol):
    """One of celery's own schedules: `crontab`, `schedule`, `solar`."""

    def is_due(self, last_run_at: datetime) -> Any:
        """Return whether it is due, and in how many seconds to check again."""


class SessionLike(Protocol):
    """A `Session` or a `scoped_session` of SQLAlchemy, not an `AsyncSession`.

    With an `AsyncSession` write `await session.run_sync(lambda s: store.add(…, session=s))`.
    """

    def get_bind(self, *args: Any, **kwargs: Any) -> Any:
        """Return what it is bound to."""

    def flush(self) -> None:
        """Write pending changes; in an `AsyncSession`, this is a coroutine."""


class Upstream(Protocol):
    """An edge to an upstream, such as `After`."""

    @property
    def on(self) -> On:
        """The outcome that the upstream's run must have."""

    @property
    def first_free(self) -> bool:
        """Whether the first run need not wait."""


class App(Protocol):
    """A Celery app."""

    @property
    def conf(self) -> Any:
        """Its settings."""

    @property
    def timezone(self) -> Any:
        """Its zone, by name or as an object."""


#: A task. Without celery's stubs (celery-types), pyright sees a task as the function it is made
#: of, so a plain function is only refused at run time.
Task: TypeAlias = NamedTask | Callable[..., Any]

#: A task's name, a task, or a signature (a chain, group or chord too).
TaskLike: TypeAlias = str | Task | Mapping[str, Any]

#: What `beatstore.schedules.as_schedule` takes: a number is seconds, text a cron expression.
ScheduleLike: TypeAlias = Schedule | str | datetime | timedelta | float | CelerySchedule

#: Names of upstreams, or `After(…)`.
Upstreams: TypeAlias = str | Upstream | Iterable[str | Upstream]

#: In code that declares entries, a task means its first entry.
DeclaredUpstreams: TypeAlias = str | Upstream | Task | Iterable[str | Upstream | Task]

R = TypeVar("R")


class Page(list[R]):
    """A list of rows, which may go on.

    Attributes:
        more: whether further rows match, which the limit has left out.
        after: of a page of entries or names that has more, what to give as `after` for the next.
    """

    def __init__(
        self, rows: Iterable[R] = (), *, more: bool = False, after: str | None = None
    ) -> None:
        super().__init__(rows)
        self.more = more
        self.after = after

    @classmethod
    def cut(cls, rows: Iterable[R], limit: int) -> Page[R]:
        """Return the first `limit` of rows, of which one more was read to see if there is."""
        found = list(rows)
        return cls(found[:limit], more=len(found) > limit)


# -- options -----------------------------------------------------------------------------


class _Common(TypedDict, total=False):
    misfire: Misfire | None
    grace: Duration | None
    run_timeout: Duration | None
    max_retries: int
    retry_delay: Duration
    retry_backoff: float
    retry_jitter: Duration
    tags: Iterable[str]
    description: str | None


class _Recurring(_Common, total=False):
    args: Sequence[Any]
    kwargs: Mapping[str, Any] | None
    options: Mapping[str, Any] | None
    timezone: str | None
    start_at: datetime | None
    end_at: datetime | None
    max_runs: int | None
    jitter: Duration | None
    overlap: Overlap
    paused: bool


class OneShotOptions(_Common, total=False):
    """The options of `Store.schedule`; see `EntryOptions`."""

    after: Upstreams


class ScheduledOptions(_Recurring, total=False):
    """The options of `scheduled`; see `EntryOptions`."""

    after: DeclaredUpstreams


class EntryOptions(_Recurring, total=False):
    """The options of `Store.add` and `Store.put`, after the name, the task and the schedule.

    Attributes:
        args: Positional arguments, as JSON. They replace those of a Signature.
        kwargs: Keyword arguments, as JSON. They are merged into those of a Signature.
        options: Arguments of `apply_async`, except the time. They are merged into those of a
            Signature. `expires` counts from sending.
        timezone: IANA time zone of a schedule that names none. None uses the setting
            `beatstore_default_timezone`. The entry stores the zone.
        start_at: The entry is not due before this instant.
        end_at: The entry is not due after this instant.
        max_runs: Finish the entry after this many runs.
        jitter: Delay each send by a fixed per-entry offset below this many seconds.
        misfire: What to do with occurrences that beat sees too late: "skip" them, "coalesce"
            them into one run, or run them "all". None uses the setting.
        grace: An occurrence is a misfire when it is more than this many seconds late. None
            uses the setting.
        after: Upstream entries to wait for: names, or `After(…)` for other conditions than
            the next success.
        overlap: What to do when the entry is due and its last run has not ended: "allow"
            another run, "skip" and record the occurrence, or "wait" and coalesce.
        run_timeout: Mark the run lost if no worker reports within this time of sending.
            None: never; with `overlap`, use the setting `beatstore_overlap_timeout` (one
            day). A run whose worker sends heartbeats does not time out; to stop it, set the
            task's `time_limit`.
        max_retries: Number of further attempts after a run failed or was lost.
        retry_delay: Seconds between a failure and the next attempt.
        retry_backoff: Multiplier for each further delay; capped at one day.
        retry_jitter: Delay each retry by up to this many more seconds.
        tags: Words of 1 to 64 characters, for filters.
        description: Free text.
        source: The owner of the entry.
        paused: Add the entry paused; `resume` starts it.
    """

    after: Upstreams
    source: str


class ChangeOptions(EntryOptions, total=False):
    """The options of `Store.change`; see `EntryOptions`."""

    new_name: str
    task: TaskLike
    schedule: ScheduleLike | None


def refuse_unknown(given: Mapping[str, Any], options: type) -> None:
    """Raise an error for an option that a function does not take.

    Raises:
        InvalidEntryError: an option is unknown; the error suggests the nearest one.
    """
    known = options.__annotations__
    for name in given:
        if name not in known:
            raise InvalidEntryError(name, given[name], "a known option", similar(name, known))


# -- help --------------------------------------------------------------------------------

F = TypeVar("F", bound=Callable[..., Any])


def takes(options: type, defaults: Mapping[str, Any] | None = None) -> Callable[[F], F]:
    """Write options into a function's docstring, and with defaults into its signature.

    Type checkers read `**given: Unpack[options]`; this is for `help` and for completion in
    shells.
    """
    taken = options.__annotations__

    def decorate(function: F) -> F:
        lines = [doc for name, doc in _DOCS.items() if name in taken]
        text = inspect.cleandoc(function.__doc__ or "")
        function.__doc__ = "\n".join([text, "", "Options:", *lines])
        if defaults is not None:
            signature = inspect.signature(function)
            kept = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
            added = [
                _parameter(name, taken[name], defaults[name]) for name in defaults if name in taken
            ]
            vars(function)["__signature__"] = signature.replace(parameters=[*kept, *added])
        return function

    return decorate


def _parameter(name: str, hint: ForwardRef, default: object) -> inspect.Parameter:
    kind, annotation = inspect.Parameter.KEYWORD_ONLY, hint.__forward_arg__
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


#: The lines about each option from the docstring above, by its name, indented.
_DOCS = {
    found[1]: found[0].rstrip()
    for found in re.finditer(
        r"^ {4}(\w+): .*\n?(?:^ {8}.*\n?)*", inspect.getdoc(EntryOptions) or "", re.MULTILINE
    )
}
