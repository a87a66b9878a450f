"""A stranger's first hour: the wheel in an empty environment, and the pages as they stand.

What is typed here is taken out of README.md and the pages on frameworks, operating and
transactions; only the addresses of the database and the broker are put in. Each story ends
with a run that failed and was told why, and has the application's own Alembic beside
beatstore's tables.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from sqlalchemy import text

from beatstore import Store
from beatstore.database.models import VERSION_TABLE, Base
from tests.support.brokers import Broker
from tests.support.pages import Block, blocks, commands
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.revisions import read_revision, tables
from tests.support.wait import wait_until
from tests.support.wheel import Environment, build_wheel

README, FRAMEWORKS = "README.md", "docs/frameworks.md"
OPERATING, TRANSACTIONS = "docs/operating.md", "docs/transactions.md"
OURS = {*Base.metadata.tables, VERSION_TABLE}

pytestmark = [
    pytest.mark.parametrize("backend", ["postgresql"], indirect=True),
    pytest.mark.timeout(400),
]


#: What runs until it is ended.
SERVES = re.compile(r"(celery -A \w+ (beat|worker)|flask --app \w+ run|uvicorn)\b")


class Terminal:
    """A directory, and a shell that has an environment activated.

    Args:
        environment: with beatstore in it.
        directory: of the project.
        addresses: what the pages write, and what to type instead.
    """

    def __init__(
        self, environment: Environment, directory: Path, addresses: dict[str, str]
    ) -> None:
        self.directory = directory
        self.running: list[Process] = []
        port = str(free_port())
        ports = {"FLASK_RUN_PORT": port, "UVICORN_PORT": port}
        self._variables = {**environment.variables, **ports, "C_FORCE_ROOT": "1"}
        self._addresses = {**addresses, ":5000/": f":{port}/", ":8000/": f":{port}/"}
        self._started = 0

    def save(self, block: Block) -> None:
        """Save a block as the file that its first line names."""
        assert block.file, block.text
        (self.directory / block.file).write_text(self._addressed(block.text))

    def type(self, command: str) -> str:
        """Run a command to its good end, and return what it prints."""
        process = self._start(command)
        assert process.wait(90) == 0, f"$ {command}\n{process.output()}"
        return process.output()

    def type_all(self, block: Block) -> str:
        """Type a block, leave running what does, and return what the others print."""
        printed = ""
        for command in commands(block):
            if SERVES.match(command):
                self.running.append(self._start(f"exec {command}"))
            elif posted := re.fullmatch(r'curl -X POST "(.*)"', command):
                printed += self.ask("POST", posted[1])
            else:
                printed += self.type(command)
        return printed

    def ask(self, method: str, url: str) -> str:
        """Do as curl, once the server is up; return what it answers."""
        request = Request(self._addressed(url), method=method)

        def answer() -> str | None:
            try:
                with urlopen(request, timeout=30) as response:
                    return f"{response.status} {response.read().decode()}"
            except HTTPError as refused:
                with refused:
                    return f"{refused.code} {refused.read().decode()}"
            except URLError:
                return None

        return wait_until(answer, 60, self.screens) or ""

    def end_all(self) -> None:
        """End what is left running, and see that celery ends in order."""
        while self.running:
            process = self.running.pop()
            status = process.terminate(40)
            assert status == 0 or "celery" not in process.argv[-1], process.output()

    def kill(self) -> None:
        """End what a test that failed has left."""
        for process in self.running:
            process.kill9()

    def screens(self) -> str:
        """Show what everything that runs has printed."""
        return "\n".join(f"$ {one.argv[-1]}\n{one.output()}" for one in self.running)

    def _addressed(self, written: str) -> str:
        for address, own in self._addresses.items():
            written = written.replace(address, own)
        return written

    def _start(self, command: str) -> Process:
        self._started += 1
        log = self.directory / f"screen-{self._started}.log"
        return Process(["sh", "-c", command], log=log, cwd=self.directory, env=self._variables)


NewTerminal = Callable[[Environment], Terminal]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the built wheel with the extras that the README names, and nothing else."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))
    [wanted] = installed(blocks(README)[0])
    environment.install(wanted.replace("beatstore", str(wheel)))
    return environment


@pytest.fixture(scope="module")
def with_frameworks(environment: Environment) -> Environment:
    """Add what the users of Flask and FastAPI have."""
    wanted = [installed(blocks(FRAMEWORKS, name)[0])[1:] for name in ("Flask", "FastAPI")]
    environment.install(*wanted[0], *wanted[1])
    return environment


def installed(block: Block) -> list[str]:
    """Return what a block has people install, with beatstore at its head."""
    [command] = commands(block)
    pip, verb, *wanted = shlex.split(command)
    assert (pip, verb, wanted[0]) == ("pip", "install", "beatstore[postgres,redis]")
    return wanted


@pytest.fixture
def new_terminal(tmp_path: Path, database_url: str, redis_broker: Broker) -> Iterator[NewTerminal]:
    """Open a terminal in an empty directory."""
    opened: list[Terminal] = []
    addresses = {
        "postgresql+psycopg://localhost/app": database_url,
        "redis://localhost": redis_broker.url,
    }

    def new(environment: Environment) -> Terminal:
        opened.append(Terminal(environment, tmp_path, addresses))
        return opened[-1]

    yield new
    for terminal in opened:
        terminal.kill()


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """Look at the database from here."""
    with closing(Store(database_url)) as store:
        yield store


def end_of(store: Store, name: str, terminal: Terminal) -> str:
    """Wait until the newest run of an entry is over, and return how it ended."""

    def state() -> str | None:
        runs = store.runs(name, limit=1)
        return runs[0].state if runs and runs[0].finished_at else None

    return wait_until(state, 60, terminal.screens) or ""


def masked(printed: str) -> str:
    """Leave out of what is printed the times, how far away they are, and the host."""
    hidden = re.sub(r"\d[\d:-]*( (h|min|s)\b)?", "N", printed).replace("N N", "N")
    return re.sub(r"(?<=@)[\w.-]+", "host", hidden).strip()


#: A table of the application's own.
SHOP = """
from sqlalchemy import Column, Integer, MetaData, Table

class Base:
    metadata = MetaData()

Table("shop_order", Base.metadata, Column("id", Integer, primary_key=True))
"""


def test_the_readme(
    environment: Environment, new_terminal: NewTerminal, store: Store, database_url: str
) -> None:
    """The README's files and commands work as they stand, and print what it says."""
    terminal = new_terminal(environment)
    _, proj, migrate, entries, first, apart, failing, told, _ = blocks(README, "")
    terminal.save(proj)
    terminal.type_all(migrate)
    terminal.save(entries)
    terminal.type_all(first)
    assert store.names(source="api")[:2] == ["berlin", "hourly"]
    store.trigger("hourly")
    assert end_of(store, "hourly", terminal) == "succeeded"
    assert "report for Oslo" in terminal.screens()
    terminal.end_all()

    terminal.type_all(apart)
    *before, why = commands(failing)
    for command in before:
        terminal.type(command)
    assert end_of(store, "lima", terminal) == "failed"
    assert masked(terminal.type(why)) == masked(told.text)
    assert names_of_connections(store) >= {"beatstore-beat", "beatstore-worker"}

    _, pipeline, _, verbs = blocks(README, "What it does")
    (terminal.directory / "pipeline.py").write_text(f"from entries import store\n{pipeline.text}")
    terminal.type("python pipeline.py")
    assert terminal.type_all(verbs).endswith("\nhealthy\n")

    probes, answers = blocks(OPERATING, "inspect ping")
    [ping] = commands(probes)[1:]
    terminal.type_all(Block("console", commands(probes)[0], ""))
    said = wait_until(lambda: answered(terminal.type(ping)), 60, terminal.screens)
    assert sorted(masked(said).splitlines()) == sorted(masked(answers.text).splitlines())
    terminal.end_all()

    (terminal.directory / "shop.py").write_text(SHOP)
    terminal.type("alembic init migrations")
    tell_of_beatstore(terminal.directory, database_url)
    for command in ("revision --autogenerate -m shop", "upgrade head", "check"):
        terminal.type(f"alembic {command}")
    assert_only_theirs(terminal, database_url, "shop_order")


def answered(said: str) -> str:
    """Return what a ping prints, once a beat is among those that answer."""
    return said if "celerybeat@" in said else ""


def names_of_connections(store: Store) -> set[str]:
    """Return what PostgreSQL calls those who are connected."""
    with store.database.session() as session:
        listed = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        return set(session.scalars(text(listed)))


def test_flask(
    with_frameworks: Environment, new_terminal: NewTerminal, store: Store, database_url: str
) -> None:
    """The application of the page, with Flask-Migrate, and a reminder that fails."""
    terminal = new_terminal(with_frameworks)
    _, shop, make_celery, started, asked = blocks(FRAMEWORKS, "Flask")
    terminal.save(shop)
    terminal.save(make_celery)
    terminal.type_all(started)
    assert_only_theirs(terminal, database_url, "order")
    terminal.type("flask --app shop db check")
    curl, *questions = commands(asked)
    assert terminal.type_all(Block("console", curl, "")) == '200 {"order":1}\n'
    refused = terminal.ask("POST", "http://127.0.0.1:5000/orders?amount=0")
    assert refused.startswith("422 ")
    assert_told_why(terminal, store, ["remind-1"], questions)


def test_fastapi(
    with_frameworks: Environment, new_terminal: NewTerminal, store: Store, database_url: str
) -> None:
    """The application of the page, with an Alembic of its own, and reminders that fail."""
    terminal = new_terminal(with_frameworks)
    _, shop, prepared, migrated, asked = blocks(FRAMEWORKS, "FastAPI")
    terminal.save(shop)
    terminal.type_all(prepared)
    tell_of_beatstore(terminal.directory, database_url)
    terminal.type_all(migrated)
    assert_only_theirs(terminal, database_url, "orders")
    terminal.type("alembic check")
    *curls, why, errors = commands(asked)
    for number, curl in enumerate(curls, 1):
        assert terminal.type_all(Block("console", curl, "")) == f'200 {{"order":{number}}}'
    for path in ("orders", "async-orders"):
        assert terminal.ask("POST", f"http://127.0.0.1:8000/{path}?amount=0").startswith("422 ")
    reminders = terminal.ask("GET", "http://127.0.0.1:8000/reminders")
    assert reminders == '200 ["remind-1","remind-2"]'
    assert_told_why(terminal, store, ["remind-1", "remind-2"], [why, errors])


def assert_only_theirs(terminal: Terminal, url: str, table: str) -> None:
    """See that their Alembic has made their table, and has left ours alone."""
    proposed = read_revision(terminal.directory / "migrations" / "versions")
    assert proposed == {"create_table": {table}}
    assert tables(url) == {*OURS, "alembic_version", table}


def assert_told_why(
    terminal: Terminal, store: Store, names: list[str], questions: list[str]
) -> None:
    """See that these reminders and no others are there, fail, and that each answer says why."""
    assert store.names(name="remind-*") == names
    assert [end_of(store, name, terminal) for name in names] == ["failed"] * len(names)
    for question in questions:
        assert "ConnectionError: no mail server, and order 1 is unpaid" in terminal.type(question)
    terminal.end_all()


def tell_of_beatstore(directory: Path, url: str) -> None:
    """Do to the files of `alembic init` what the pages say."""
    ini, env = directory / "alembic.ini", directory / "migrations" / "env.py"
    [block] = blocks(TRANSACTIONS, "Beside your own tables")
    helper, _, call = block.text.strip().partition("\n\n")
    stock = re.search(r"context\.configure\(\s+connection=.*?\n +\)", env.read_text(), re.S)
    assert stock
    metadata = f"from shop import Base\n{helper}\ntarget_metadata = Base.metadata"
    for file, written, typed in (
        (ini, "driver://user:pass@localhost/dbname", url),
        (env, stock[0], call.replace("\n", "\n" + " " * 8)),
        (env, "target_metadata = None", metadata),
    ):
        content = file.read_text()
        assert content.count(written) == 1, f"{written!r} in {file}"
        file.write_text(content.replace(written, typed))
