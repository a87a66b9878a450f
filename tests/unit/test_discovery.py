"""What the modules of an app declare: which modules they are, and what is read in them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from celery import Celery, _state

from beatstore import InvalidEntryError
from beatstore.discovery import marks
from beatstore.discovery.modules import Source, declared

Write = Callable[[Mapping[str, str]], Celery]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a function that writes modules, imports the first, and returns its app."""
    state: Any = _state
    monkeypatch.setattr(state, "_on_app_finalizers", {*state._on_app_finalizers})
    monkeypatch.setattr(marks, "_SHARED", [])
    monkeypatch.setattr(marks, "_ON_FUNCTIONS", [])
    monkeypatch.syspath_prepend(str(tmp_path))
    before, current, apps = set(sys.modules), _state.get_current_app(), []

    def write(modules: Mapping[str, str]) -> Celery:
        for name, text in modules.items():
            file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(dedent(text))
        importlib.invalidate_caches()
        app: Celery = importlib.import_module(next(iter(modules))).app
        apps.append(app)
        return app

    yield write
    for app in apps:
        app.close()
    current.set_current()
    for name in set(sys.modules) - before:
        del sys.modules[name]


APP = """
    from celery import Celery
    app = Celery("proj")
"""

TASK = """
    import beatstore
    from celery import shared_task

    @beatstore.scheduled("0 9 * * *")
    @shared_task
    def task(): ...
"""

LIST = """
    from beatstore import Declared
    SCHEDULES = [Declared("NAME", "t", "0 9 * * *")]
"""


def names(found: Mapping[str, Source]) -> dict[str, list[str]]:
    """Return the names of the entries by source."""
    return {source: [one.name for one in given.entries] for source, given in found.items()}


def listed(name: str) -> str:
    """Return a module with a list of one entry."""
    return dedent(LIST).replace("NAME", name)


def test_each_way_to_a_module_counts(write: Write) -> None:
    """Modules that are imported, included or autodiscovered, those of tasks, and the app's own."""
    app = write(
        {
            "proj": dedent(APP) + listed("own") + "app.autodiscover_tasks(['pkg'])\n"
            "app.conf.imports = ['imported']\napp.conf.include = ['included']\n",
            "pkg.__init__": "",
            "pkg.tasks": listed("discovered"),
            "imported": listed("imported") + "import indirect, unrelated\n",
            "included": listed("included"),
            "indirect": dedent(TASK) + listed("indirect"),
            "unrelated": listed("unrelated"),
        }
    )
    assert names(declared(app)) == {
        "module:proj": ["own"],
        "module:pkg.tasks": ["discovered"],
        "module:imported": ["imported"],
        "module:included": ["included"],
        "module:indirect": ["indirect.task", "indirect"],
    }


def test_a_second_look_finds_the_same(write: Write) -> None:
    """Asking imports, and asking again finds neither more nor less."""
    app = write({"proj": dedent(APP) + "app.conf.imports = ['more']\n", "more": dedent(TASK)})
    first = names(declared(app))
    assert first == {"module:more": ["more.task"]}
    assert names(declared(app)) == first


def test_one_module_alone(write: Write) -> None:
    """`module=` reads one of them; with nothing in it, its source is there and empty."""
    imports = "app.conf.imports = ['one', 'two', 'none']\n"
    app = write(
        {
            "proj": dedent(APP) + imports,
            "one": listed("one"),
            "two": listed("two"),
            "none": "",
        }
    )
    assert names(declared(app, "two")) == {"module:two": ["two"]}
    assert names(declared(app, "none")) == {"module:none": []}


def test_a_module_that_is_none_of_the_app_is_refused(write: Write) -> None:
    """It would be deactivated by the next sync of everything; the error says what to write."""
    app = write({"proj": APP, "stray": listed("stray")})
    importlib.import_module("stray")
    with pytest.raises(InvalidEntryError, match=r"imports = \['stray'\]"):
        declared(app, "stray")


def test_a_module_that_can_not_be_imported_is_an_error(write: Write) -> None:
    """As for a worker: half of the code must not be taken for all of it."""
    app = write({"proj": dedent(APP) + "app.conf.imports = ['broken']\n", "broken": "1 / 0"})
    with pytest.raises(ZeroDivisionError):
        declared(app)


def test_a_list_belongs_to_one_module(write: Write) -> None:
    """A list that another module imports, or names as its own too, is declared once."""
    app = write(
        {
            "proj": dedent(APP) + "app.conf.imports = ['a_user', 'b_home']\n",
            "a_user": "from b_home import SCHEDULES\n",
            "b_home": listed("x"),
        }
    )
    assert names(declared(app)) == {"module:a_user": ["x"]}


def test_a_list_belongs_to_the_module_that_is_asked_for(write: Write) -> None:
    """So nothing of it is deactivated because another module has begun to import it."""
    app = write(
        {
            "proj": dedent(APP) + "app.conf.imports = ['a_user', 'b_home', 'c_other']\n",
            "a_user": "from b_home import SCHEDULES\n",
            "b_home": listed("x"),
            "c_other": listed("y"),
        }
    )
    for module, entries in {"a_user": ["x"], "b_home": ["x"], "c_other": ["y"]}.items():
        assert names(declared(app, module)) == {f"module:{module}": entries}


@pytest.mark.parametrize("given", ["{}", "[]", "'x'", "['x', 1]", "None"])
def test_another_thing_of_that_name_is_left_alone(write: Write, given: str) -> None:
    """A project may have had its own `SCHEDULES` before; it is none of ours."""
    app = write({"proj": dedent(APP) + f"SCHEDULES = {given}\n"})
    assert declared(app) == {}


def test_what_is_no_entry_in_a_list_is_refused_alone(write: Write) -> None:
    """In a list of entries, anything else is a mistake; it is reported by its place."""
    app = write({"proj": dedent(APP) + listed("good") + "SCHEDULES += [('bad', 't', 30)]\n"})
    source = declared(app)["module:proj"]
    assert [one.name for one in source.entries] == ["good"]
    assert source.refused.keys() == {"SCHEDULES[1]"}
    assert "expected a Declared" in source.refused["SCHEDULES[1]"]


def test_tasks_in_a_list_are_named(write: Write) -> None:
    """A list may hold tasks, and wait for tasks, by the objects themselves."""
    app = write(
        {
            "proj": dedent(APP)
            + dedent(
                """
                import beatstore
                from beatstore import Declared

                @app.task
                def plain(): ...

                @beatstore.scheduled("0 9 * * *", name="first")
                @app.task
                def task(): ...

                SCHEDULES = [Declared("last", plain, after=[task])]
                """
            )
        }
    )
    found = {one.name: one for one in declared(app)["module:proj"].entries}
    assert found["last"].task == "proj.plain"
    assert found["last"].after == ("first",)


def test_a_function_that_is_no_task_is_refused(write: Write) -> None:
    """Whoever forgets `@app.task` is told, since nothing would ever run."""
    program = """
        import beatstore

        @beatstore.scheduled("0 9 * * *")
        def forgotten(): ...

        @app.task
        @beatstore.scheduled("0 9 * * *")
        def good(): ...
    """
    app = write({"proj": dedent(APP) + dedent(program)})
    source = declared(app)["module:proj"]
    assert [one.name for one in source.entries] == ["proj.good"]
    assert source.refused == {
        "proj.forgotten": "it is not a task; decorate it with @app.task or @shared_task"
    }


def test_a_program_is_known_by_the_name_of_its_app(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app in the script that is run names its tasks by `main`, and its source too."""
    app = write({"proj": dedent(APP) + dedent(TASK) + listed("listed")})
    for _, mark in marks._SHARED:
        vars(mark)["module"] = "__main__"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "__main__", sys.modules["proj"])
        patch.delitem(sys.modules, "proj")
        assert names(declared(app)) == {"module:proj": ["proj.task", "listed"]}


def test_the_name_a_mark_has_is_its_place_in_the_code(write: Write) -> None:
    """A task that another module puts on a schedule belongs to the rows of that module."""
    app = write(
        {
            "proj": dedent(APP) + "app.conf.imports = ['tasks_of', 'plan']\n",
            "tasks_of": "from celery import shared_task\n@shared_task\ndef f(): ...\n",
            "plan": "import beatstore, tasks_of\nbeatstore.scheduled('0 9 * * *')(tasks_of.f)\n",
        }
    )
    assert names(declared(app)) == {"module:plan": ["tasks_of.f"]}
