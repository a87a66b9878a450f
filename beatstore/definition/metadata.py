"""What is known of a field of an entry, and how it stands at a dataclass's field.

    retry_delay: Duration = field(
        default=300, metadata=stored(("retry_delay_s",), check=fields.seconds, one_shot=True)
    )

Plain data and checks: what a command line makes of an `Option` is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields, replace
from typing import Any, Literal, ParamSpec

__all__ = ["Check", "Effect", "Field", "Form", "Option", "fields_of", "stored"]

#: Returns what a column holds of what a caller gave for a field, by its name; or raises.
Check = Callable[[str, Any], Any]

#: What an edit of a field changes for a beat: the message, the due times, how many or how long,
#: or what happens to an occurrence that is due.
Effect = Literal["call", "due", "limit", "policy"]

#: How a document holds a field: as JSON, as text of an instant, as JSON that stands for values
#: of other types, or in a way of its own.
Form = Literal["plain", "instant", "values", "own"]

#: Says that there is nothing, where None is something.
_NOTHING: Any = object()


@dataclass(frozen=True)
class Option:
    """An option of the command line, as plain data.

    Attributes:
        kind: what it takes.
        help: its line.
        name: without the dashes, where it is not that of the field.
        choices: the words that it takes.
        least: the least number that it takes.
        many: whether it can be given several times.
    """

    kind: Literal["array", "object", "zone", "time", "span", "whole", "number", "text", "edge"]
    help: str
    name: str = ""
    choices: tuple[str, ...] = ()
    least: int = 0
    many: bool = False


@dataclass(frozen=True)
class Field:
    """One field of an entry.

    Attributes:
        columns: those of the entry's row that hold it; none, where other tables do.
        name: by which callers give it.
        default: what it is where nothing is said.
        check: makes of a value what its one column holds; None for what is only understood
            together with other fields, see `beatstore.definition.edits`.
        left_out: what is stored that a baseline and a document leave out; by default what
            `check` makes of the default.
        group: a sync merges the fields of a group as one. "" for a field by itself, None for
            one that is not merged.
        effect: what an edit of it changes for a beat.
        form: how a document holds it.
        one_shot: whether `Store.schedule` takes it.
        option: of the command line; None, where each verb has its own.
    """

    columns: tuple[str, ...] = ()
    _: KW_ONLY
    name: str = ""
    default: Any = _NOTHING
    check: Check | None = None
    left_out: Any = _NOTHING
    group: str | None = ""
    effect: Effect | None = None
    form: Form = "plain"
    one_shot: bool = False
    option: Option | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The names under which what is stored is compared: its columns, or its own name."""
        return self.columns or (self.name,)

    @property
    def has_default(self) -> bool:
        """Whether it may be left out by a caller."""
        return self.default is not _NOTHING

    @property
    def is_ever_left_out(self) -> bool:
        """Whether a value can be left out of a baseline and of a document."""
        return self.left_out is not _NOTHING


P = ParamSpec("P")

#: Under which the metadata of a dataclass's field holds ours.
_KEY = "beatstore"


def _metadata(make: Callable[P, Field]) -> Callable[P, Mapping[str, Field]]:
    """Return a function with the arguments of `Field`, for `metadata` of a dataclass's field."""

    def made(*args: P.args, **kwargs: P.kwargs) -> Mapping[str, Field]:
        return {_KEY: make(*args, **kwargs)}

    return made


stored = _metadata(Field)


def fields_of(spec: type[Any]) -> Iterator[Field]:
    """Yield what is known of the fields of a dataclass, with their names and defaults."""
    for one in fields(spec):
        if _KEY in one.metadata:
            made: Field = replace(one.metadata[_KEY], name=one.name)
            if one.default is not MISSING:
                made = replace(made, default=one.default)
                if made.check is not None and not made.is_ever_left_out:
                    made = replace(made, left_out=made.check(one.name, one.default))
            yield made
