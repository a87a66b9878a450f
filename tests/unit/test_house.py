"""The rules of the house, read off the source: who may import what, and how long a file is."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A file imports its own level, those before it, the standard library and what stands here.
ROOMS = {
    0: "errors clock version words",
    1: "schedules rules drawing config types",
    2: "alembic database definition",
    3: "tick store appconf",
    4: "batches beatschedule canvas confirms convert discovery held housekeeping inquiry marks "
    "moving outage outcomes peers publishing pulse reporter sender ticking tracking worker task "
    "eta retrying scheduler wiring",
    5: "cli testing __init__",
}
LEVEL = {room: level for level, rooms in ROOMS.items() for room in rooms.split()}
PACKAGES = {
    0: set(),
    1: {"croniter", "dateutil", "ephem", "tzdata"},
    2: {"sqlalchemy", "alembic"},
    3: {"sqlalchemy", "alembic"},
    4: {"celery", "kombu"},
}
# What a type checker brings along.
TYPES_ONLY = {"typing_extensions"}
# A column holds a value as kombu's JSON writes it.
FORMATS = {"beatstore/definition/values.py": {"kombu"}}
# Only these run SQL.
SQL_ROOMS = {"store", "tick", "database"}
SQL_NAMES = {"Session", "sessionmaker", "create_engine"}
SQL_CALLS = {"execute", "exec_driver_sql", "scalar", "scalars", "executemany"}
# Level 1 is given the time, and says nothing while it thinks.
CLOCKS = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time")
LONGEST = 450

FILES = sorted((ROOT / "beatstore").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def room(path: Path) -> str:
    return path.relative_to(ROOT / "beatstore").parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """Yield each imported module, and the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, set()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write the whole path, not a relative one"
            taken = {alias.name for alias in node.names}
            yield from (
                [(f"beatstore.{name}", set()) for name in taken]
                if node.module == "beatstore"
                else [(node.module or "", taken)]
            )


def type_checking(tree: ast.AST) -> Iterator[ast.If]:
    """Yield the blocks that only a type checker reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield node


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_files_keep_to_their_level(path: Path) -> None:
    """A file imports only what its level may, and only the store executes SQL."""
    here = room(path)
    assert here in LEVEL, f"{here} has no level: give it one in ROOMS"
    level, tree = LEVEL[here], ast.parse(path.read_text())
    formats = FORMATS.get(path.relative_to(ROOT).as_posix(), set())
    guarded = {module for block in type_checking(tree) for module, _ in imports(block)}
    for module, taken in imports(tree):
        top, _, rest = module.partition(".")
        if top == "beatstore":
            other = rest.partition(".")[0] or "__init__"
            assert LEVEL.get(other, 5) <= level, f"{here} (level {level}) imports {module}"
        elif module in TYPES_ONLY & guarded:
            continue  # nothing is imported when the program runs
        elif top not in sys.stdlib_module_names:
            known = level == 5 or top in PACKAGES[level] | formats
            assert known, f"{here} (level {level}) imports {module}"
        assert level != 1 or top != "logging", f"{here} is pure, and imports logging"
        if top == "sqlalchemy":
            assert here in SQL_ROOMS or not taken & SQL_NAMES, f"{here} imports {taken}"
    for call in calls(tree):
        assert level != 1 or not call.endswith(CLOCKS), f"{here} is pure, and calls {call}"
        assert here in SQL_ROOMS or call.rpartition(".")[2] not in SQL_CALLS, f"{here}: {call}"


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_files_stay_short(path: Path) -> None:
    """A file can be read in one go."""
    assert len(path.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("path", TESTS, ids=names(TESTS))
def test_tests_say_what_they_promise(path: Path) -> None:
    """Every test has a docstring: the promise it holds."""
    silent = [
        f"{node.name} (line {node.lineno})"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent
