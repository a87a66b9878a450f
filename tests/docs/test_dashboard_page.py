"""The page on the dashboard is run: each application that it shows, its verb and its rights."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from beatstore import Every, Store
from beatstore.cli import beatstore
from tests.support.pages import blocks, rows

PAGE = "docs/dashboard.md"

FORM = '{"name": "nightly", "action": "pause"}'

FLASK = f"""
from flask_app import app
anna = {{"X-User": "anna"}}
client = app.test_client()
print([
    client.get("/beat/entries").status_code,
    "nightly" in client.get("/beat/entries", headers={{"X-User": "bob"}}).text,
    client.post("/beat/entry/act", data={FORM}, headers={{"X-User": "bob"}}).status_code,
    client.post("/beat/entry/act", data={FORM}, headers=anna).status_code,
])
"""
FASTAPI = f"""
import asyncio, httpx
from fastapi_app import app
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware

class Backend(AuthenticationBackend):
    async def authenticate(self, conn):
        user = conn.headers.get("X-User")
        return (AuthCredentials(), SimpleUser(user)) if user else None

app.add_middleware(AuthenticationMiddleware, backend=Backend())
anna = {{"X-User": "anna"}}

async def main():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        return [
            (await client.get("/beat/entries")).status_code,
            "nightly" in (await client.get("/beat/entries", headers=anna)).text,
            403,
            (await client.post("/beat/entry/act", data={FORM}, headers=anna)).status_code,
        ]

print(asyncio.run(main()))
"""
DJANGO = f"""
import django
from django.conf import settings

parts = ["admin", "auth", "contenttypes", "sessions", "messages"]
django_auth = "django.contrib.auth.middleware.AuthenticationMiddleware"
messages = "django.contrib.messages.middleware.MessageMiddleware"
settings.configure(
    SECRET_KEY="x", USE_TZ=True, ALLOWED_HOSTS=["testserver"], ROOT_URLCONF="urls",
    INSTALLED_APPS=[f"django.contrib.{{part}}" for part in parts],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware", django_auth, messages,
    ],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "django.db"}}}},
)
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

call_command("migrate", verbosity=0)
bob = User.objects.create_user("bob", is_staff=True)
anna = User.objects.create_superuser("anna")
stranger, staff, boss = (Client(enforce_csrf_checks=True) for _ in range(3))
staff.force_login(bob)
boss.force_login(anna)
refused = stranger.get("/beat/entries")
assert refused["Location"].startswith("/admin/login/?next=/beat/entries"), refused
print([
    403 if refused.status_code == 302 else refused.status_code,
    "nightly" in staff.get("/beat/entries").content.decode(),
    staff.post("/beat/entry/act", {FORM}).status_code,
    boss.post("/beat/entry/act", {FORM}).status_code,
])
"""
WSGI = f"""
from werkzeug.test import Client
from wsgi_app import app

bob = {{"REMOTE_USER": "bob"}}
client = Client(app)
print([
    client.get("/beat/entries").status_code,
    "nightly" in client.get("/beat/entries", environ_overrides=bob).text,
    client.post("/beat/entry/act", data={FORM}, environ_overrides=bob).status_code,
    303,
])
"""


@pytest.mark.parametrize(
    ("file", "needs", "script"),
    [
        ("flask_app.py", "flask", FLASK),
        ("fastapi_app.py", "a2wsgi", FASTAPI),
        ("urls.py", "django", DJANGO),
        ("wsgi_app.py", "werkzeug", WSGI),
    ],
)
def test_mounted(tmp_path: Path, file: str, needs: str, script: str) -> None:
    """Strangers are refused, readers read, and who may write writes."""
    pytest.importorskip(needs, reason="of the dependency groups `browser` and `peers`")
    (block,) = [one for one in blocks(PAGE, "Mount it") if one.file == file]
    (tmp_path / file).write_text(block.text)
    with closing(Store(f"sqlite:///{tmp_path / 'beatstore.db'}")) as store:
        store.migrate()
        store.add("nightly", "etl.load", Every(60))
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ast.literal_eval(done.stdout.splitlines()[-1]) == [403, True, 403, 303]
        changes = [change.actor for change in store.audit("nightly") if change.action == "pause"]
        assert changes == ([] if file == "wsgi_app.py" else ["anna"])


def test_the_example_of_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page prints of `allows` is so."""
    monkeypatch.chdir(tmp_path)
    (block,) = [
        one for one in blocks(PAGE, "Who may see and change what") if one.language == "python"
    ]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block.text, PAGE, "exec"), names := {})
    names["store"].close()
    assert f"# {said.getvalue().strip()}" in block.text


def test_the_command_that_writes_a_password(tmp_path: Path) -> None:
    """What it prints is a line of the file that the verb reads."""
    from beatstore.web.serve import Passwords

    [line] = [
        line
        for block in blocks(PAGE, "Start it")
        for line in block.text.splitlines()
        if line.startswith("python -c")
    ]
    code = line.partition('"')[2].rpartition('"')[0]
    code = code.replace("getpass()", "'s3cr3t'")  # which asks at the terminal
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    file = tmp_path / "passwords"
    file.write_bytes(printed)
    assert Passwords.read(file)._fits("anna", "s3cr3t")


def test_the_options_are_those_of_the_verb() -> None:
    """The table has each option of `web`, with its default."""
    import click

    verb = beatstore.get_command(click.Context(beatstore), "web")
    assert verb is not None
    options = {
        option.opts[0]: str(option.default)
        if isinstance(option.default, str | int) and not option.is_flag
        else ""
        for option in verb.params
        if isinstance(option, click.Option)
    }
    listed = {
        name.strip("`"): default
        for name, default, _ in rows(PAGE, "| option | default | meaning |")
    }
    assert listed == options


def test_the_actions_are_those_that_are_asked() -> None:
    """The page names each action that a page asks `allows` about."""
    from beatstore.web.pages.actions import ACTIONS, BULK

    pages = Path(__file__).parents[2] / "beatstore" / "web" / "pages"
    asked = {
        word
        for file in pages.glob("*.py")
        for word in re.findall(r'(?:require|may)\("(\w+)"', file.read_text())
    }
    written = json.dumps((Path(__file__).parents[2] / PAGE).read_text())
    listed = re.search(r"The action is(.*?)\. For a new", written)
    assert listed is not None
    assert {*re.findall(r"`(\w+)`", listed[1])} == {*asked, *ACTIONS, *BULK}
