"""The metadata of an entry's field, attached to a dataclass field.

    retry_delay: Duration = field(
        default=300, metadata=stored(("retry_delay_s",), check=fields.seconds, one_shot=True)
    )

It is plain data and checks; the command line interprets `Option`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields, replace
from typing import Any, Literal, ParamSpec

__all__ = ["Check", "Effect", "Field", "Form", "Option", "fields_of", "stored"]

#: Takes a field's name and a caller's value, and returns the column's value or raises.
Check = Callable[[str, Any], Any]

#: What an edit of a field changes: the message, the due times, the number of runs or their end,
#: or the policy for due occurrences.
Effect = Literal["call", "due", "limit", "policy"]

#: The form of a field in a document: JSON, the text of an instant, JSON that encodes values of
#: other types, or a form of its own.
Form = Literal["plain", "instant", "values", "own"]

#: Marks a missing value where None is a value.
_NOTHING: Any = object()


@dataclass(frozen=True)
class Option:
    """An option of the command line, as plain data.

    Attributes:
        kind: the type of its value.
        help: its line of help.
        name: its name without dashes, if it is not that of the field.
        choices: the accepted words.
        least: the smallest accepted number.
        many: whether it may be repeated.
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
        columns: its columns in the entry's row; empty if it is in other tables.
        name: its name for callers.
        default: its default.
        check: converts a value for its column; None for fields that are checked together with
            others, see `beatstore.definition.edits`.
        left_out: the stored value that baselines and documents omit; by default, the checked
            default.
        group: a sync merges the fields of a group as one. "": the field is its own group;
            None: it is not merged.
        effect: what an edit of it changes.
        form: its form in a document.
        one_shot: whether `Store.schedule` takes it.
        option: its option of the command line; None if each verb has its own.
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
        """The keys under which stored values are compared: its columns, or its own name."""
        return self.columns or (self.name,)

    @property
    def has_default(self) -> bool:
        """Whether a caller may omit it."""
        return self.default is not _NOTHING

    @property
    def is_ever_left_out(self) -> bool:
        """Whether baselines and documents may omit it."""
        return self.left_out is not _NOTHING


P = ParamSpec("P")

#: The key of a `Field` in the metadata of a dataclass field.
_KEY = "beatstore"


def _metadata(make: Callable[P, Field]) -> Callable[P, Mapping[str, Field]]:
    """Return a function that makes the `metadata=` of a dataclass field."""

    def made(*args: P.args, **kwargs: P.kwargs) -> Mapping[str, Field]:
        return {_KEY: make(*args, **kwargs)}

    return made


stored = _metadata(Field)


def fields_of(spec: type[Any]) -> Iterator[Field]:
    """Yield the `Field`s of a dataclass, with their names and defaults."""
    for one in fields(spec):
        if _KEY in one.metadata:
            made: Field = replace(one.metadata[_KEY], name=one.name)
            if one.default is not MISSING:
                made = replace(made, default=one.default)
                if made.check is not None and not made.is_ever_left_out:
                    made = replace(made, left_out=made.check(one.name, one.default))
            yield made
