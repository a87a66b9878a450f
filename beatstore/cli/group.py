"""The group of verbs: a verb's module is imported when the verb is called.

Invariants:
    * Any exception of a verb becomes one line on stderr and one of the exit codes below.
    * Passwords are removed from error texts before they are shown.

`BEATSTORE_DEBUG=1` also prints the traceback.
"""

from __future__ import annotations

import difflib
import importlib
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote_plus

import click

from beatstore.cli.writing import clean, say
from beatstore.errors import BeatstoreError, ConfigError, SchemaError, UnavailableError
from beatstore.text.secrets import hide, passwords
from beatstore.version import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["REFUSED", "UNREACHABLE", "USAGE", "Verbs", "fail", "in_a_line", "show_version"]

#: The exit codes; 0 means done.
REFUSED = 1
USAGE = 2
UNREACHABLE = 3

#: The exit code that shells expect after Ctrl-C.
_INTERRUPTED = 130

#: Shorter passwords are not removed: they could be part of any word.
_SHORTEST = 4

#: Each verb, and what other programs call it.
_SYNONYMS = {
    "list": "ls entries all jobs tasks crontab schedules",
    "show": "get info describe inspect view cat detail details entry",
    "add": "create new insert cron every put register",
    "change": "edit update set modify alter rename link unlink reschedule tag",
    "pause": "disable deactivate suspend stop off hold freeze mute",
    "resume": "enable activate unpause restart continue on unfreeze",
    "remove": "delete rm del destroy drop erase unschedule",
    "trigger": "start fire run-now now exec execute invoke launch send call",
    "schedule": "once at later delay apply-async eta",
    "cancel": "kill abort revoke",
    "next": "upcoming agenda preview due calendar future when",
    "runs": "history log logs past results executions",
    "errors": "failures failed exceptions tracebacks",
    "rerun": "retry redo replay resend repeat again",
    "end": "finish complete fail mark close",
    "why": "explain reason diagnose",
    "graph": "deps dependencies tree dag upstreams downstreams",
    "audit": "changes who blame edits",
    "migrate": "init upgrade setup install create-tables initdb db",
    "status": "stats overview ps beats workers state",
    "top": "live watch monitor htop today",
    "check": "health healthcheck ping probe doctor",
    "prune": "clean cleanup purge vacuum gc clear retention",
    "web": "dashboard ui gui browse browser serve server admin flower",
    "export": "dump backup save",
    "load": "restore loaddata",
    "import": "migrate-from move convert",
    "sync": "discover deploy push apply",
    "--version": "version",
    "--help": "help man usage",
}


class Verbs(click.Group):
    """A group that imports a command only when it is called.

    Args:
        verbs: by heading, the verbs with their "module:function" in `beatstore.cli` and
            their one-line summaries.
    """

    def __init__(
        self, *args: Any, verbs: Mapping[str, Mapping[str, tuple[str, str]]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = verbs
        self.verbs = {verb: found for section in verbs.values() for verb, found in section.items()}

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Decode the arguments as UTF-8, in every locale."""
        return super().make_context(info_name, [_typed(one) for one in args], parent, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help."""
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
        """Find the verb; for an unknown one, suggest another."""
        given = str(args[0])
        if given in self.verbs or given.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"No such command {given!r}. {_suggestion(given, self.verbs)}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs under their headings."""
        for heading, verbs in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(verb, line) for verb, (_, line) in verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a verb without importing it, or an option of the group."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  (rarely needed)

        found = [
            CompletionItem(verb, help=line)
            for verb, (_, line) in self.verbs.items()
            if verb.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the verb, and turn exceptions into one line and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
            raise  # click handles these; a broken pipe, as from `| head`, is no error
        except (KeyboardInterrupt, click.Abort):
            raise click.exceptions.Exit(_INTERRUPTED) from None
        except Exception as error:  # noqa: BLE001  (people get one line, no traceback)
            _report(ctx, error)
            raise click.exceptions.Exit(_code(error)) from None


def _typed(argument: str) -> str:
    """Return an argument as text; the C locale passes its bytes as lone surrogates."""
    try:
        return argument.encode(errors="surrogateescape").decode()
    except UnicodeError:
        return argument


def _suggestion(given: str, verbs: Iterable[str]) -> str:
    """Return what to write instead of an unknown verb."""
    word = given.lower().replace("_", "-")
    verb = next((to for to, words in _SYNONYMS.items() if word in words.split()), None)
    if verb is not None:
        return f"Write `{verb}` instead."
    known = {other: to for to, words in _SYNONYMS.items() for other in words.split()}
    known |= {verb: verb for verb in verbs}
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f"Did you mean `{known[near[0]]}`?" if near else "--help lists the commands."


def show_version(context: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the versions that a bug report should name."""
    if not value or context.resilient_parsing:
        return
    import platform  # noqa: PLC0415  (rarely needed)
    from importlib.metadata import version  # noqa: PLC0415

    parts = [f"{name} {version(name)}" for name in ("celery", "SQLAlchemy")]
    say(f"beatstore {__version__} ({', '.join([*parts, f'Python {platform.python_version()}'])})")
    context.exit()


def fail(message: str, code: int = REFUSED) -> click.exceptions.Exit:
    """Print an error, and return the exception that ends the verb, for the caller to raise."""
    say(f"beatstore: {clean(hide(message))}", err=True)
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
        say(shown, err=True)
    say(f"beatstore: {in_a_line(ctx, error)}", err=True)


def in_a_line(ctx: click.Context, error: Exception) -> str:
    """Return an error as one line of printable text, without passwords."""
    from beatstore.cli.advice import as_commands  # noqa: PLC0415  (rarely needed)

    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = ": ".join(filter(None, [error.strerror, str(error.filename or "")]))
    elif not isinstance(error, BeatstoreError):
        # SQLAlchemy appends the whole statement to what the driver says.
        text = str(getattr(error, "orig", None) or text)
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        text += " (BEATSTORE_DEBUG=1 shows where)"
    of_app = getattr(ctx.obj, "app", None) is not None
    return clean(hide(as_commands(" ".join(text.split()), of_app=of_app), _secrets(ctx)))


# -- passwords -----------------------------------------------------------------------------


def _secrets(ctx: click.Context) -> set[str]:
    """Return the passwords of this call, in each spelling that a message may have."""
    found: set[str] = set()
    for url in _urls(ctx):
        rest = url.partition("://")[2]
        user, at, _ = rest.rpartition("@")
        password = user.partition(":")[2]
        found |= passwords(rest)
        if at and password:
            # Some parsers end the password at an unescaped @, others do not.
            found |= {password, *password.split("@")}
    plain = {unquote_plus(secret) for secret in found}
    spelt = found | plain | {quote(one) for one in plain} | {quote_plus(one) for one in plain}
    return {secret for secret in spelt if len(secret) >= _SHORTEST}


def _urls(ctx: click.Context) -> Iterator[str]:
    """Yield all URLs that this call may connect to."""
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
    """Return a setting of the app; "" if reading it fails."""
    try:
        value = app.conf.get(name) if app is not None else None
    except Exception:  # noqa: BLE001  (others report a broken configuration)
        return ""
    render = getattr(value, "render_as_string", None)
    return str(render(hide_password=False) if render else value or "")
