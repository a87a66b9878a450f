"""docs/api.md, made of signatures and docstrings: `make docs` writes it.

griffe reads the sources and takes the docstrings apart; nothing of beatstore is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import griffe

__all__ = ["PAGE", "made"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "api.md"

_INTRODUCTION = """\
# The Python API

Every public name of beatstore, with its signature and documentation. `make docs` writes this page
from the docstrings; `help(beatstore.Store.add)` shows the same. How to use what is listed here is
in the [other pages](README.md).

Everything is typed: a misspelt policy, an unknown option, a number as a task or an `AsyncSession`
is an error in your editor. Install `celery-types` too, or pyright takes your tasks for plain
functions. For functions of your own, `beatstore.types` has the words and the options:
`def nightly(name: str, **options: Unpack[EntryOptions])`.
"""

#: The modules beside `beatstore` whose names are public.
_MODULES = {
    "types": "`beatstore.types`: the options and words that the API takes",
    "models": "`beatstore.models`: the tables as mapped classes",
    "testing": "`beatstore.testing`: virtual time for your tests",
    "alembic": "`beatstore.alembic`: for your own migrations",
    "moving": "`beatstore.moving`: moving over from other schedulers",
    "web": "`beatstore.web`: the dashboard",
    "web.flask": "`beatstore.web.flask`: the dashboard in Flask",
    "web.django": "`beatstore.web.django`: the dashboard in Django",
}

#: What Celery calls, and nobody else; "*" is every method of a class.
_CALLED_BY_CELERY = {"DBScheduler.*", "Task.before_start", "Task.on_bound"}

#: A class with more members begins with a list of them.
_MANY = 4

#: A signature that is longer has a line for each parameter.
_WIDTH = 88


def made() -> str:
    """Return the page as the sources say it."""
    package: Any = griffe.load(
        "beatstore",
        search_paths=[ROOT],
        docstring_parser="google",
        docstring_options={"warnings": False, "returns_multiple_items": False},
    )
    names = sorted(name for name in package.exports or () if not name.startswith("__"))
    groups: dict[str, list[tuple[str, Any]]] = {}
    for name in names:
        found = _final(package[name])
        groups.setdefault(_group(name, found), []).append((name, found))
    ordered = sorted(groups.items(), key=lambda group: _TITLES.index(group[0]))
    known = {found.canonical_path for _, members in ordered for _, found in members}
    for module, title in _MODULES.items():
        there = ((name, _final(package[module][name])) for name in package[module].exports or ())
        members = [(f"{module}.{name}", found) for name, found in sorted(there, key=itemgetter(0))]
        ordered.append((title, [one for one in members if one[1].canonical_path not in known]))
    contents = [
        f"- **{title}**: {_linked(name for name, _ in members)}" for title, members in ordered
    ]
    parts = [_INTRODUCTION, "\n".join(contents) + "\n"]
    for title, members in ordered:
        parts.append(f"## {title}\n")
        for name, found in members:
            parts += _object(name, found)
    return "\n".join(parts)


_TITLES = ["The store", "Values", "Schedules", "In Celery", "Errors"]


def _group(name: str, found: Any) -> str:
    room = found.canonical_path.split(".")[1]
    if name == "Store":
        return "The store"
    if room in ("beat", "worker", "discovery"):
        return "In Celery"
    return {"errors": "Errors", "schedules": "Schedules"}.get(room, "Values")


def _linked(names: Iterable[str]) -> str:
    """Return links to headings, as GitHub names their anchors."""
    return ", ".join(
        f"[`{name.rpartition('.')[2]}`](#{name.lower().replace('.', '')})" for name in names
    )


def _final(found: Any) -> Any:
    return found.final_target if found.is_alias else found


def _object(name: str, found: Any) -> Iterator[str]:
    """Yield the paragraphs of a class, a function or a type."""
    yield f"### {name}\n"
    if found.is_attribute:
        yield f"```python\n{found.name} = {found.value}\n```\n"
        return
    if found.is_function or (found.is_class and _is_made_by_users(found)):
        yield _signature(name.rpartition(".")[2], found)
    yield from _docstring(found)
    if found.is_class and f"{name}.*" not in _CALLED_BY_CELERY:
        yield from _members(name, found)


def _is_made_by_users(found: Any) -> bool:
    """Say whether a class takes arguments; a table's columns have a page of their own."""
    return len(found.parameters) > 1 and not _has_base(found, "BeatstoreError")


def _has_base(found: Any, name: str) -> bool:
    return found.name == name or any(base.name == name for base in found.mro())


def _members(name: str, found: Any) -> Iterator[str]:
    """Yield the public methods and properties, those of its bases included."""
    if _has_base(found, "Base") and found.canonical_path.startswith("beatstore.database"):
        yield "Its columns are in [The tables](tables.md).\n"
        return
    members = [
        one
        for one in map(_final, found.all_members.values())
        if _is_told(one) and f"{name}.{one.name}" not in _CALLED_BY_CELERY
    ]
    if len(members) > _MANY:
        yield f"Members: {_linked(f'{name}.{one.name}' for one in members)}\n"
    for member in members:
        yield f"#### {name}.{member.name}\n"
        if member.is_function:
            yield _signature(member.name, member)
        yield from _docstring(member)


def _is_told(member: Any) -> bool:
    is_callable = member.is_function or "property" in member.labels
    return is_callable and member.docstring is not None and not member.name.startswith("_")


def _signature(name: str, found: Any) -> str:
    words = [word for word in map(_parameter, _marked(list(found.parameters))) if word]
    returns = getattr(found, "returns", None)
    end = f") -> {returns}" if returns is not None and found.is_function else ")"
    line = f"{name}({', '.join(words)}{end}"
    if len(line) > _WIDTH:
        line = "\n".join([f"{name}(", *(f"    {word}," for word in words), end])
    return f"```python\n{line}\n```\n"


def _marked(parameters: list[Any]) -> Iterator[Any]:
    """Yield parameters without `self`, and a star before those that are given by name."""
    star = False
    for one in parameters:
        if one.name in ("self", "cls"):
            continue
        star = star or one.kind is griffe.ParameterKind.var_positional
        if one.kind is griffe.ParameterKind.keyword_only and not star:
            star = True
            yield "*"
        yield one


def _parameter(one: Any) -> str:
    if isinstance(one, str):
        return one
    kinds = {
        griffe.ParameterKind.var_positional: "*",
        griffe.ParameterKind.var_keyword: "**",
    }
    stars = kinds.get(one.kind, "")
    word = f"{stars}{one.name}"
    if one.annotation is not None:
        word += f": {one.annotation}"
    if one.default is None or stars:
        return word
    return f"{word} = {one.default}" if one.annotation is not None else f"{word}={one.default}"


def _docstring(found: Any) -> Iterator[str]:
    if found.docstring is None:
        return
    for section in found.docstring.parsed:
        kind = section.kind.value
        if kind == "text":
            yield f"{section.value}\n"
        elif kind in ("parameters", "attributes"):
            yield "\n".join(f"- `{one.name}`: {_joined(one)}" for one in section.value) + "\n"
        elif kind == "returns":
            yield "\n".join(f"Returns: {_joined(one)}" for one in section.value) + "\n"
        elif kind == "raises":
            raised = [f"- `{one.annotation}`: {_joined(one)}" for one in section.value]
            yield "\n".join(["Raises:\n", *raised]) + "\n"
        elif kind == "admonition":
            yield f"{section.title}: {_joined(section.value)}\n"
        else:
            raise NotImplementedError(f"{found.path}: a docstring's section {kind!r}")


def _joined(one: Any) -> str:
    """Return a description as one paragraph, indented as the item of a list."""
    return str(one.description).strip().replace("\n", "\n  ")


if __name__ == "__main__":
    PAGE.write_text(made())
