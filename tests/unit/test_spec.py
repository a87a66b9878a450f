"""The fields of an entry stand once, and what type checkers are told of them agrees."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

from beatstore import types
from beatstore.definition.spec import COLUMNS, DEFAULTS, FIELDS, Declared, EntrySpec

#: What stored baselines and exported documents leave out. It is never another for a column that
#: was released, whatever becomes of the field's default.
LEFT_OUT: dict[str, Any] = {
    **{"args": [], "kwargs": {}, "options": {}, "start_at": None, "end_at": None},
    **{"max_runs": None, "jitter_s": 0.0, "misfire": None, "grace_s": None},
    **{"overlap": "allow", "run_timeout_s": None, "max_retries": 0, "retry_delay_s": 300.0},
    **{"retry_backoff": 1.0, "retry_jitter_s": 0.0, "tags": [], "description": None, "after": []},
    **{"source": "api"},
}


def typed(options: Any) -> dict[str, str]:
    """Return the options of a TypedDict, with their types as text."""
    return {name: hint.__forward_arg__ for name, hint in options.__annotations__.items()}


def test_the_types_of_the_options_are_those_of_the_fields() -> None:
    """Whoever takes options takes the fields, and of the types that the fields have."""
    hints = {one.name: str(one.type) for one in fields(EntrySpec)}
    options = {name: hints[name] for name in FIELDS.keys() - {"task", "schedule"}}
    declared = {name: hint for name, hint in options.items() if name != "source"}
    assert typed(types.ScheduledOptions) == declared
    edges = {"after": "Upstreams"}  # only in code that declares does a task stand for its entry
    assert typed(types.EntryOptions) == options | edges
    assert typed(types.OneShotOptions) == edges | {
        name: options[name] for name, one in FIELDS.items() if one.one_shot and name != "after"
    }
    named = {name: hints[name] for name in ("task", "schedule")} | {"new_name": "str"}
    assert typed(types.ChangeOptions) == options | edges | named


def test_the_documentation_is_in_the_order_of_the_fields() -> None:
    """Each option is documented once, in the order in which the fields stand."""
    said = inspect.getdoc(types.EntryOptions) or ""  # Python 3.13 takes the indentation away
    documented = re.findall(r"^ {4}(\w+): ", said, re.MULTILINE)
    told = [name for name in FIELDS if name not in {"task", "schedule", "source", "paused"}]
    assert documented == [*told, "source", "paused"]
    assert DEFAULTS.keys() == {*documented}


def test_what_is_left_out_never_changes() -> None:
    """A baseline or a document that was written once is read the same by every version."""
    found = {key: one.left_out for one in FIELDS.values() for key in one.keys if one.form != "own"}
    found |= {name: FIELDS[name].left_out for name in ("tags", "after")}
    assert {key: value for key, value in found.items() if key != "task"} == LEFT_OUT
    for key, value in LEFT_OUT.items():
        assert type(found[key]) is type(value)


def test_every_column_holds_one_field() -> None:
    """No two fields are stored in the same place, and what is understood by itself has one."""
    assert len(COLUMNS) == len({*COLUMNS})
    for name, one in FIELDS.items():
        assert len(one.columns) <= 1 or (one.check is None and one.form == "own"), name
        assert one.columns or (one.check is not None and one.form == "own"), name


def test_a_declaration_says_all_but_the_owner() -> None:
    """Code declares what `add` takes, and its source is known by where it stands."""
    assert FIELDS.keys() - {"source"} == {one.name for one in fields(Declared)} - {"name"}


def test_the_rule_is_not_imported_with_the_definition() -> None:
    """`import beatstore`, which each celery command does, leaves out what only beat decides by."""
    code = "import sys, beatstore; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rules = {name for name in done.stdout.split() if name.startswith("beatstore.rules.")}
    assert rules == {"beatstore.rules.graph", "beatstore.rules.outcomes"}
