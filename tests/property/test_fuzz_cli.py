"""Every argument and option of every verb, given what nobody should type.

The verbs and their parameters are found, not listed: a new one is tried too. What comes of a
call is one of the exit codes that are documented, and never a traceback.

`BEATSTORE_TEST_EXAMPLES=10000` tries so many texts for each parameter.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from waitress.server import BaseWSGIServer

from beatstore import Store
from beatstore.cli import VERBS, beatstore
from tests.support.command import WAYS, Command
from tests.support.hostile import CRON, ISO, RRULE, ZONES, examples, worded

#: What each verb is called with; one that is not here needs nothing.
GOOD: dict[str, list[str]] = {
    "show": ["there"],
    "add": ["new", "tests.note", "0 2 * * *"],
    "change": ["there"],
    "pause": ["there", "--yes"],
    "resume": ["there", "--yes"],
    "remove": ["above", "--yes"],
    "trigger": ["there", "--yes"],
    "cancel": ["there", "--yes"],
    "schedule": ["tests.note", "--in", "5"],
    "rerun": ["1"],
    "why": ["there"],
    "errors": ["there"],
    "prune": ["--yes"],
    "import": ["--from", "django-celery-beat"],
    "web": ["--port", "0"],
}

#: Beat's own work, of which each call is a whole beat.
SLOW = {"tick"}

DURATIONS = ("0123456789smhdw.-+ ", "90s", "5m", "1h30m", "1e9", "inf", "nan")
JSON_TEXT = ('[]{}",:0123456789 ', '{"a": 1}', "[1, 2]", "null", "NaN", "\\ud800", "[" * 3000)
PAIRS = ("=ab:,;0123456789", "queue=a", "expires=5", "headers={}", "there:on=done,first_free")
KNOWN = ("there", "above", "new", "1", "true", "active", "sent", "a", "json", "mermaid")


def verb(name: str) -> click.Command:
    """Return the command of a verb."""
    found = beatstore.get_command(click.Context(beatstore), name)
    assert found is not None
    return found


def cases() -> Iterator[tuple[str, str]]:
    """Yield each verb with each of its parameters that takes a value."""
    for section in VERBS.values():
        for name in section:
            for one in verb(name).params:
                flag = isinstance(one, click.Option) and (one.is_flag or one.count)
                if not flag and name not in SLOW:
                    yield name, str(one.name)


CASES = list(cases())

_HALVES = re.compile("[\ud800-\udfff]")


def words() -> SearchStrategy[str]:
    """Generate what is typed: the grammars of all parameters, and any text."""
    grammars = (CRON, ISO, RRULE, ZONES, DURATIONS, JSON_TEXT, PAIRS)
    likely = st.one_of(st.sampled_from(KNOWN), *(worded(grammar) for grammar in grammars))
    # A shell hands over no NUL, and of half surrogate pairs those that stand for odd bytes.
    return likely.map(lambda text: _HALVES.sub("\udcff", text.replace("\0", "")))


@pytest.fixture
def backend() -> str:
    """Keep to the database that is the quickest."""
    return "sqlite"


@pytest.fixture
def url(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return a database with two entries, one of which has run."""
    monkeypatch.chdir(tmp_path)  # where a verb may write files
    store = Store(migrated_url)
    store.add("above", "tests.note", "0 1 * * *")
    store.add("there", "tests.note", "0 2 * * *", after=["above"], tags=["a"])
    store.trigger("there")
    yield migrated_url
    store.close()


@pytest.fixture(autouse=True)
def served_and_ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `web` listen, and end at once instead of waiting for browsers; give signals back."""

    def end(server: BaseWSGIServer) -> None:
        server.task_dispatcher.shutdown()
        server.close()

    monkeypatch.setattr(BaseWSGIServer, "run", end)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def tried(call: Command, name: str, parameter: str, typed: list[str]) -> None:
    """Call a verb as it should be, but for what is typed for one parameter."""
    found = next(one for one in verb(name).params if one.name == parameter)
    good = GOOD.get(name, [])
    if isinstance(found, click.Option):
        given = [*good, *(part for text in typed for part in (found.opts[-1], text))]
    else:
        given = [*good[: -1 if len(good) == 1 else None], *typed]
    done = call(name, *given)
    assert done.code in (0, 1, 2, 3), done
    assert "Traceback" not in done.out + done.err
    assert "BEATSTORE_DEBUG" not in done.err, done.err  # nobody expected this error


def test_any_parameter(url: str) -> None:
    """Whatever stands on the command line: an exit code that is documented, and no traceback."""
    calls = [Command(url, way) for way in WAYS]

    @examples(150)
    @given(st.sampled_from(CASES), st.lists(words(), min_size=1, max_size=2), st.integers(0, 1))
    def try_it(case: tuple[str, str], typed: list[str], way: int) -> None:
        tried(calls[way], *case, typed)

    try_it()


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_a_parameter(url: str, name: str, parameter: str) -> None:
    """The same for each parameter of each verb, as many times."""
    calls = [Command(url, way) for way in WAYS]

    @examples(100)
    @given(st.lists(words(), min_size=1, max_size=2), st.integers(0, 1))
    def try_it(typed: list[str], way: int) -> None:
        tried(calls[way], name, parameter, typed)

    try_it()


@examples(100)
@given(st.lists(words(), max_size=5), st.dictionaries(st.just("BEATSTORE_URL"), words()))
def test_any_words_at_all(typed: list[str], env: dict[str, str]) -> None:
    """What is not even a verb, and a URL that is none, are refused in the same way."""
    call = Command("sqlite:///nowhere/at/all.db")
    call.arguments = []
    done = call(*typed, env={"BEATSTORE_URL": "", **{k: v for k, v in env.items() if _passes(v)}})
    assert done.code in (0, 1, 2, 3), done
    assert "BEATSTORE_DEBUG" not in done.err, done.err


def _passes(value: str) -> bool:
    """Say whether a variable can have this value."""
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True
