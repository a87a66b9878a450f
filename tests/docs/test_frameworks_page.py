"""The applications of the page on frameworks: an order and its reminder, or neither."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from beatstore import Store
from tests.support.pages import blocks

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)

FLASK = """
from shop import create_app, db
app = create_app()
with app.app_context():
    db.create_all()
client = app.test_client()
answers = [client.post(f"/orders?amount={amount}") for amount in (40, 0)]
print([[answer.status_code, answer.json] for answer in answers])
"""
FASTAPI = """
from fastapi.testclient import TestClient
from shop import Base, api, engine
Base.metadata.create_all(engine)
with TestClient(api) as client:
    paths = [f"/{path}?amount={n}" for path in ("orders", "async-orders") for n in (40, 0)]
    answers = [*map(client.post, paths), client.get("/reminders")]
print([[answer.status_code, answer.json()] for answer in answers])
"""


def ask(directory: Path, section: str, script: str, url: str) -> object:
    """Save the page's application, and return what the script prints of its answers."""
    for block in blocks("docs/frameworks.md", section):
        if block.file:
            written = block.text.replace("redis://localhost", "memory://")
            written = written.replace("postgresql+psycopg://localhost/app", url)
            (directory / block.file).write_text(written)
    printed = script.replace("print(", "import json; print(json.dumps(").rstrip() + ")\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", printed],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def orders(url: str, table: str) -> int | None:
    """Count the rows of the application."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.scalar(text(f'SELECT count(*) FROM "{table}"'))
    engine.dispose()
    return found


def test_flask(tmp_path: Path, migrated_url: str) -> None:
    """In Flask the reminder is committed with the order, in the session of Flask-SQLAlchemy."""
    for name in ("flask_migrate", "flask_sqlalchemy"):
        pytest.importorskip(name, reason="needs the group `neighbours`")
    assert ask(tmp_path, "Flask", FLASK, migrated_url) == [
        [200, {"order": 1}],
        [422, {"error": "an order costs something"}],
    ]
    assert orders(migrated_url, "order") == 1
    with closing(Store(migrated_url)) as store:
        assert store.names() == ["remind-1"]


def test_fastapi(tmp_path: Path, migrated_url: str) -> None:
    """In FastAPI it is so in a plain session, and in one of an async endpoint."""
    pytest.importorskip("fastapi", reason="needs fastapi and httpx, of the test group")
    refused = [422, {"detail": "an order costs something"}]
    assert ask(tmp_path, "FastAPI", FASTAPI, migrated_url) == [
        *([200, {"order": 1}], refused, [200, {"order": 3}], refused),
        [200, ["remind-1", "remind-3"]],
    ]
    assert orders(migrated_url, "orders") == 2


DJANGO = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "proj.settings"
import django
django.setup()
from django.db import transaction
from proj.orders import remind_later, store
store.migrate()
for order, paid in ((1, False), (2, True)):
    try:
        with transaction.atomic():
            remind_later(order)
            if paid:
                raise ValueError
    except ValueError:
        pass
print([store.names(), store.database.url.render_as_string(hide_password=False)])
"""


def test_django(tmp_path: Path, database_url: str) -> None:
    """In Django the settings name the database, and what is committed gets its reminder."""
    pytest.importorskip("django", reason="needs the group `neighbours`")
    django = [sys.executable, "-m", "django", "startproject", "proj", "."]
    subprocess.run(django, cwd=tmp_path, check=True)
    for block in blocks("docs/frameworks.md", "Django"):
        if block.file:
            written = block.text.replace("redis://localhost", "memory://")
            written = written.replace("postgresql+psycopg://localhost/app", database_url)
            with (tmp_path / "proj" / block.file).open("a") as file:
                file.write(f"\n{written}")
    names, url = ask(tmp_path, "", DJANGO, database_url)
    assert names == ["remind-1"]
    assert url == database_url
