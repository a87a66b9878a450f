"""The rules of the house, read off the source: who may import what, and how long a file is."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from beatstore.rules.states import ENTRY_STATES, RUN_STATES

ROOT = Path(__file__).parents[2]

# A file imports its own room, the rooms below its floor, those before its own on that floor,
# the standard library, and what stands in PACKAGES.
FLOORS = {
    0: "errors clock version words headers outage",
    1: "schedules",
    2: "types config rules text",
    3: "definition records",
    4: "database models alembic",
    5: "tick appconf",
    6: "store",
    7: "wiring discovery worker testing",
    8: "beat moving",
    9: "web cli __init__",
}
ORDER = [room for rooms in FLOORS.values() for room in rooms.split()]
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}
PACKAGES = {
    1: {"croniter", "dateutil", "ephem", "tzdata"},
    2: {"dateutil"},
    4: {"sqlalchemy", "alembic"},
    5: {"sqlalchemy"},
    6: {"sqlalchemy"},
    7: {"billiard", "celery", "kombu"},
    8: {"celery", "kombu"},
}
EDGE = 9
# What takes no clock and no log, and asks no database: it is given what it needs.
PURE = range(1, 4)
# What a type checker brings along.
TYPES_ONLY = {"typing_extensions"}
# A column holds a value as kombu's JSON writes it.
FORMATS = {"beatstore/definition/values.py": {"kombu"}}
# Only these run SQL.
SQL_ROOMS = {"store", "tick", "database"}
SQL_NAMES = {"Session", "sessionmaker", "create_engine"}
# What is executed here is a pipeline of Redis.
NO_SQL = {"beatstore/beat/ladder/push.py": {"pipe.execute"}}
SQL_CALLS = {"execute", "exec_driver_sql", "scalar", "scalars", "executemany"}
# Only these ask which database it is, and here its driver.
DIALECTS = ROOT / "beatstore" / "database" / "dialects"
DRIVERS = {"beatstore/database/drivers.py", "beatstore/database/address.py"}
DATABASES = re.compile(r"(sqlite|postgresql|mysql|mariadb)([+:]\w*)?")
QUESTIONS = {"get_backend_name", "is_mariadb"}
CLASSES = {"SQLite", "PostgreSQL", "MySQL", "MariaDB"}
# Calls that are given the name of a database all the same. SQLAlchemy takes it for the variants
# of a type, and for what compiles an element; and the settings, below the floor of databases,
# make the path of an SQLite file absolute.
NAMING = {
    "beatstore/database/columns.py": {"with_variant"},
    "beatstore/database/migration_types.py": {"with_variant", "compiles"},
    "beatstore/config.py": {"startswith"},
}
# What the tokenizer sees between the lines of code.
LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
CLOCKS = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time")
# Errors that never leave their module as themselves, so that nobody could import them.
OWN_ERRORS = {
    "_TooDeepError",  # an InvalidEntryError that SQLAlchemy must not wrap, by a base of its own
    "_TooManyLevelsError",
    "_UnknownValueError",
    "_OtherFormatError",
    "_Undone",
    "_LeftOutError",
}
LONGEST = 450
# The firing path, from a due row to a marked run, is read in an hour.
ARCHITECTURE = ROOT / "docs" / "architecture.md"
MOST_FILES_OF_PATH = 16
MOST_LINES_OF_PATH = 2500

FILES = sorted((ROOT / "beatstore").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
# What is released is never edited, so these stand on nothing that may change.
FROZEN = ROOT / "beatstore" / "database" / "migration_types.py"
REVISIONS = [FROZEN, *sorted((ROOT / "migrations" / "versions").glob("*.py"))]


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def room(path: Path) -> str:
    return path.relative_to(ROOT / "beatstore").parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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
def test_files_keep_to_their_floor(path: Path) -> None:
    """A file imports only what lies below it, and only some rooms execute SQL."""
    here = room(path)
    assert here in FLOOR, f"{here} has no floor: give it one in FLOORS"
    floor, tree = FLOOR[here], ast.parse(path.read_text())
    pure = floor in PURE
    formats = FORMATS.get(path.relative_to(ROOT).as_posix(), set())
    guarded = {module for block in type_checking(tree) for module, _ in imports(block)}
    for module, taken in imports(tree):
        top, _, rest = module.partition(".")
        if top == "beatstore":
            other = rest.partition(".")[0] or "__init__"
            below = ORDER.index(other) <= ORDER.index(here)
            assert below, f"{here} (floor {floor}) imports {module}, which is above it"
        elif module in TYPES_ONLY & guarded:
            continue  # nothing is imported when the program runs
        elif top not in sys.stdlib_module_names:
            known = floor == EDGE or top in PACKAGES.get(floor, set()) | formats
            assert known, f"{here} (floor {floor}) imports {module}"
        assert not pure or top != "logging", f"{here} is pure, and imports logging"
        if top == "sqlalchemy":
            assert here in SQL_ROOMS or not taken & SQL_NAMES, f"{here} imports {taken}"
    for call in calls(tree):
        assert not pure or not call.endswith(CLOCKS), f"{here} is pure, and calls {call}"
        if call not in NO_SQL.get(path.relative_to(ROOT).as_posix(), ()):
            assert here in SQL_ROOMS or call.rpartition(".")[2] not in SQL_CALLS, f"{here}: {call}"


def test_there_is_one_tick() -> None:
    """Only `Tick` claims and marks: whatever ticks drives it, and repeats none of its steps."""
    steps = ("queue.plan", "queue.sweep", "queue.mark", "queue.end")
    ticks = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if any(call.endswith(steps) for call in calls(ast.parse(path.read_text())))
    }
    assert ticks == {"beatstore/tick/tick.py"}


def sets_of_states(tree: ast.AST) -> Iterator[str]:
    """Yield the collections that name two states or more, and nothing else."""
    words = {*ENTRY_STATES, *RUN_STATES}
    types = {id(node.slice) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set) and id(node) not in types:
            named = [one.value for one in node.elts if isinstance(one, ast.Constant)]
            if len(named) == len(node.elts) > 1 and words.issuperset(named):
                yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_sets_of_states_stand_in_one_place(path: Path) -> None:
    """A set of states has a name in `rules.states`, and is written nowhere else."""
    if path.relative_to(ROOT).as_posix() in ("beatstore/types.py", "beatstore/rules/states.py"):
        return  # the words themselves, and their sets
    found = list(sets_of_states(ast.parse(path.read_text())))
    assert not found, f"{found}: use a set of beatstore.rules.states, or add one there"


def errors_in(tree: ast.AST) -> Iterator[str]:
    """Yield the classes that can be raised, by the names of their bases."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            if any(base.endswith(("Error", "Exception", "Warning")) for base in bases):
                yield node.name


def test_errors_stand_in_one_place() -> None:
    """Every error class is in errors.py, but for those that one module raises and catches."""
    elsewhere = {
        name: path.relative_to(ROOT).as_posix()
        for path in FILES
        for name in errors_in(ast.parse(path.read_text()))
        if path != ROOT / "beatstore" / "errors.py"
    }
    assert elsewhere.keys() == OWN_ERRORS, elsewhere
    for name, home in elsewhere.items():
        users = [path for path in FILES if name in path.read_text()]
        assert names(users) == [home], f"{name} leaves its module: put it into errors.py"


def test_no_modules_import_each_other_in_a_cycle() -> None:
    """Each module can be read after those that it imports."""
    modules = {module_of(path): path for path in FILES}
    imported: dict[str, set[str]] = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        later = {id(node) for block in type_checking(tree) for node in ast.walk(block)}
        found: set[str] = set()
        for node in tree.body:
            if id(node) not in later:
                for name, taken in imports(node):
                    inner = {f"{name}.{one}" for one in taken} & modules.keys()
                    found |= inner or ({name} & modules.keys())
        imported[module] = found - {module}
    TopologicalSorter(imported).prepare()  # raises CycleError, which names the modules


def asks_which(node: ast.AST, of_dialect: set[str]) -> bool:
    """Say whether this asks which database, or by these attributes of a dialect which driver."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and bool(DATABASES.fullmatch(node.value))
    if isinstance(node, ast.Attribute):
        asked = ast.unparse(node.value).endswith(("dialect", "dialect()"))
        return node.attr in QUESTIONS or (asked and node.attr in of_dialect)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
        return any(isinstance(name, ast.Name) and name.id in CLASSES for name in ast.walk(node))
    return False


def questions(tree: ast.AST, naming: set[str], of_dialect: set[str]) -> Iterator[str]:
    """Yield what asks which database it is, apart from arguments of the calls in `naming`."""
    told: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in naming:
            told |= {id(argument) for argument in node.args}
    for node in ast.walk(tree):
        if id(node) not in told and asks_which(node, of_dialect):
            yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_only_dialects_tell_databases_apart(path: Path) -> None:
    """No module branches on the name of a database but those of `database/dialects/`."""
    if DIALECTS in path.parents:
        return
    here, tree = path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())
    of_dialect = {"name"} if here in DRIVERS else {"name", "driver"}
    asked = list(questions(tree, NAMING.get(here, set()), of_dialect))
    assert not asked, "ask an object of beatstore.database.dialects: see DatabaseDialect"
    of_sqlalchemy = {module for module, _ in imports(tree)} & {"sqlalchemy.dialects"}
    assert not of_sqlalchemy or here in NAMING


@pytest.mark.parametrize(
    "line",
    [
        'if connection.dialect.name == "sqlite": pass',
        "name = engine.dialect.name",
        "name = url.get_dialect().name",
        "name = url.get_backend_name()",
        'if name in ("mysql", "mariadb"): pass',
        'do = {"postgresql": 1}[name]',
        'if url.startswith("postgresql+psycopg"): pass',
        "if dialect.is_mariadb: pass",
        "if isinstance(kind, MySQL): pass",
        '@compiles(now, "sqlite")\ndef now(): pass',
        'if engine.dialect.driver == "psycopg": pass',
    ],
)
def test_a_branch_on_a_database_is_found(line: str) -> None:
    """The check is not blind: each way of asking for a database's name is one that it knows."""
    assert list(questions(ast.parse(line), {"with_variant"}, {"name", "driver"}))
    variant = ast.parse('Integer().with_variant(x, "sqlite")')
    assert not list(questions(variant, {"with_variant"}, {"name", "driver"}))


@pytest.mark.parametrize("path", REVISIONS, ids=names(REVISIONS))
def test_revisions_stand_on_frozen_types(path: Path) -> None:
    """A revision imports nothing of beatstore but the migrations' own types, and they nothing."""
    found = {module for module, _ in imports(ast.parse(path.read_text()))}
    ours = {module for module in found if module.partition(".")[0] == "beatstore"}
    assert ours <= ({module_of(FROZEN)} if path != FROZEN else set())


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_files_stay_short(path: Path) -> None:
    """A file can be read in one go."""
    assert len(path.read_text().splitlines()) <= LONGEST


def lines_of_code(source: str) -> int:
    """Count the lines of a file that are not blank, a comment or a docstring."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            left_out |= set(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    layout = {*LAYOUT, tokenize.COMMENT}
    counted: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            counted |= set(range(token.start[0], token.end[0] + 1))
    return len(counted - left_out)


def test_lines_of_code_are_counted() -> None:
    """Each line with code counts, those of a long string too; what explains it does not."""
    source = '''"""A module."""

# A comment.
NAME = """one
two"""


def call(
    one,  # named
):
    """Say what.

    And more.
    """
    return one
'''
    assert lines_of_code(source) == 6


def test_the_firing_path_stays_readable() -> None:
    """The files that docs/architecture.md names, from a due row to a marked run, are few."""
    page = ARCHITECTURE.read_text().partition("## The firing path")[2]
    path = re.findall(r"^\d+\. \[.*?\]\(\.\./(beatstore/\S+\.py)\)", page, re.MULTILINE)
    lines = {name: lines_of_code((ROOT / name).read_text()) for name in path}
    assert 10 <= len(lines) <= MOST_FILES_OF_PATH
    assert sum(lines.values()) <= MOST_LINES_OF_PATH, f"simplify one of {lines}"


def test_files_of_tests_stay_short() -> None:
    """A file of tests, or of what they share, can be read in one go too."""
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in (ROOT / "tests").rglob("*.py")
    }
    longer = {path: count for path, count in lines.items() if count > LONGEST}
    assert not longer, f"split them by topic: {longer}"


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


def test_browser_tests_wait_for_what_they_read() -> None:
    """A click returns before the next page is there; `expect` waits for it, `assert` does not."""
    read = re.compile(r"assert .*\.(count|is_visible|inner_text|input_value)\(\)")
    found = [
        f"{path.name}: {line.strip()}"
        for path in (ROOT / "tests/e2e/web").glob("*.py")
        for line in path.read_text().splitlines()
        if read.search(line)
    ]
    assert not found, f"write expect(...).to_have_...: {found}"
