"""The verb that serves the dashboard."""

from __future__ import annotations

import signal
import stat
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click
from click.core import ParameterSource

from beatstore.cli.context import open_store
from beatstore.cli.group import fail
from beatstore.cli.writing import note, say
from beatstore.store.audit import os_user

if TYPE_CHECKING:
    from beatstore.web.serve import Login

__all__ = ["web"]


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8555,
    show_default=True,
    help="Port to listen at; 0 takes a free one.",
)
@click.option(
    "--bind",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at.",
)
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Further host name that browsers may ask for; repeat it for more.",
)
@click.option(
    "--password-file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ask for a name and password; each line of the file is name:hash.",
)
@click.option(
    "--trusted-proxy",
    "proxies",
    metavar="ADDRESS",
    multiple=True,
    help="Only answer this proxy, which names the user; an address or a network, repeatable.",
)
@click.option(
    "--user-header",
    default="X-Forwarded-User",
    show_default=True,
    help="Header in which the proxy names the user.",
)
@click.option("--read-only", is_flag=True, help="Let nobody change anything.")
@click.pass_context
def web(
    context: click.Context,
    *,
    port: int,
    bind: str,
    hosts: tuple[str, ...],
    file: Path | None,
    proxies: tuple[str, ...],
    user_header: str,
    read_only: bool,
) -> None:
    """Serve the dashboard to browsers, until Ctrl-C or SIGTERM.

    Without --password-file or --trusted-proxy, it prints an address with a token. The token
    works once, in one browser of this machine.
    """
    try:
        from beatstore.web import serve  # noqa: PLC0415  (of the extra `web`)
    except ModuleNotFoundError as error:
        raise fail(f'{error}: write `pip install "beatstore[web]"`') from None
    local = serve.is_local(bind)
    if not local and file is None and not proxies:
        raise click.UsageError(
            f"--bind {bind} lets other machines in: also write --password-file FILE, or "
            "--trusted-proxy ADDRESS for a proxy that signs people in.",
            context,
        )
    login = _login(context, file, proxies, user_header)
    store = open_store(context)
    store.database.program = "beatstore-web"
    store.check()
    known = {name.lower() for name in (*serve.LOCAL_HOSTS, bind, *hosts)}
    dashboard = serve.alone(
        store, login, hosts=known if local or hosts else None, read_only=read_only
    )
    try:
        server = serve.server(dashboard, bind=bind, port=port, behind_proxy=bool(proxies))
    except OSError as error:
        raise fail(f"cannot listen at {bind} port {port}: {error.strerror or error}") from None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    address = f"http://{f'[{bind}]' if ':' in bind else bind}:{server.effective_port}/"
    if isinstance(login, serve.Token):
        say(f"Open {address}?token={login.token} (works once; Ctrl-C ends the dashboard)")
    else:
        say(f"The dashboard is at {address} (Ctrl-C ends it)")
    server.run()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)  # the server stops, and finishes what it is at


def _login(
    context: click.Context, file: Path | None, proxies: Sequence[str], user_header: str
) -> Login:
    """Return what says who sends a request."""
    from beatstore.web import serve  # noqa: PLC0415  (of the extra `web`)

    if file is not None and proxies:
        raise click.UsageError("write --password-file or --trusted-proxy, not both", context)
    if not proxies and context.get_parameter_source("user_header") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--user-header needs --trusted-proxy", context)
    try:
        if proxies:
            return serve.Proxy(proxies, user_header)
        if file is not None:
            if file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
                note(f"other users of this machine can read {file}: write `chmod 600 {file}`")
            return serve.Passwords.read(file)
    except ValueError as error:
        option = "--trusted-proxy" if proxies else f"--password-file {file}"
        raise click.UsageError(f"{option}: {error}", context) from None
    return serve.Token(os_user())
