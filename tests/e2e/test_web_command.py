"""`beatstore web` and `celery -A proj beatstore web` as real processes, asked as a browser asks."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from werkzeug.security import generate_password_hash

from beatstore import Every, Store
from tests.support.processes import ROOT, Process
from tests.support.wait import wait_until

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

Serve = Callable[..., tuple[Process, str]]

PAUSE = {"name": "nightly", "action": "pause"}

PROJ = """
from celery import Celery
app = Celery("proj", broker="memory://")
app.conf.beatstore_url = {url!r}
app.conf.beatstore_web_links = {{"Flower": "https://flower.example.org/task/{{task_id}}"}}
"""


@pytest.fixture
def serve(store: Store, tmp_path: Path) -> Iterator[Serve]:
    """Hand out what starts the verb at a free port, and returns its process and its address."""
    store.add("nightly", "t.x", Every(60))
    url = store.database.url.render_as_string(hide_password=False)
    (tmp_path / "proj.py").write_text(PROJ.format(url=url))
    ways = {"url": ["beatstore", "--url", url], "app": ["celery", "-A", "proj", "beatstore"]}
    running: list[Process] = []

    def start(*options: str, way: str = "url") -> tuple[Process, str]:
        script, *given = ways[way]
        argv = [str(Path(sys.executable).parent / script), *given, "web", "--port", "0", *options]
        env = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
        running.append(Process(argv, log=tmp_path / "log", cwd=tmp_path, env=env))
        running[-1].wait_for_output(")\n")
        found = re.search(r"http://\S+", running[-1].output())
        assert found is not None, running[-1].output()
        return running[-1], found[0]

    yield start
    for process in running:
        process.kill9()


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("way", "number"), [("url", signal.SIGTERM), ("app", signal.SIGINT)], ids=["url", "app"]
)
def test_the_address_that_is_printed(
    serve: Serve, store: Store, way: str, number: signal.Signals
) -> None:
    """It opens the dashboard once; a form works; a signal ends the process with 0."""
    process, address = serve(way=way)
    with httpx.Client(base_url=address.partition("?")[0], follow_redirects=True) as browser:
        shown = browser.get(address)
        assert shown.status_code == 200
        assert shown.url.query == b""
        assert "nightly" in browser.get("/entries").text
        assert browser.get("/static/style.css").headers["Content-Type"].startswith("text/css")
        own = {"Sec-Fetch-Site": "same-origin"}
        done = browser.post("/entry/act", data=PAUSE, headers=own, follow_redirects=False)
        assert done.status_code == 303
        assert store.get("nightly").state == "paused"
        foreign = browser.get("/entries", headers={"Host": "evil.example"})
        assert foreign.status_code == 403
        store.trigger("nightly")
        run = browser.get("/run", params={"id": store.runs("nightly")[0].id})
        assert ("flower.example.org" in run.text) is (way == "app")
    assert httpx.get(address).status_code == 403
    assert process.terminate(number=number) == 0
    assert not process.failed()


def test_it_ends_while_browsers_are_connected(serve: Serve) -> None:
    """Connections that are kept open do not keep the process."""
    process, address = serve("--read-only")
    with httpx.Client() as browser:
        assert browser.get(address).status_code == 303
        assert process.terminate(timeout=15) == 0


def test_passwords(serve: Serve, tmp_path: Path) -> None:
    """People sign in; the log holds nothing of it."""
    file = tmp_path / "passwords"
    file.write_text(f"anna:{generate_password_hash('s3cr3t')}\n")
    file.chmod(0o600)
    process, address = serve("--bind", "0.0.0.0", "--password-file", str(file), "--read-only")
    port = httpx.URL(address).port
    here = f"http://127.0.0.1:{port}/entries"
    assert httpx.get(here).status_code == 401
    assert "nightly" in httpx.get(here, auth=("anna", "s3cr3t")).text
    assert httpx.get(here, auth=("anna", "no")).status_code == 401
    assert "s3cr3t" not in process.output()
    assert "token" not in process.output()


def test_a_trusted_proxy(serve: Serve) -> None:
    """Its header names the user, also past the server's own care for headers."""
    _, address = serve("--trusted-proxy", "127.0.0.1", "--user-header", "Remote-User")
    page = httpx.get(
        f"{address}runs", headers={"Remote-User": "anna", "X-Forwarded-Prefix": "/beat"}
    )
    assert "anna" in page.text
    assert 'href="/beat/entries"' in page.text
    # The other spelling of the same variable of WSGI does not count.
    assert httpx.get(f"{address}runs", headers={"Remote_User": "anna"}).status_code == 403
    _, address = serve("--trusted-proxy", "192.0.2.1")
    assert httpx.get(address, headers={"X-Forwarded-User": "anna"}).status_code == 403


def test_a_large_form_is_refused(serve: Serve) -> None:
    """Nobody fills the disk, signed in or not."""
    _, address = serve()
    answer = httpx.post(address.partition("?")[0], content=b"x" * 2_000_000)
    assert answer.status_code == 413


def test_a_port_in_use(serve: Serve, store: Store, tmp_path: Path) -> None:
    """One line says so."""
    _, address = serve()
    url = store.database.url.render_as_string(hide_password=False)
    script = str(Path(sys.executable).parent / "beatstore")
    argv = [script, "--url", url, "web", "--port", str(httpx.URL(address).port)]
    second = Process(argv, log=tmp_path / "second", env={"PYTHONPATH": str(ROOT)})
    assert second.wait() == 1
    assert re.fullmatch(r"beatstore: cannot listen at 127\.0\.0\.1 port .*\n", second.output())


def test_without_the_extra(store: Store, tmp_path: Path) -> None:
    """Whoever lacks the packages is told what to install; other verbs need none of them."""
    url = store.database.url.render_as_string(hide_password=False)
    code = (
        "import sys\n"
        "for name in ('werkzeug', 'jinja2', 'waitress'): sys.modules[name] = None\n"
        "import beatstore\n"
        "from beatstore.cli import beatstore\n"
        f"beatstore(['--url', {url!r}, *sys.argv[1:]])\n"
    )

    def ended(*arguments: str) -> Process:
        argv = [sys.executable, "-c", code, *arguments]
        process = Process(argv, log=tmp_path / "other", env={"PYTHONPATH": str(ROOT)})
        wait_until(lambda: not process.running, 60)
        return process

    lacking = ended("web")
    assert lacking.returncode == 1
    assert 'pip install "beatstore[web]"' in lacking.output()
    assert ended("web", "--help").returncode == 0
    assert ended("list").returncode == 0
