"""Every field of an entry goes every way in and out, and is the same at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime
from typing import Any

import pytest

from beatstore import Declared, Entry, Store
from beatstore.cli import entry_view
from beatstore.database.models import EntryModel
from beatstore.definition.metadata import Field
from beatstore.definition.spec import COLUMNS, FIELDS
from tests.support.command import Command
from tests.support.entry_values import FAR, VALUES
from tests.support.written import write

#: What an entry is made with that has nothing else.
PLAIN: dict[str, Any] = {"task": "t", "schedule": "0 2 * * *"}

every_field = pytest.mark.parametrize("field", FIELDS.values(), ids=list(FIELDS))


@pytest.fixture
def store(migrated_url: str) -> Iterator[Store]:
    """Return a store with an entry that others can wait for."""
    store = Store(migrated_url)
    store.add("up", "t.up", "@daily")
    yield store
    store.close()


def document(store: Store, name: str) -> dict[str, Any]:
    """Return the document of an entry."""
    (found,) = (one for one in store.export(name=name) if "beatstore" not in one)
    return found


def said(store: Store, name: str) -> dict[str, Any]:
    """Return what somebody said of an entry: its document, but for its name and its fate."""
    beside = ("name", "progress", "declared", "error")
    return {key: value for key, value in document(store, name).items() if key not in beside}


def arguments(field: Field) -> list[str]:
    """Return what is typed for the value of a field, after `add NAME`."""
    given = {**PLAIN, field.name: VALUES[field.name]}
    typed = [given.pop("task"), given.pop("schedule")]
    if field.name == "paused":
        return [*typed, "--paused"]
    option = field.option.name if field.option and field.option.name else field.name
    for value in given.values():
        many = field.option is not None and field.option.many
        for one in value if many else [value]:
            typed += [f"--{option.replace('_', '-')}", text(one)]
    return typed


def text(value: Any) -> str:
    """Return how a value is typed."""
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def test_there_is_a_value_of_every_field() -> None:
    """No field is left out below."""
    assert VALUES.keys() == FIELDS.keys()
    for name, field in FIELDS.items():
        assert name == "schedule" or VALUES[name] != field.default


@every_field
def test_it_is_stored_the_same_by_every_way(store: Store, call: Command, field: Field) -> None:
    """By `add`, `put`, `change` and the command line, the same is stored, and nothing else."""
    given = {**PLAIN, field.name: VALUES[field.name]}
    store.add("added", **given)
    store.add("put", **PLAIN)
    store.put("put", **given)
    store.add("changed", **PLAIN)
    store.change("changed", **{field.name: VALUES[field.name]})
    typed = call("add", "typed", *arguments(field))
    assert typed.code == 0, typed.err
    store.add("plain", **PLAIN)
    wanted = said(store, "added")
    assert said(store, "plain") != wanted
    for name in ("put", "changed", "typed"):
        assert said(store, name) == wanted
    entry = store.get("added")
    if field.check is not None and field.columns:
        (column,) = field.columns
        assert getattr(entry, column) == field.check(field.name, VALUES[field.name])


@pytest.mark.any_database
@every_field
def test_it_is_exported_and_loaded(store: Store, field: Field) -> None:
    """A document brings it back, to a new entry and to one that had another value."""
    store.add("it", **{**PLAIN, field.name: VALUES[field.name]})
    made, wanted = document(store, "it"), said(store, "it")
    assert store.load([made]).unchanged == 1
    store.remove("it")
    assert store.load([made]).created == 1
    assert said(store, "it") == wanted
    store.remove("it")
    store.add("it", **PLAIN)
    assert store.load([made], keep_going=True).refused
    assert store.load([made], replace=True).replaced == 1
    assert said(store, "it") == wanted


@pytest.mark.any_database
@every_field
def test_it_is_synced_and_an_edit_is_kept(store: Store, field: Field) -> None:
    """Code brings it in and follows it, and what a user makes of it stays."""
    given = {**PLAIN, field.name: VALUES[field.name]}
    source = given.pop("source", "code")
    store.add("added", **given)
    wanted = {**said(store, "added"), "source": source}
    store.sync([Declared("it", **PLAIN)], source=source)
    report = store.sync([Declared("it", **given)], source=source)
    assert report.updated == (() if field.name == "source" else ("it",))
    assert said(store, "it") == wanted
    assert store.get("it").edited == ()
    if field.group is None:
        return
    store.change("it", **{field.name: PLAIN.get(field.name, field.default)})
    edited = said(store, "it")
    assert edited != wanted
    assert store.get("it").edited == (field.name,)
    report = store.sync([Declared("it", **given)], source=source)
    assert (report.unchanged, report.kept) == (("it",), {"it": (field.name,)})
    assert said(store, "it") == edited


@pytest.mark.any_database
@every_field
def test_it_is_shown(store: Store, call: Command, field: Field) -> None:
    """`show --json` has what is stored."""
    store.add("it", **{**PLAIN, field.name: VALUES[field.name]})
    entry, shown = store.get("it"), call("show", "it", "--json").json
    for column in field.columns:
        value = getattr(entry, column)
        assert shown[column] == (value.isoformat() if isinstance(value, datetime) else value)
    if not field.columns:
        assert {"tags": shown["tags"], "after": [one["name"] for one in shown["after"]]}.get(
            field.name, shown["state"] == "paused"
        ) == VALUES[field.name]


@pytest.mark.parametrize("name", [one.name for one in FIELDS.values() if one.one_shot])
def test_a_one_shot_has_it(store: Store, name: str) -> None:
    """What one-shots have too is stored as `add` stores it."""
    store.add("added", "t", FAR, **{name: VALUES[name]})
    store.schedule("t", at=FAR, name="sent", **{name: VALUES[name]})
    assert said(store, "sent") == said(store, "added")


def test_a_row_of_plain_sql_has_the_defaults(store: Store) -> None:
    """The database fills in what a row does not say, and it is what a document leaves out."""
    write(store, EntryModel, {"name": "it", "task": "t", "kind": "every", "spec": "60"})
    assert said(store, "it").keys() == {"task", "schedule"}
    assert set(COLUMNS) <= {one.name for one in fields(Entry)}


def test_a_field_without_words_of_its_own_has_a_line(
    store: Store, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`show` tells of a field that nobody wrote a sentence for, where it is not the default."""
    words = entry_view._IN_WORDS - {"retry_backoff"}
    monkeypatch.setattr(entry_view, "_IN_WORDS", words)
    store.add("a", "t", "@daily", retry_backoff=2.5)
    assert "retry backoff: 2.5" in [" ".join(line.split()) for line in call("show", "a").lines]
