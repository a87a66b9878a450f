"""The command line in processes of its own, with an app and without."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beatstore import Store
from tests.support.brokers import Broker
from tests.support.entrypoints import announce
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.processes import ROOT
from tests.support.project import Project

pytestmark = pytest.mark.quick_on("sqlite")

COMPLETE = "import sys; from celery.__main__ import main; sys.argv = ['celery']; main()"
MAIN = "import sys; from beatstore.cli import main; sys.argv[0] = 'beatstore'; main()"


def run(*arguments: str, cwd: Path, head: str = "") -> subprocess.CompletedProcess[str]:
    """Run the installed command, perhaps with another behind it."""
    command = [sys.executable, "-c", MAIN, *arguments]
    if head:
        command = ["sh", "-c", f'"$@" | {head}', "sh", *command]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )


@on_sqlite
def test_without_an_app(migrated_url: str, tmp_path: Path) -> None:
    """`beatstore --url` works in a process of its own, and imports no celery."""
    done = run("--url", migrated_url, "add", "a", "t.a", "@daily", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "a"
    code = (
        "import sys; sys.argv = sys.argv[1:]\n"
        "from beatstore.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'celery', 'kombu', 'alembic'} & set(sys.modules)))"
    )
    listed = subprocess.run(
        [sys.executable, "-c", code, "beatstore", "--url", migrated_url, "list"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert listed.stdout.splitlines()[-1] == "[]", listed.stderr


@on_sqlite
def test_a_closed_pipe_is_quiet(migrated_url: str, store: Store, tmp_path: Path) -> None:
    """`| head` ends the verb without a word."""
    for number in range(200):
        store.add(f"e{number}", "t.a", "@daily", description="x" * 500)
    given = ["--url", migrated_url, "list", "--all", "--json"]
    done = run(*given, cwd=tmp_path, head="head -n 1")
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@on_sqlite
@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        ("list >&-", 0, ""),
        ("add b t.a @daily >&-", 0, ""),
        ("top >&-", 0, ""),
        ("export >&-", 1, "the standard output is closed; write --output FILE"),
        ("load <&-", 2, "No file given"),
        ("prune <&-", 1, "write --yes"),
        ("prune --yes 2>&-", 0, ""),
    ],
)
def test_a_stream_that_is_closed(
    call: str, code: int, said: str, migrated_url: str, tmp_path: Path
) -> None:
    """Where a stream is closed, as some supervisors do, a verb does what it can without it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    *given, closed = call.split()
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", MAIN]
    done = subprocess.run(
        [*command, "--url", migrated_url, *given],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "AttributeError" not in done.stderr


@on_sqlite
def test_a_table_fits_the_terminal(migrated_url: str, store: Store, tmp_path: Path) -> None:
    """On a terminal long cells are cut, also where characters are wide; in a pipe none is."""
    store.add("日本" * 20, "t." + "a" * 100, "@daily", tags=["x" * 60])
    command = [sys.executable, "-c", MAIN, "--url", migrated_url, "list"]
    shown = on_a_terminal(command, columns=90, cwd=tmp_path)
    assert "…" in shown
    assert "日本" in shown
    widths = [sum(2 if ord(char) > 0x2E80 else 1 for char in line) for line in shown.splitlines()]
    assert max(widths) <= 90
    piped = run("--url", migrated_url, "list", cwd=tmp_path).stdout
    assert "a" * 100 in piped
    assert "…" not in piped


def on_a_terminal(command: list[str], *, columns: int, cwd: Path) -> str:
    """Return what a command writes to a terminal of so many columns, without its colours."""
    main, side = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "TERM": "xterm"}
    env.pop("NO_COLOR", None)
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=side, stderr=side, stdin=side)
    os.close(side)
    found = b""
    try:
        while part := os.read(main, 65536):
            found += part
    except OSError:  # Linux says so that the other end is closed
        pass
    finally:
        os.close(main)
        process.wait(timeout=60)
    text = found.decode().replace("\r\n", "\n")
    assert "\x1b[" in text, "no colours"
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@on_postgresql
def test_with_an_app(
    filesystem_broker: Broker,
    migrated_url: str,
    store: Store,
    new_project: Callable[..., Project],
) -> None:
    """`celery -A proj beatstore` works on the app's database, in the app's zone."""
    store.add("a", "t.a", "@daily")
    project = new_project(filesystem_broker, migrated_url, {"timezone": "Asia/Tokyo"})
    announce(project.directory)
    process = project.celery("beatstore", "list")
    assert process.wait() == 0
    assert "next due (Asia/Tokyo)" in process.output()
    assert "\na     t.a" in process.output()
    words = f"celery -A {project.app_name} beatstore show "
    variables = {"COMP_WORDS": words, "COMP_CWORD": "5", "_CELERY_COMPLETE": "bash_complete"}
    process = project.start([sys.executable, "-c", COMPLETE], env=variables)
    assert process.wait() == 0
    assert process.output().splitlines()[-1] == "plain,a"


def test_celery_without_an_app(tmp_path: Path) -> None:
    """A forgotten `-A` is a usage error, and makes no file; a configuration is enough."""
    announce(tmp_path)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    env = {name: value for name, value in env.items() if name not in ("BEATSTORE_URL", "APP")}

    def celery(*arguments: str) -> subprocess.CompletedProcess[str]:
        script = "import sys; from celery.__main__ import main; sys.argv[0] = 'celery'; main()"
        command = [sys.executable, "-c", script, "beatstore", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    for verb in ("list", "migrate"):
        done = celery(verb)
        assert done.returncode == 2
        assert "No app given. Write `celery -A proj beatstore …`" in done.stderr
    assert not list(tmp_path.glob("*.db"))
    url = f"sqlite:///{tmp_path}/x.db"
    assert celery("--url", url, "migrate").returncode == 0
    (tmp_path / "celeryconfig.py").write_text(f"beatstore_url = {url!r}\n")
    assert celery("list").returncode == 0
