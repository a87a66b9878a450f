"""Whoever opens the dashboard that serves itself is known, or sees nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.security import generate_password_hash
from werkzeug.test import Client, TestResponse, create_environ, run_wsgi_app

from beatstore import ConfigError, Every, Store
from beatstore.config import LINK_NAMES, Settings
from beatstore.web import Dashboard, serve
from tests.support.command import Command

pytestmark = pytest.mark.quick_on("sqlite")

Alone = Callable[..., Client]

PAUSE = {"name": "nightly", "action": "pause"}


@pytest.fixture(scope="module")
def hashed() -> str:
    """Hand out a hash of "s3cr3t"."""
    return generate_password_hash("s3cr3t")


@pytest.fixture
def passwords(hashed: str) -> serve.Passwords:
    return serve.Passwords({"anna": hashed})


@pytest.fixture
def alone(store: Store) -> Alone:
    store.add("nightly", "t.x", Every(60))

    def opened(login: serve.Login, **options: object) -> Client:
        return Client(serve.alone(store, login, **options))  # type: ignore[arg-type]

    return opened


def page(browser: Client, path: str = "/entries", **options: object) -> TestResponse:
    return browser.get(path, **options)


# -- passwords -----------------------------------------------------------------------------


def test_a_password_opens(alone: Alone, passwords: serve.Passwords, store: Store) -> None:
    """Whoever has one sees the pages, and the audit names them."""
    browser = alone(passwords)
    assert "nightly" in page(browser, auth=("anna", "s3cr3t")).text
    browser.post("/entry/act", data=PAUSE, auth=("anna", "s3cr3t"))
    assert store.audit("nightly")[0].actor == "anna"


@pytest.mark.parametrize(
    "given",
    [
        *(("anna", "s3cr3T"), ("anna", ""), ("bob", "s3cr3t"), ("", ""), ("anna:s3cr3t", "")),
        *(("anna", "s3cr3t "), ("anna", "ü")),
    ],
)
def test_other_passwords_do_not(
    alone: Alone, passwords: serve.Passwords, given: tuple[str, str]
) -> None:
    """The browser is told to ask; that a right password was given before helps nobody."""
    browser = alone(passwords)
    assert page(browser, auth=("anna", "s3cr3t")).status_code == 200
    for answer in (page(browser, auth=given), page(browser)):
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].lower().startswith("basic realm=")
        assert "nightly" not in answer.text


@pytest.mark.parametrize("header", ["Basic", "Basic %%%", "Bearer s3cr3t", "Basic YW5uYQ==", "x"])
def test_what_is_no_password(alone: Alone, passwords: serve.Passwords, header: str) -> None:
    """A header that means nothing is no fault of the dashboard's."""
    answer = page(alone(passwords), headers={"Authorization": header})
    assert answer.status_code == 401


def test_a_hash_is_worked_out_once(
    alone: Alone, passwords: serve.Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that was right is known again without the slow hash; a wrong one never is."""
    slow: list[str] = []
    real = serve.check_password_hash

    def counted(hashed: str, password: str) -> bool:
        slow.append(password)
        return real(hashed, password)

    monkeypatch.setattr(serve, "check_password_hash", counted)
    browser = alone(passwords)
    for password in ("s3cr3t", "s3cr3t", "no", "no", "s3cr3t"):
        page(browser, auth=("anna", password))
    assert slow == ["s3cr3t", "no", "no"]
    page(browser, auth=("nobody", "no"))
    assert len(slow) == 4  # so that a name can't be guessed by the time it takes


def test_the_file_of_passwords(tmp_path: Path, hashed: str) -> None:
    """It has a line for each person, comments and empty lines."""
    file = tmp_path / "passwords"
    file.write_text(f"# who may look\n\nanna:{hashed}\nbob : {hashed}\n")
    known = serve.Passwords.read(file)
    assert known._fits("anna", "s3cr3t")
    assert known._fits("bob", "s3cr3t")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "no line name:hash"),
        ("s3cr3t\n", "line 1 is not name:hash"),
        ("# a\n:scrypt:1$a$b\n", "line 2 is not name:hash"),
        ("anna:s3cr3t\n", "'anna' is no hash"),
        ("anna:plain$s3cr3t$x\n", "'anna' is no hash"),
        ("anna:{hashed}\nanna:{hashed}\n", "second time"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, hashed: str, written: str, said: str) -> None:
    """The line is named, and what stands there is not shown."""
    file = tmp_path / "passwords"
    file.write_text(written.replace("{hashed}", hashed))
    with pytest.raises(ValueError, match=said) as caught:
        serve.Passwords.read(file)
    assert "s3cr3t" not in str(caught.value)


# -- the token -----------------------------------------------------------------------------


def test_a_token_opens_one_browser(alone: Alone) -> None:
    """It is exchanged for a cookie that scripts and other sites can't use, and is out of sight."""
    login = serve.Token("anna")
    browser = alone(login)
    answer = page(browser, f"/?token={login.token}")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    for said in ("beatstore_80=", "HttpOnly", "SameSite=Strict", "Path=/"):
        assert said in cookie
    assert login.token not in cookie
    assert answer.headers["Cache-Control"] == "no-store"
    assert "nightly" in page(browser).text
    # Whoever opens the address once more in this browser is not locked out.
    assert page(browser, f"/?token={login.token}").status_code == 303


def test_a_token_works_once(alone: Alone) -> None:
    """A second browser is refused, with what to do."""
    login = serve.Token("anna")
    first = alone(login)
    assert page(first, f"/?token={login.token}").status_code == 303
    second = Client(first.application)
    answer = page(second, f"/?token={login.token}")
    assert answer.status_code == 403
    assert "works once" in answer.text
    assert page(first).status_code == 200


def test_two_browsers_at_once(alone: Alone) -> None:
    """Of requests with the token at the same time one gets the cookie."""
    login = serve.Token("anna")
    browsers = [alone(login)]
    browsers += [Client(browsers[0].application) for _ in range(7)]
    codes, ready = [], Barrier(len(browsers))

    def ask(browser: Client) -> None:
        ready.wait()
        codes.append(page(browser, f"/?token={login.token}").status_code)

    threads = [Thread(target=ask, args=(browser,)) for browser in browsers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [303] + [403] * 7


@pytest.mark.parametrize("given", ["", "x", "ü", "{token}x"])
def test_another_token_does_not_open(alone: Alone, given: str) -> None:
    """Nobody gets in by guessing, and guesses do not use the token up."""
    login = serve.Token("anna")
    browser = alone(login)
    wrong = given.replace("{token}", login.token)
    assert page(browser, "/entries", query_string={"token": wrong}).status_code == 403
    browser.set_cookie("beatstore_80", wrong or "x")
    assert page(browser).status_code == 403
    assert browser.head(f"/?token={login.token}").status_code == 403
    assert page(browser, f"/?token={login.token}").status_code == 303


def test_a_refusal_can_be_read(alone: Alone) -> None:
    """The page that refuses has its style sheet, which holds nothing of the database."""
    browser = alone(serve.Token("anna"))
    assert "style.css" in page(browser).text
    assert page(browser, "/static/style.css").status_code == 200


# -- a proxy -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        *(("10.0.0.7", 200), ("10.1.2.3", 200), ("fd00::1", 200), ("10.0.0.8", 403)),
        *(("127.0.0.1", 403), ("", 403), ("fd00::2", 403)),
    ],
)
def test_only_the_proxy_names_users(alone: Alone, peer: str, status: int, store: Store) -> None:
    """The header counts from trusted addresses; everybody else is refused, whatever they send."""
    login = serve.Proxy(["10.0.0.7", "10.1.0.0/16", "fd00::1"])
    browser = alone(login)
    asked = {"headers": {"X-Forwarded-User": "anna"}, "environ_overrides": {"REMOTE_ADDR": peer}}
    assert page(browser, **asked).status_code == status
    browser.post("/entry/act", data=PAUSE, **asked)
    assert (store.audit("nightly")[0].actor == "anna") is (status == 200)


def test_a_proxy_that_names_nobody(alone: Alone) -> None:
    """Without the header, or with an empty one, nobody is let in."""
    browser = alone(serve.Proxy(["127.0.0.1"], "Remote-User"))
    peer = {"REMOTE_ADDR": "127.0.0.1"}
    for headers in ({}, {"X-Forwarded-User": "anna"}, {"Remote-User": " "}):
        answer = page(browser, headers=headers, environ_overrides=peer)
        assert answer.status_code == 403
        assert "has to set the header Remote-User" in answer.text
    headers = {"Remote-User": "Jürgen".encode().decode("latin-1")}
    assert "Jürgen" in page(browser, headers=headers, environ_overrides=peer).text


def test_a_name_that_is_markup(alone: Alone) -> None:
    """The name of a user is text."""
    asked = {"headers": {"X-Forwarded-User": "<b>anna"}}
    shown = page(
        alone(serve.Proxy(["::1"])), environ_overrides={"REMOTE_ADDR": "::1"}, **asked
    ).text
    assert "&lt;b&gt;anna" in shown
    assert "<b>anna" not in shown


# -- hosts, and rights ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost", 200), ("LOCALHOST:8555", 200), ("127.0.0.1:1", 200), ("[::1]:1", 200)),
        *(("tools.example", 200), ("evil.example", 403), ("localhost.evil.example", 403)),
        *(("127.0.0.1.evil.example:8555", 403), ("a..b", 403), ("", 403)),
    ],
)
def test_a_foreign_name_of_this_host(alone: Alone, host: str, status: int) -> None:
    """A page of another site whose name leads here gets nothing: it asks for its own name."""
    hosts = {*serve.LOCAL_HOSTS, "tools.example"}
    browser = alone(lambda _: "anna", hosts=hosts)
    answer = page(browser, headers={"Host": host})
    assert answer.status_code == status
    assert ("nightly" in answer.text) is (status == 200)


def test_a_host_that_is_none_gets_nothing(alone: Alone) -> None:
    """A Host header that can't be read is refused, and is no fault."""
    browser = alone(lambda _: "anna", hosts=serve.LOCAL_HOSTS)
    environ = {**create_environ("/entries"), "HTTP_HOST": "[::1"}
    _, status, _ = run_wsgi_app(browser.application, environ)
    assert status.startswith("403")


def test_nobody_writes_where_all_only_read(alone: Alone, store: Store) -> None:
    """`--read-only` holds for everybody."""
    browser = alone(lambda _: "anna", read_only=True)
    assert browser.post("/entry/act", data=PAUSE).status_code == 403
    assert store.get("nightly").state == "active"


def test_other_sites_send_no_form(alone: Alone, passwords: serve.Passwords, store: Store) -> None:
    """A browser sends a password with every request, so the sender is looked at."""
    answer = alone(passwords).post(
        "/entry/act", data=PAUSE, auth=("anna", "s3cr3t"), headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403
    assert store.get("nightly").state == "active"


def test_a_prefix_of_the_proxy(store: Store) -> None:
    """Behind a proxy, its prefix is in links, and its scheme in cookies; else neither counts."""
    given = {"X-Forwarded-Prefix": "/beat", "X-Forwarded-Proto": "https"}
    dashboard = serve.alone(store, lambda _: "anna")
    listening = serve.server(dashboard, bind="127.0.0.1", port=0, behind_proxy=True)
    try:
        application = listening.application
        assert isinstance(application, ProxyFix)
        behind = Client(application).post("/zone", data={"zone": "UTC"}, headers=given)
        assert behind.headers["Location"] == "/beat/"
        assert "Secure" in behind.headers["Set-Cookie"]
    finally:
        listening.close()
    direct = Client(dashboard).post("/zone", data={"zone": "UTC"}, headers=given)
    assert direct.headers["Location"] == "/"
    assert "Secure" not in direct.headers["Set-Cookie"]


# -- links to other systems ----------------------------------------------------------------


def test_links_of_the_settings(store: Store) -> None:
    """A run's page has the links of `beatstore_web_links`; each of the names has a value."""
    template = "https://logs.example?" + "&".join(f"{name}={{{name}}}" for name in LINK_NAMES)
    settings = Settings.read({"beatstore_web_links": {"Logs": template}})
    store.add("nightly", "t.x", Every(60))
    store.trigger("nightly")
    (run,) = store.runs("nightly")
    with closing(Store(store.database.engine, settings=settings)) as other:
        shown = page(Client(Dashboard(other)), f"/run?id={run.id}").text
    assert f"https://logs.example?task_id={run.task_id}&amp;run_id={run.id}&amp;entry=nig" in shown


@pytest.mark.parametrize("links", [{"Logs": "x/{password}"}, {"Logs": "{"}, {"Logs": 1}, ["x"]])
def test_links_that_cannot_be_made(store: Store, links: Any) -> None:
    """A template of something else is refused at the start, not on the page of a run."""
    with pytest.raises(ConfigError, match="task_id"):
        Settings.read({"beatstore_web_links": links})
    with pytest.raises(ConfigError, match="task_id"):
        Dashboard(store, links=links)


# -- the verb ------------------------------------------------------------------------------


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.0.2.1", "::", "", "example.org"])
def test_nobody_else_is_let_in_by_accident(migrated_url: str, bind: str) -> None:
    """Whoever binds to the network has to say who may come."""
    done = Command(migrated_url)("web", "--bind", bind, "--port", "0")
    assert done.code == 2
    assert "--password-file FILE" in done.err
    assert "--trusted-proxy ADDRESS" in done.err


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine(bind: str) -> None:
    """These addresses are reached from here alone."""
    assert serve.is_local(bind)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--trusted-proxy", "proxy"], "--trusted-proxy: 'proxy' does not appear to be"),
        (["--trusted-proxy", "10.0.0.1/8"], "has host bits set"),
        (["--user-header", "X-User"], "--user-header needs --trusted-proxy"),
        (["--password-file", "{file}"], "is no hash of werkzeug.security"),
        (["--password-file", "{file}", "--trusted-proxy", "::1"], "not both"),
        (["--password-file", "/nowhere"], "does not exist"),
    ],
)
def test_wrong_options(migrated_url: str, tmp_path: Path, given: list[str], said: str) -> None:
    """What can't be used is refused before anything listens, in a line that shows no secret."""
    file = tmp_path / "passwords"
    file.write_text("anna:s3cr3t\n")
    file.chmod(0o600)
    done = Command(migrated_url)("web", *[one.replace("{file}", str(file)) for one in given])
    assert done.code == 2
    assert said in done.err
    assert "s3cr3t" not in done.err + done.out


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_a_file_that_others_read(migrated_url: str, tmp_path: Path, hashed: str) -> None:
    """Hashes that every user of the machine can read are worth a warning."""
    file = tmp_path / "passwords"
    file.write_text(f"anna:{hashed}\n")
    for mode, warned in ((0o644, True), (0o640, False)):
        file.chmod(mode)
        # An address of no machine: the verb ends when it would listen.
        given = ["--bind", "192.0.2.1", "--port", "0", "--password-file", str(file)]
        done = Command(migrated_url)("web", *given)
        assert done.code == 1
        assert "cannot listen at 192.0.2.1 port 0" in done.err
        assert ("chmod 600" in done.err) is warned
