"""The README's Python runs as it stands, but for the addresses: on SQLite, without a broker."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import _state

from beatstore import Store
from tests.support.pages import blocks, commands

README, TRANSACTIONS = "README.md", "docs/transactions.md"


def addressed(written: str, url: str) -> str:
    """Put in the addresses."""
    assert "redis://localhost" in written
    assert "postgresql+psycopg://localhost/app" in written
    written = written.replace("redis://localhost", "memory://")
    return written.replace("postgresql+psycopg://localhost/app", url)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'app.db'}"


def test_the_quick_start_runs(tmp_path: Path, url: str) -> None:
    """The first files and commands of the README, in its order, store what they say."""
    for block in blocks(README, "")[:5]:
        if block.file:
            written = addressed(block.text, url) if block.file == "proj.py" else block.text
            (tmp_path / block.file).write_text(written)
            continue
        for command in commands(block):
            program, *arguments = command.split()
            if program == "pip" or "worker" in arguments:
                continue
            argv = ["-m", "celery", *arguments] if program == "celery" else arguments
            done = subprocess.run(
                [sys.executable, *argv], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
    with closing(Store(url)) as store:
        names = store.names()
        assert (len(names), names[:2], names[3]) == (4, ["berlin", "hourly"], "summary")
        assert [one.upstream for one in store.graph().edges] == ["berlin", "hourly"]
        assert store.entries()[2].next_due_at.year == 2125


@pytest.fixture
def proj(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Stand in for the reader's module."""
    monkeypatch.setattr(_state._tls, "current_app", None)
    module: Any = types.ModuleType("proj")
    monkeypatch.setitem(sys.modules, "proj", module)
    yield module
    module.app.close()


def test_all_of_its_python_runs_from_top_to_bottom(proj: Any, url: str) -> None:
    """Each block finds what it needs in those above, and those of docs/transactions.md too."""
    pytest.importorskip("ephem", reason="Solar needs ephem, of the extra `solar`")
    typed: dict[str, Any] = {"__name__": "entries"}
    there = [*blocks(README), *blocks(TRANSACTIONS)]
    python = [block for block in there if block.language == "python"]
    [env] = [block for block in python if "context.configure" in block.text]
    python.remove(env)  # a part of Alembic's env.py, which has tests of its own
    for block in python:
        written, names = block.text, typed
        if block.file == "proj.py":
            written = addressed(written, url)
        if block.file == "proj.py" or "@app.task" in written:
            names = vars(proj)
        exec(compile(written, README, "exec"), names)
        if block.file == "proj.py":
            Store.from_app(proj.app).migrate()
    with closing(Store(url)) as store:
        assert {"berlin", "summary", "load", "alarm"} <= set(store.names())
        assert len(store.entries(name="report-*", state="active")) == 2
