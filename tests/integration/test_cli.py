"""What holds for every verb of the command line, and both ways to call it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from beatstore import Store
from beatstore.cli import VERBS, beatstore, group
from beatstore.text.secrets import hide
from beatstore.text.values import span
from beatstore.version import __version__
from tests.support.command import WAYS, Command
from tests.support.marks import both_ways, on_postgresql, on_servers, on_sqlite
from tests.support.processes import ROOT

pytestmark = pytest.mark.quick_on("sqlite")


ALL = {verb: line for section in VERBS.values() for verb, (_, line) in section.items()}

#: What each verb is called with; one that is not here needs nothing.
ARGUMENTS = {
    "show": ["a"],
    "add": ["a", "t.a", "@daily"],
    "change": ["a", "--task", "t.b"],
    "pause": ["--all"],
    "resume": ["--all"],
    "remove": ["--all"],
    "trigger": ["--all"],
    "cancel": ["--all"],
    "schedule": ["t.a", "--in", "5"],
    "run": ["1"],
    "rerun": ["1"],
    "end": ["1", "--as", "failed"],
    "why": ["a"],
    "errors": ["a"],
    "import": ["--from", "django-celery-beat"],
}

#: Verbs that need the code of an app, and say so.
OF_AN_APP = {"sync", "tick"}

SECRET = "s3cr3t/w0rd @!"


def verb(name: str) -> click.Command:
    """Return the command of a verb."""
    found = beatstore.get_command(click.Context(beatstore), name)
    assert found is not None
    return found


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, away from this directory."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# -- the table of verbs --------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_help_of_a_verb(name: str) -> None:
    """Each verb can be imported, has help, and its line in the table is that of its help."""
    done = Command("sqlite://")(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: beatstore {name} ")
    assert (verb(name).help or "").splitlines()[0] == ALL[name]
    for option in verb(name).params:
        assert isinstance(option, click.Argument) or option.help or option.hidden, option.name


def test_the_help_names_every_verb_and_exit_code() -> None:
    """`--help` lists all verbs with their lines, under headings, and the exit codes."""
    done = Command("sqlite://")("--help")
    said = re.sub(r"\s+", " ", done.out)
    for name, line in ALL.items():
        assert f" {name} {line}" in said
    for heading in VERBS:
        assert f"{heading}:\n" in done.out
    for code in ("0 done", "1 refused, not found, or too late", "2 wrong usage", "3 cannot reach"):
        assert code in said


def test_help_is_cheap() -> None:
    """Neither the plugin nor its help imports SQLAlchemy, alembic, celery or a verb."""
    done = python(
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from beatstore.cli import beatstore\n"
        "assert CliRunner().invoke(beatstore, ['--help']).exit_code == 0\n"
        "print([name for name in sys.modules if name.startswith(('sqlalchemy', 'alembic', "
        "'celery', 'kombu', 'beatstore.store', 'beatstore.cli.'))])"
    )
    assert done.stdout.strip() == "['beatstore.cli.writing', 'beatstore.cli.group']", done.stderr


@both_ways
def test_the_version(way: str) -> None:
    """`--version` names beatstore's version and what it works with, with an app and without."""
    done = Command("sqlite://", way)("--version")
    assert done.code == 0
    assert done.out.startswith(f"beatstore {__version__} (celery ")
    assert "SQLAlchemy" in done.out


@pytest.mark.parametrize(
    ("given", "verb"),
    [
        *(("delete", "remove"), ("rm", "remove"), ("edit", "change"), ("start", "trigger")),
        *(("ls", "list"), ("cron", "add"), ("enable", "resume"), ("disable", "pause")),
        *(("describe", "show"), ("history", "runs"), ("retry", "rerun"), ("explain", "why")),
        *(("version", "--version"), ("help", "--help"), ("LS", "list")),
    ],
)
def test_words_of_other_programs(given: str, verb: str) -> None:
    """A verb that there is not is answered with the one that is meant."""
    done = Command("sqlite://")(given, "a")
    assert done.code == 2
    assert f"Write `{verb}` instead." in done.err


def test_words_lead_to_verbs() -> None:
    """Each word leads to one verb that there is, and is none itself."""
    words = [word for several in group._SYNONYMS.values() for word in several.split()]
    assert len(words) == len(set(words))
    assert not set(words) & set(ALL)
    assert set(group._SYNONYMS) <= {*ALL, "--version", "--help"}
    assert "Did you mean `remove`?" in Command("sqlite://")("delte").err


# -- errors --------------------------------------------------------------------------------


def secret_url(url: str) -> str:
    """Return a URL with a password that has to be escaped in it."""
    return make_url(url).set(password=SECRET).render_as_string(hide_password=False)


@both_ways
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mysql+pymysql"])
@pytest.mark.parametrize("name", ALL)
def test_no_verb_shows_a_password(name: str, driver: str, way: str) -> None:
    """With a server that refuses, a verb ends with 3 and one line, without the password."""
    url = secret_url(f"{driver}://user@127.0.0.1:1/db")
    done = Command(url, way)(name, *ARGUMENTS.get(name, []))
    escaped = url.partition("user:")[2].partition("@127")[0]
    for spelt in (SECRET, escaped, "s3cr3t", "w0rd"):
        assert spelt not in done.out + done.err
    if name in OF_AN_APP and way == "url":
        assert done.code == 2
        return
    assert done.code == 3, done.err
    assert done.out == ""
    assert re.fullmatch(r"beatstore: .*127\.0\.0\.1.*\n", done.err), done.err


@on_servers
def test_a_refused_password_is_not_shown(database_url: str) -> None:
    """A server that answers, and refuses the password, does not make it visible."""
    done = Command(secret_url(database_url))("list")
    if done.code == 0:  # a server that trusts everybody on this machine
        done = Command(secret_url(str(make_url(database_url).set(username="nobody"))))("list")
    assert done.code == 3
    assert "s3cr3t" not in done.err


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cr3t@[half/db",
        "postgresql+nothing://me:s3cr3t@h/db",
        "nonsense://me:s3cr3t@h/db",
        "me:s3cr3t@h/db",
        "postgresql+psycopg://127.0.0.1:1/db?user=me&password=s3cr3t",
        "postgresql+psycopg://me:s3cr3t@127.0.0.1:port/db",
        "sqlite:///x.db?password=s3cr3t",
    ],
)
def test_a_wrong_url_does_not_show_its_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL that can't be used is an error of one line without its password."""
    monkeypatch.chdir(tmp_path)
    done = Command(url)("list")
    assert done.code in (2, 3)
    assert "s3cr3t" not in done.err
    assert len(done.err.splitlines()) == 1


def test_text_is_cleaned_of_passwords() -> None:
    """Passwords in URLs and among parameters are hidden in any text, and given ones too."""
    assert hide("to amqp://a:b:c@h//: no") == "to amqp://a:***@h//: no"
    assert hide("redis://:pw@h and pg://u:p@h") == "redis://:***@h and pg://u:***@h"
    assert hide("host=h password=pw user=u") == "host=h password=*** user=u"
    assert hide("x?sslpassword=pw&a=b") == "x?sslpassword=***&a=b"
    assert hide("so hunter2 it is", ["hunter2"]) == "so *** it is"


def test_no_database_is_named() -> None:
    """Without an app, a URL and the variable, the command says how to name a database."""
    done = Command("")("list", env={"BEATSTORE_URL": None})
    assert done.code == 2
    assert "BEATSTORE_URL" in done.err


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
def test_the_variables_name_the_database(migrated_url: str, store: Store) -> None:
    """`BEATSTORE_URL` stands for --url."""
    store.add("a", "t.a", "@daily")
    call = Command("")
    call.arguments = []
    done = call("list", "--json", env={"BEATSTORE_URL": migrated_url})
    assert [row["name"] for row in done.json] == ["a"]


@on_sqlite
def test_url_is_stronger_than_the_app(migrated_url: str, store: Store, tmp_path: Path) -> None:
    """With `--url`, the app's settings count, but for where the tables are."""
    store.add("a", "t.a", "@daily")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    call = Command(other, "app", timezone="Asia/Tokyo", beatstore_schema="elsewhere")
    call.arguments = ["--url", migrated_url]
    done = call("list")
    assert done.code == 0, done.err
    assert "Asia/Tokyo" in done.lines[0]


@on_postgresql
def test_the_schema_can_be_named(database_url: str) -> None:
    """`--schema` says where the tables are, for an app and without one."""
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA beat"))
    engine.dispose()
    for way in WAYS:
        call = Command(database_url, way)
        call.arguments += ["--schema", "beat"]
        assert call("migrate").code == 0
        assert call("add", way, "t.a", "@daily").code == 0
        assert Command(database_url, way)("list").code == 3
    assert [row["name"] for row in call("list", "--json").json] == ["app", "url"]


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A mistyped path of an SQLite file is an error, and leaves no empty file behind."""
    file = tmp_path / "mistyped.db"
    done = Command(f"sqlite:///{file}")("list")
    assert done.code == 3
    assert "the file does not exist" in done.err
    assert not file.exists()
    assert Command(f"sqlite:///{file}")("migrate").code == 0
    assert file.exists()


def test_tables_that_are_not_there(database_url: str) -> None:
    """Without the tables every verb says what to run, with exit code 3."""
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    done = Command(database_url)("list")
    assert done.code == 3
    assert "migrate" in done.err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Command]:
    """Hand out `failing(error)`, a command line whose `list` raises it."""

    def failing(error: BaseException) -> Command:
        def fail(*args: object, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr(verb("list"), "callback", fail)
        return Command("sqlite://")

    return failing


def test_the_unexpected_is_one_line(failing: Callable[[BaseException], Command]) -> None:
    """An error that nobody expected is its type and text, without a traceback or a password."""
    call = failing(RuntimeError("no way\nto amqp://me:s3cr3t@h/"))
    done = call("list")
    assert done.code == 1
    assert done.err == (
        "beatstore: RuntimeError: no way to amqp://me:***@h/ (BEATSTORE_DEBUG=1 shows where)\n"
    )


def test_no_statement_is_shown(failing: Callable[[BaseException], Command]) -> None:
    """Of an error of the database, what the driver says is shown, and not the SQL."""
    said = RuntimeError("permission denied for schema public")
    done = failing(ProgrammingError("CREATE TABLE x", {}, said))("list")
    assert done.err == (
        "beatstore: ProgrammingError: permission denied for schema public "
        "(BEATSTORE_DEBUG=1 shows where)\n"
    )


def test_the_traceback_can_be_seen(failing: Callable[[BaseException], Command]) -> None:
    """`BEATSTORE_DEBUG=1` shows where it happened, still without the password."""
    done = failing(RuntimeError(SECRET))("list", env={"BEATSTORE_DEBUG": "1"})
    assert done.code == 1
    assert "Traceback" in done.err
    assert "raise error" in done.err
    call = failing(RuntimeError("to amqp://me:s3cr3t@h/"))
    assert "s3cr3t" not in call("list", env={"BEATSTORE_DEBUG": "1"}).err


def test_ctrl_c_is_quiet(failing: Callable[[BaseException], Command]) -> None:
    """Who interrupts a verb sees nothing, and the exit code says it."""
    done = failing(KeyboardInterrupt())("list")
    assert (done.code, done.out, done.err) == (130, "", "")


# -- spans ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((0, "0 s"), (59.9, "59 s"), (60, "1 min"), (90, "1 min 30 s"), (600, "10 min")),
        *((3599, "59 min"), (3600, "1 h"), (7500, "2 h 5 min"), (86_400, "1 d")),
        *((31_557_600, "1 y"), (31_557_600 * 499, "499 y"), (40 * 86_400, "40 d")),
    ],
)
def test_spans_are_short(seconds: float, said: str) -> None:
    """A span is said in its largest unit, and the next one where that says little."""
    assert span(seconds) == said
