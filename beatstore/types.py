"""What the public API takes: the words of its policies, its options, and what fits where.

A type checker reads all of this; at run time the words are what `MISFIRES` and the like are
made of, and the options are what `takes` writes into `help`.

Invariants:
    * A word, an option and its documentation stand here and nowhere else.
    * Neither SQLAlchemy nor celery is imported: what is theirs is known by its methods.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ForwardRef, Literal, Protocol, TypeAlias, TypedDict, TypeVar

from beatstore.errors import InvalidEntryError
from beatstore.schedules import Schedule
from beatstore.words import nearest

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
#: By what runs are sorted.
RunSort: TypeAlias = Literal["due", "sent", "started", "finished", "runtime", "lateness"]
#: What is read beside an entry's columns where it is asked for.
EntryExtra: TypeAlias = Literal["tags", "after", "edited"]
#: What `Store.end` makes of a run.
EndState: TypeAlias = Literal["succeeded", "failed", "cancelled"]

# -- values ------------------------------------------------------------------------------

#: Seconds, or a timedelta.
Duration: TypeAlias = float | timedelta


class NamedTask(Protocol):
    """A celery task: what `@app.task` and `@shared_task` make."""

    @property
    def name(self) -> str:
        """The name that its messages carry."""

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it now."""


class CelerySchedule(Protocol):
    """One of celery's own schedules: `crontab`, `schedule`, `solar`."""

    def is_due(self, last_run_at: datetime) -> Any:
        """Say whether it is due."""


class SessionLike(Protocol):
    """A `Session` or a `scoped_session` of SQLAlchemy; no `AsyncSession`.

    With an `AsyncSession` write `await session.run_sync(lambda s: store.add(…, session=s))`.
    """

    def get_bind(self, *args: Any, **kwargs: Any) -> Any:
        """Return what it is bound to."""

    def flush(self) -> None:
        """Write what is pending; an `AsyncSession` returns a coroutine here."""


class Upstream(Protocol):
    """An edge to an upstream, as `After` is one."""

    @property
    def on(self) -> On:
        """What the upstream's run must come to."""

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


#: A task. Where celery's stubs (celery-types) are missing, pyright takes a task for the function
#: it is made of; so a function is only refused when the program runs.
Task: TypeAlias = NamedTask | Callable[..., Any]

#: A task's name, a task, or a signature (a chain, group or chord too).
TaskLike: TypeAlias = str | Task | Mapping[str, Any]

#: What `beatstore.schedules.as_schedule` takes: a number is seconds, text a cron expression.
ScheduleLike: TypeAlias = Schedule | str | datetime | timedelta | float | CelerySchedule

#: Names of upstreams, or `After(…)`.
Upstreams: TypeAlias = str | Upstream | Iterable[str | Upstream]

#: In code that declares entries, a task stands for its first entry.
DeclaredUpstreams: TypeAlias = str | Upstream | Task | Iterable[str | Upstream | Task]

R = TypeVar("R")


class Page(list[R]):
    """A list of rows, which may go on.

    Attributes:
        more: whether further rows match, which the limit has left out.
    """

    def __init__(self, rows: Iterable[R] = (), *, more: bool = False) -> None:
        super().__init__(rows)
        self.more = more

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
    """What `Store.schedule` takes; see `EntryOptions`."""

    after: Upstreams


class ScheduledOptions(_Recurring, total=False):
    """What `scheduled` takes; see `EntryOptions`."""

    after: DeclaredUpstreams


class EntryOptions(_Recurring, total=False):
    """What `Store.add` and `Store.put` take, after the name, the task and the schedule.

    Attributes:
        args: JSON; given with a Signature, they replace its own.
        kwargs: JSON; added to those of a Signature, and stronger.
        options: what `apply_async` takes, except the time; added to those of a Signature,
            and stronger. `expires` counts from sending.
        timezone: IANA zone the schedule is meant in, where it names none itself; None takes
            the setting `beatstore_default_timezone`. The zone is stored.
        start_at: nothing is due before.
        end_at: nothing is due after.
        max_runs: the entry is finished when this many runs have been sent.
        jitter: the entry is sent up to this many seconds late, always by the same part of
            them, so that entries due together spread out.
        misfire: what happens to occurrences that beat sees too late: "skip", "coalesce" (they
            become one) or "all"; None takes the setting.
        grace: how many seconds late is too late; None takes the setting.
        after: the entries whose runs this one waits for: names, or `After(…)` to say what is
            asked of them.
        overlap: what happens to an occurrence while a run of the entry has not ended:
            "allow", "skip" (it is recorded) or "wait" (those that wait become one).
        run_timeout: how long, from sending, a run may go without any report of a worker
            before it is asked after and called lost. None: for ever, or with `overlap` as
            long as the setting `beatstore_overlap_timeout`, a day. A run whose worker is
            heard from is never given up; `time_limit` of the task stops it.
        max_retries: how many more attempts a run that failed or was lost is given.
        retry_delay: seconds from a failure to the next attempt.
        retry_backoff: each further delay is this many times the one before, up to a day.
        retry_jitter: up to this many seconds more, to spread the attempts of many runs.
        tags: words of 1 to 64 characters by which entries are found.
        description: for people.
        source: who owns the entry.
        paused: add it without running it; see `resume`.
    """

    after: Upstreams
    source: str


class ChangeOptions(EntryOptions, total=False):
    """What `Store.change` takes; see `EntryOptions`."""

    new_name: str
    task: TaskLike
    schedule: ScheduleLike | None


def refuse_unknown(given: Mapping[str, Any], options: type) -> None:
    """Refuse an option that a function does not take, and name the nearest that it does.

    Raises:
        InvalidEntryError: there is one.
    """
    known = options.__annotations__
    for name in given:
        if name not in known:
            raise InvalidEntryError(name, given[name], "a known option", nearest(name, known))


# -- help --------------------------------------------------------------------------------

F = TypeVar("F", bound=Callable[..., Any])


def takes(options: type, defaults: Mapping[str, Any] | None = None) -> Callable[[F], F]:
    """Write options into a function's docstring, and with defaults into its signature.

    A type checker knows them by the function's `**given: Unpack[options]`; this is for
    `help`, and for shells that complete names.
    """
    taken = options.__annotations__

    def decorate(function: F) -> F:
        lines = [doc for name, doc in _DOCS.items() if name in taken]
        said = inspect.cleandoc(function.__doc__ or "")
        function.__doc__ = "\n".join([said, "", "Options:", *lines])
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


#: By its name, what the docstring above says of an option, indented.
_DOCS = {
    found[1]: found[0].rstrip()
    for found in re.finditer(
        r"^ {4}(\w+): .*\n?(?:^ {8}.*\n?)*", inspect.getdoc(EntryOptions) or "", re.MULTILINE
    )
}
