"""The group of verbs: a verb's module is imported when the verb is called.

Invariants:
    * Whatever a verb raises ends as one line on stderr and one of the exit codes below.
    * No text of an error is shown before the passwords are taken out of it.

`BEATSTORE_DEBUG=1` shows the traceback of what nobody expected.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote_plus

import click

from beatstore.errors import BeatstoreError, ConfigError, SchemaError, UnavailableError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["REFUSED", "UNREACHABLE", "USAGE", "Verbs", "clean", "fail", "hide"]

#: The exit codes, beside 0 for done.
REFUSED = 1
USAGE = 2
UNREACHABLE = 3

#: What a shell expects of a command that Ctrl-C ended.
_INTERRUPTED = 130

#: A password in any URL inside a text.
_IN_URL = re.compile(r"(?<=://)([^\s/:@'\"]*):[^\s'\"]*@(?=[^\s@])")

#: A password among the parameters of a URL or of a connection.
_IN_QUERY = re.compile(r"(?i)\b((?:ssl)?passw(?:or)?d|passphrase)(['\"]?\s*[=:]\s*)([^\s&,;)]+)")

#: Shorter ones could stand in any word.
_SHORTEST = 4

#: The packages that speak to databases, and the extra that installs each.
_DRIVERS = {
    **{"psycopg": "beatstore[postgres]", "psycopg2": "psycopg2-binary"},
    **{"pymysql": "beatstore[mysql]", "MySQLdb": "mysqlclient"},
}


class Verbs(click.Group):
    """A group that knows its commands by name, and imports the one that is called.

    Args:
        verbs: headings; under each the verbs, with "module:function" in `beatstore.cli`
            and the line of help.
    """

    def __init__(
        self, *args: Any, verbs: Mapping[str, Mapping[str, tuple[str, str]]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = verbs
        self.verbs = {verb: found for section in verbs.values() for verb, found in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs, in the order of the help."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in self.verbs:
            return None
        module, _, function = self.verbs[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(f"beatstore.cli.{module}"), function)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that is called; of a misspelt one, say what it may have been."""
        given = str(args[0])
        if given in self.verbs or given.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(given, self.verbs, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else " See --help."
        raise click.UsageError(f"No such command {given!r}.{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs under their headings."""
        for heading, verbs in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(verb, line) for verb, (_, line) in verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a verb, without importing it; or an option of the group."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  (rarely needed)

        found = [
            CompletionItem(verb, help=line)
            for verb, (_, line) in self.verbs.items()
            if verb.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the verb, and turn what it raises into a line and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
            raise  # click's own, which knows what to do; `| head` is nobody's mistake
        except (KeyboardInterrupt, click.Abort):
            raise click.exceptions.Exit(_INTERRUPTED) from None
        except Exception as error:  # noqa: BLE001  (a traceback is no answer to a person)
            _report(ctx, error)
            raise click.exceptions.Exit(_code(error)) from None


def fail(message: str, code: int = REFUSED) -> click.exceptions.Exit:
    """Say why a verb ends, and return the exception that ends it, for the caller to raise."""
    click.echo(f"beatstore: {clean(hide(message))}", err=True)
    return click.exceptions.Exit(code)


def _code(error: Exception) -> int:
    if isinstance(error, UnavailableError | SchemaError):
        return UNREACHABLE
    return USAGE if isinstance(error, ConfigError) else REFUSED


def _report(ctx: click.Context, error: Exception) -> None:
    """Write an error as one line."""
    if os.environ.get("BEATSTORE_DEBUG", "0") not in ("", "0"):
        lines = "".join(traceback.format_exception(error))
        shown = "\n".join(map(clean, hide(lines, _secrets(ctx)).splitlines()))
        click.echo(shown, err=True)
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = ": ".join(filter(None, [error.strerror, str(error.filename or "")]))
    elif not isinstance(error, BeatstoreError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        text += _hint(error)
    line = hide(" ".join(text.split()), _secrets(ctx))
    click.echo(f"beatstore: {clean(line)}", err=True)


def _hint(error: Exception) -> str:
    package = _DRIVERS.get(getattr(error, "name", None) or "")
    if isinstance(error, ModuleNotFoundError) and package:
        return f" (write `pip install {package!r}`)"
    return " (BEATSTORE_DEBUG=1 shows where)"


def clean(text: str) -> str:
    """Return text on one line that can't steer a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    # Half of a surrogate pair could not even be written.
    return " " if char.isspace() else char.encode("unicode_escape", "surrogatepass").decode()


# -- passwords -----------------------------------------------------------------------------


def hide(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without passwords: those of any URL in it, and those given."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _IN_URL.sub(r"\1:***@", text)
    return _IN_QUERY.sub(r"\1\2***", text)


def _secrets(ctx: click.Context) -> set[str]:
    """Return the passwords that this call knows, as they may be spelt in a message."""
    found: set[str] = set()
    for url in _urls(ctx):
        rest = url.partition("://")[2]
        user, at, _ = rest.rpartition("@")
        password = user.partition(":")[2]
        found |= {match[3] for match in _IN_QUERY.finditer(rest)}
        if at and password:
            # Unescaped, an @ in it ends the password for some readers, and not for others.
            found |= {password, *password.split("@")}
    plain = {unquote_plus(secret) for secret in found}
    spelt = found | plain | {quote(one) for one in plain} | {quote_plus(one) for one in plain}
    return {secret for secret in spelt if len(secret) >= _SHORTEST}


def _urls(ctx: click.Context) -> Iterator[str]:
    """Yield every URL that this call may connect to."""
    yield str(ctx.params.get("url") or "")
    yield os.environ.get("BEATSTORE_URL", "")
    yield from ctx.meta.get("beatstore.cli.urls", ())  # of a verb that has others
    store = ctx.meta.get("beatstore.cli.store")
    if store is not None:
        yield store.database.url.render_as_string(hide_password=False)
    app = getattr(ctx.obj, "app", None)
    for setting in ("beatstore_url", "broker_url", "broker_read_url", "broker_write_url"):
        yield _setting(app, setting)
    yield _setting(app, "result_backend")


def _setting(app: Any, name: str) -> str:
    """Return a setting of the app; "" where it can't be read, which may be the error."""
    try:
        value = app.conf.get(name) if app is not None else None
    except Exception:  # noqa: BLE001  (a broken configuration is told of elsewhere)
        return ""
    render = getattr(value, "render_as_string", None)
    return str(render(hide_password=False) if render else value or "")
