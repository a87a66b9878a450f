"""The application's own Alembic, beside beatstore's tables: it leaves them alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from beatstore import Store
from beatstore.database.models import VERSION_TABLE, Base
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.revisions import read_revision, tables

ROOT = Path(__file__).resolve().parents[2]
TABLES = {*Base.metadata.tables, VERSION_TABLE}

#: What docs/transactions.md has people write.
HELPER = "from beatstore.alembic import include_object"
OPTION = "include_object=include_object"

#: An application's models; what a test adds goes below.
MODELS = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Shop(DeclarativeBase):
    pass

class Order(Shop):
    __tablename__ = "shop_order"
    id: Mapped[int] = mapped_column(primary_key=True)

class Lookalike(Shop):
    __tablename__ = "beatstore_lookalike"
    id: Mapped[int] = mapped_column(primary_key=True)

metadata = Shop.metadata
"""
THEIRS = {"shop_order", "beatstore_lookalike"}

#: A table of theirs that refers to one of ours.
REFERS = """
from beatstore.models import EntryModel

class Reminder(Shop):
    __tablename__ = "shop_reminder"
    id: Mapped[int] = mapped_column(primary_key=True)
    entry_id: Mapped[int] = mapped_column(ForeignKey(EntryModel.id))
"""
#: Ours among theirs, on purpose: as a second metadata, or copied into their own.
TOGETHER = """
from beatstore.models import Base
metadata = [Shop.metadata, Base.metadata]
"""
COPIED = """
from beatstore.models import Base
for table in Base.metadata.sorted_tables:
    table.to_metadata(Shop.metadata)
"""


class Application:
    """A directory with models and an environment as `alembic init` makes it."""

    def __init__(self, directory: Path, url: str, template: str = "generic") -> None:
        self.directory = directory
        self.models("")
        command.init(Config(directory / "alembic.ini"), str(directory / "alembic"), template)
        # Without a file, `env.py` leaves the logging of this process alone.
        self.config = Config()
        self.config.set_main_option("script_location", str(directory / "alembic"))
        self.config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        self.edit("alembic.ini", "driver://user:pass@localhost/dbname", url)
        self.edit("alembic/env.py", "target_metadata = None", "from models import metadata")
        self.configure("target_metadata=target_metadata", "target_metadata=metadata")

    def models(self, more: str) -> None:
        """Write the models, with more of them."""
        (self.directory / "models.py").write_text(MODELS + more)

    def configure(self, old: str, new: str) -> None:
        """Edit the arguments of `context.configure` in `env.py`."""
        self.edit("alembic/env.py", old, new)

    def add_the_helper(self) -> None:
        """Do what the page says."""
        self.configure("from models", f"{HELPER}\nfrom models")
        self.configure("=metadata", f"=metadata, {OPTION}")

    def run(self, verb: Callable[..., object], *arguments: str, **options: Any) -> None:
        """Run a command of Alembic, with the models as they are now."""
        sys.modules.pop("models", None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "dont_write_bytecode", True)  # a file may change within a second
            patch.syspath_prepend(self.directory)
            verb(self.config, *arguments, **options)
        sys.modules.pop("models", None)

    def proposed(self) -> dict[str, set[str]]:
        """Return what a new revision does to which tables, and throw it away."""
        self.run(command.revision, "proposed", autogenerate=True)
        return read_and_delete(self.directory / "alembic" / "versions")

    def proposed_by_command(self) -> dict[str, set[str]]:
        """Return the same, as the command does it in a process of its own."""
        run(self.directory, "alembic", "revision", "--autogenerate", "-m", "proposed")
        return read_and_delete(self.directory / "alembic" / "versions")

    def accept(self) -> None:
        """Write a revision, apply it, and see that nothing more is proposed."""
        self.run(command.revision, "accepted", autogenerate=True)
        self.run(command.upgrade, "head")
        self.run(command.check)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text in a file."""
        path = self.directory / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new))


def run(directory: Path, module: str, *arguments: str) -> None:
    """Run a module's command in a directory, in a process of its own."""
    path = os.pathsep.join([str(ROOT), str(directory), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def read_and_delete(versions: Path) -> dict[str, set[str]]:
    """Return by operation what the newest revision upgrades, and throw it away."""
    found = read_revision(versions)
    max(versions.glob("*.py"), key=lambda path: path.stat().st_mtime_ns).unlink()
    return found


@pytest.fixture
def new_application(tmp_path: Path, migrated_url: str) -> Callable[..., Application]:
    """Hand out an application beside beatstore's tables; `url` replaces the URL of both."""

    def new(template: str = "generic", url: str = migrated_url) -> Application:
        return Application(tmp_path, url, template)

    return new


def test_a_stock_alembic_leaves_our_tables_alone(
    new_application: Callable[..., Application], migrated_url: str
) -> None:
    """Without the helper autogenerate drops all of ours; with it, it speaks of theirs alone."""
    application = new_application()
    assert application.proposed()["drop_table"] == TABLES
    application.add_the_helper()
    assert application.proposed() == {"create_table": THEIRS}
    application.accept()
    assert tables(migrated_url) == TABLES | THEIRS | {"alembic_version"}


@on_sqlite
def test_the_command(new_application: Callable[..., Application]) -> None:
    """It is the same for who types `alembic revision --autogenerate`."""
    application = new_application()
    application.add_the_helper()
    assert application.proposed_by_command() == {"create_table": THEIRS}


def test_the_page_says_so() -> None:
    """The page has the import, and the option for Alembic and for Flask-Migrate."""
    page = (ROOT / "docs" / "transactions.md").read_text()
    assert f"```python\n{HELPER}\n" in page
    assert f"{OPTION}\n)\n```" in page
    assert f"`Migrate(app, db, {OPTION})`" in page


@pytest.mark.quick_on("sqlite")
def test_a_table_that_only_looks_like_ours_is_theirs(
    new_application: Callable[..., Application], migrated_url: str
) -> None:
    """When their models lose a table named `beatstore_…`, autogenerate drops it."""
    engine = sa.create_engine(migrated_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE beatstore_former (id INTEGER)")
    engine.dispose()
    application = new_application()
    application.add_the_helper()
    assert application.proposed() == {
        "create_table": THEIRS,
        "drop_table": {"beatstore_former"},
    }


@pytest.mark.quick_on("sqlite")
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
def test_the_async_template(new_application: Callable[..., Application], migrated_url: str) -> None:
    """It is the same in the environment that `alembic init --template async` makes."""
    pytest.importorskip("aiosqlite")
    application = new_application("async", migrated_url.replace("sqlite:", "sqlite+aiosqlite:"))
    assert application.proposed()["drop_table"] == TABLES
    application.add_the_helper()
    assert application.proposed() == {"create_table": THEIRS}


@pytest.mark.quick_on("sqlite")
@pytest.mark.parametrize(
    "more",
    [TOGETHER, COPIED, REFERS, REFERS + TOGETHER],
    ids=["together", "copied", "refers", "both"],
)
def test_our_tables_in_their_metadata(
    new_application: Callable[..., Application], migrated_url: str, more: str
) -> None:
    """Ours among their models are neither made nor altered, before ours are there and after."""
    application = new_application()
    application.models(more)
    application.add_the_helper()
    theirs = THEIRS | ({"shop_reminder"} if "Reminder" in more else set())
    assert application.proposed() == {"create_table": theirs}
    application.accept()


@pytest.mark.quick_on("sqlite")
def test_our_tables_are_not_made_for_them(tmp_path: Path, database_url: str) -> None:
    """Where ours are not there yet, a metadata that holds them does not make them."""
    application = Application(tmp_path, database_url)
    application.models(TOGETHER)
    assert application.proposed()["create_table"] == THEIRS | set(Base.metadata.tables)
    application.add_the_helper()
    assert application.proposed() == {"create_table": THEIRS}


@on_postgresql
def test_our_tables_in_a_schema(tmp_path: Path, database_url: str) -> None:
    """With `include_schemas` ours are left alone in whatever schema they are."""
    for schema in (None, "Sched"):
        store = Store(database_url, schema=schema)
        store.migrate()
        store.close()
    application = Application(tmp_path, database_url)
    application.configure("=metadata", "=metadata, include_schemas=True")
    in_both = TABLES | {f"Sched.{table}" for table in TABLES}
    assert application.proposed()["drop_table"] == in_both
    application.add_the_helper()
    assert application.proposed() == {"create_table": THEIRS}


@pytest.mark.quick_on("sqlite")
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
def test_a_function_of_their_own_is_asked_as_well(
    new_application: Callable[..., Application],
) -> None:
    """Their own `include_object` and ours are combined by `and`."""
    application = new_application()
    application.configure(
        "from models",
        "import beatstore.alembic\n\n"
        "def include_object(object_, name, *given):\n"
        "    mine = name != 'shop_order'\n"
        "    return mine and beatstore.alembic.include_object(object_, name, *given)\n\n"
        "from models",
    )
    application.configure("=metadata", f"=metadata, {OPTION}")
    assert application.proposed() == {"create_table": {"beatstore_lookalike"}}


#: A function that alembic_utils is told of, so that it looks for all functions and triggers.
FUNCTIONS = """
from alembic_utils.pg_function import PGFunction
from alembic_utils.replaceable_entity import register_entities

body = "RETURNS integer AS $$ SELECT a $$ LANGUAGE sql"
register_entities([PGFunction("public", "mine(a integer)", body)])
"""


@on_postgresql
@pytest.mark.heavy
def test_alembic_utils(new_application: Callable[..., Application]) -> None:
    """Where alembic_utils looks after functions and triggers, it leaves ours alone as well."""
    pytest.importorskip("alembic_utils")
    application = new_application()
    application.models(FUNCTIONS)
    assert {"create_entity", "drop_entity"} <= application.proposed_by_command().keys()
    application.add_the_helper()
    assert application.proposed_by_command() == {
        "create_table": THEIRS,
        "create_entity": {"public_mine"},
    }


FLASK = """
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
{imports}
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = {url!r}
db = SQLAlchemy(app)
Migrate(app, db{options})

class Order(db.Model):
    __tablename__ = "shop_order"
    id = db.Column(db.Integer, primary_key=True)
"""


@pytest.mark.quick_on("sqlite")
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.heavy
def test_flask_migrate(tmp_path: Path, migrated_url: str) -> None:
    """Flask-Migrate takes the helper as an option, and then leaves our tables alone."""
    pytest.importorskip("flask_migrate")
    pytest.importorskip("flask_sqlalchemy")
    page, versions = tmp_path / "app.py", tmp_path / "migrations" / "versions"
    page.write_text(FLASK.format(imports="", url=migrated_url, options=""))
    run(tmp_path, "flask", "db", "init")
    run(tmp_path, "flask", "db", "migrate")
    assert read_and_delete(versions)["drop_table"] == TABLES
    page.write_text(FLASK.format(imports=HELPER, url=migrated_url, options=f", {OPTION}"))
    run(tmp_path, "flask", "db", "migrate")
    assert read_and_delete(versions) == {"create_table": {"shop_order"}}
