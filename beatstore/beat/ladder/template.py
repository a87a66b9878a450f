"""Make messages from templates: what Celery made of one message, with places for the rest.

A template is made per task and options. Celery makes one message of a claim, by the whole way
from `apply_async` to the transport's channel, where it is caught. What differs between the runs
of the same task and options is then taken out: the ids, the instants, the entry's name, the
arguments and their representation for monitors. A second message, of an invented run with other
arguments, must come out the same from Celery and from the template; otherwise there is no template.

A template is made anew after some seconds, so that a change to the app's configuration while beat
runs counts as it does without templates.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

from celery.utils.saferepr import saferepr
from kombu.utils.json import JSONEncoder

from beatstore import headers
from beatstore.beat.ladder.genuine import hook_of_task
from beatstore.beat.message import BeatEntry, publish, without_results
from beatstore.definition.allowed import CANVAS
from beatstore.definition.values import opened
from beatstore.discovery.beatschedule import evaluated
from beatstore.tick.claims import Claim, Outcome

__all__ = ["BODY", "Caught", "Rendered", "Template", "Templates", "filled", "values_of"]

#: How long a template is used, in seconds.
_LASTS = 10.0

#: How many messages of a task and options are sent by Celery before a template is made, which
#: costs as much as two of them; and how many templates are kept.
_WORTH = 3
_MOST = 1000

#: What differs between the runs of a task with the same options, in the order of `values_of`:
#: the headers that hold it. The first also is the message's `correlation_id`.
_PLACES = (
    ("id", "root_id", headers.TASK_ID),
    ("periodic_task_name", headers.ENTRY_NAME),
    (headers.RUN_ID,),
    (headers.DUE_AT,),
    (headers.ATTEMPT,),
    ("argsrepr",),
    ("kwargsrepr",),
    (headers.FIRST_MISSED_AT,),
    (headers.MISSED_COUNT,),
)

#: The number of the body, after the values of `values_of`.
BODY = len(_PLACES)

#: Options that replace what a template computes.
_REPLACING = frozenset({"argsrepr", "kwargsrepr", "expires"})

_FLAT = frozenset({str, int, float, bool, type(None)})

_encode = JSONEncoder().encode


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message that is ready for the transport.

    Attributes:
        claim: the claim that it is of.
        message: what the transport's channel takes.
    """

    claim: Claim
    message: Any

    def outcome(self) -> Outcome:
        """Return the outcome of the message, after the broker took it."""
        return Outcome(self.claim, "sent")


@dataclass(slots=True)
class Caught:
    """What Celery and kombu passed to a channel.

    Attributes:
        message: the channel's own form of a message.
        options: the keyword arguments of `basic_publish`.
        declared: the entities that were to be declared first.
    """

    message: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: list[Any] = field(default_factory=list)


class Template(Protocol):
    """A message with places for what differs between runs."""

    def render(self, values: Sequence[Any], body: str) -> Any:
        """Return the message of a run.

        Args:
            values: the result of `values_of`.
            body: the arguments and what belongs to them, as JSON.
        """
        ...

    def equals(self, rendered: Any, caught: Caught) -> bool:
        """Return whether a rendered message is what Celery made."""
        ...


class Making(Protocol):
    """Makes the template of one transport; see `Templates`."""

    def __call__(self, channel: Any, caught: Caught, values: Sequence[Any]) -> Template | None:
        """Return the template of a message with these values, or None if it has none."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    """A template; None if there is none, and since when that is known."""

    template: Template | None
    tail: str
    task: Any
    since: float


class Templates:
    """The templates of one scheduler on one channel.

    Args:
        scheduler: whose app and settings the messages are made with.
        channel: the transport's channel.
        make: makes the template of one transport.
    """

    def __init__(self, scheduler: Any, channel: Any, make: Making) -> None:
        self._scheduler = scheduler
        self._make = make
        self._known: dict[Any, _Known] = {}
        self._seen: Counter[Any] = Counter()
        self.channel = channel

    def render(self, claims: Sequence[Claim]) -> list[Rendered | None]:
        """Return the message of each claim; None where Celery has to make it."""
        keys = [_key_of(claim) for claim in claims]
        if len(self._seen) > _MOST:
            self._seen.clear()  # options may differ from entry to entry, without end
        self._seen.update(keys)
        since = time.monotonic() - _LASTS
        tasks = self._scheduler.app.tasks
        # Looked at in each batch, since a method may be replaced at any time.
        hooked = {
            name
            for name in {claim.task for claim in claims} & tasks.keys()
            if hook_of_task(tasks[name])
        }
        return [
            None if claim.task in hooked else self._render(claim, key, since)
            for claim, key in zip(claims, keys, strict=True)
        ]

    def _render(self, claim: Claim, key: Any, since: float) -> Rendered | None:
        known = self._known.get(key)
        if known is None or known.since < since:
            if self._seen[key] < _WORTH:
                return None
            if len(self._known) >= _MOST:
                self._known.clear()
                self._seen.clear()
            known = self._known[key] = self._learn(claim)
        if known.template is None:
            return None
        arguments = self._arguments(claim, known.task)
        if arguments is None:
            return None
        given, *reprs = arguments
        body = f"[{given}, {known.tail}]"
        return Rendered(claim, known.template.render(values_of(claim, *reprs), body))

    # -- making them -------------------------------------------------------------------

    def _learn(self, claim: Claim) -> _Known:
        app, now = self._scheduler.app, time.monotonic()
        task = app.tasks.get(claim.task)
        none = _Known(None, "", task, now)
        if claim.task in CANVAS or not _REPLACING.isdisjoint(claim.options):
            return none
        if task is not None and task.expires is not None:
            return none
        try:
            return self._compared(claim, task, now) or none
        except Exception:  # noqa: BLE001  (Celery meets it again when it sends the message)
            return none

    def _compared(self, claim: Claim, task: Any, now: float) -> _Known | None:
        """Return a template that was compared with two messages of Celery, or None."""
        caught, arguments = self._caught(claim), self._arguments(claim, task)
        if arguments is None or not all(one.can_cache_declaration for one in caught.declared):
            return None
        template = self._make(self.channel, caught, values_of(claim, *arguments[1:]))
        tail = _tail(caught.message)
        if template is None or tail is None:
            return None
        another = replace(
            claim,
            run_id=claim.run_id + 1,
            task_id=str(uuid.uuid4()),
            due_at=claim.due_at + timedelta(seconds=1),
            attempt=claim.attempt + 1,
            name=f"{claim.name}'%s \"",
            missed_count=claim.missed_count + 1,
            # Somebody may make something of them that the template would repeat.
            args=[f"{number}'%s" for number, _ in enumerate(claim.args)],
            kwargs={name: f"{name}'%s" for name in claim.kwargs},
        )
        for one, made in ((claim, caught), (another, self._caught(another))):
            known = self._arguments(one, task)
            if known is None:
                return None
            given, *reprs = known
            rendered = template.render(values_of(one, *reprs), f"[{given}, {tail}]")
            if not template.equals(rendered, made):
                return None
        return _Known(template, tail, task, now)

    def _caught(self, claim: Claim) -> Caught:
        """Let Celery make the message of a claim, and catch it before it leaves.

        Raises:
            Exception: any error that sending the claim would raise.
        """
        scheduler = self._scheduler
        settings, producer = scheduler.store.settings, scheduler.producer
        entry = BeatEntry(claim, scheduler.app, settings.default_timezone)
        with without_results(scheduler.app), _catching(producer, self.channel) as caught:
            publish(scheduler.app, entry, producer, settings.allowed_tasks)
        if caught.message is None:
            raise LookupError("no message was published")
        return caught

    # -- arguments ---------------------------------------------------------------------

    def _arguments(self, claim: Claim, task: Any) -> tuple[str, str, str] | None:
        """Return args and kwargs as they stand in a JSON list, and how each is shown.

        None: as Celery says.
        """
        app, args, kwargs = self._scheduler.app, claim.args, claim.kwargs
        flat = _FLAT.issuperset(map(type, args)) and _FLAT.issuperset(map(type, kwargs.values()))
        try:
            if not flat:
                given, named, _ = opened(args, kwargs, {})
                args = [evaluated(app, value) for value in given]
                kwargs = {key: evaluated(app, value) for key, value in named.items()}
            if task is not None and task.typing and hasattr(task, "__header__"):
                task.__header__(*args, **kwargs)
            # One call, since each makes an encoder of its own.
            text = _encode([args, kwargs])[1:-1]
        except Exception:  # noqa: BLE001  (Celery meets it again when it sends the message)
            return None
        shown = args or ()  # as Celery does, so that monitors show "()"
        return (
            text,
            self._repr(shown, app.amqp.argsrepr_maxsize, flat=flat),
            self._repr(kwargs, app.amqp.kwargsrepr_maxsize, flat=flat),
        )

    def _repr(self, value: Any, maxlen: int, *, flat: bool) -> str:
        text = flat_repr(value, maxlen) if flat else None
        if text is None:
            levels = getattr(self._scheduler.app.conf, "task_repr_maxlevels", 3)  # of celery 5.7
            text = saferepr(value, maxlen, maxlevels=levels)
        return text


def values_of(claim: Claim, argsrepr: str, kwargsrepr: str) -> tuple[Any, ...]:
    """Return what differs between the runs of a task with the same options."""
    usual = (
        claim.task_id,
        claim.name,
        claim.run_id,
        claim.due_at.isoformat(),
        claim.attempt,
        argsrepr,
        kwargsrepr,
    )
    if claim.first_missed_at is None:
        return usual
    return (*usual, claim.first_missed_at.isoformat(), claim.missed_count)


def filled(made: Mapping[str, Any], values: Sequence[Any], places: Sequence[Any]) -> dict[str, Any]:
    """Return the headers of a message, with `places` where the values of its run were.

    Raises:
        LookupError: a header does not hold the value of the run.
    """
    found = dict(made)
    for names, value, place in zip(_PLACES, values, places, strict=False):
        for name in names:
            if found[name] == value:
                found[name] = place
            elif name != "root_id":  # which an option may have set
                raise LookupError(name)
    return found


def flat_repr(value: Any, maxlen: int) -> str | None:
    """Return what `saferepr` makes of a list or dict of plain values, or of (); None: unknown.

    Celery's own takes several times as long.
    """
    if isinstance(value, dict):
        text = f"{{{', '.join(f'{_said(key)}: {_said(one)}' for key, one in value.items())}}}"
    else:
        text = f"[{', '.join(map(_said, value))}]" if type(value) is list else "()"
    return text if len(text) < maxlen else None


def _said(value: Any) -> str:
    if type(value) is str:
        escaped = value.replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


def _key_of(claim: Claim) -> Any:
    options = json.dumps(claim.options, sort_keys=True, default=str) if claim.options else ""
    return claim.task, claim.first_missed_at is None, options


def _tail(message: Any) -> str | None:
    """Return what follows the arguments in a body, as JSON; None if it is no plain JSON."""
    text = message["body"] if isinstance(message, dict) else message.body
    try:
        body = json.loads(text)
    except (TypeError, ValueError):
        return None
    return _encode(body[2]) if isinstance(body, list) and len(body) == 3 else None  # noqa: PLR2004


@contextmanager
def _catching(producer: Any, channel: Any) -> Iterator[Caught]:
    """Keep what is published on a channel from leaving."""
    caught, kept = Caught(), vars(channel).get("basic_publish")
    declare = producer.maybe_declare

    def catch(message: Any, **options: Any) -> None:
        caught.message, caught.options = message, options

    def note(entity: Any, *args: Any, **kwargs: Any) -> Any:
        caught.declared.append(entity)
        return declare(entity, *args, **kwargs)

    channel.basic_publish, producer.maybe_declare = catch, note
    try:
        yield caught
    finally:
        del producer.maybe_declare
        if kept is None:
            del channel.basic_publish
        else:
            channel.basic_publish = kept
