"""The command line, called in this process: `beatstore --url …`, or as `celery -A` calls it.

    call = Command(url)
    done = call("list", "--json")
    assert done.code == 0
    assert [row["name"] for row in done.json] == ["a"]

What a verb prints for people is in `done.lines`, and what it says beside that in `done.err`.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from celery import Celery
from click.testing import CliRunner

from beatstore.cli import beatstore

__all__ = ["WAYS", "Command", "Done", "names"]

#: Whose database it is: that of `--url`, or that of a Celery app.
WAYS = ("url", "app")


@dataclass(frozen=True)
class Done:
    """What a call came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What `--json` printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """The lines that were printed."""
        return self.out.splitlines()


class Command:
    """Calls verbs on one database.

    Args:
        url: of the database.
        way: one of `WAYS`.
        settings: further settings of the app.
    """

    def __init__(self, url: str, way: str = "url", **settings: Any) -> None:
        self.arguments = ["--url", url] if way == "url" else []
        self.context: Any = None
        if way == "app":
            app = Celery("tests.command", set_as_current=False)
            app.conf.update(beatstore_url=url, broker_url="memory://", **settings)
            self.context = SimpleNamespace(app=app, no_color=False)

    def __call__(self, *arguments: str, stdin: str = "", env: Any = None) -> Done:
        """Call a verb.

        An exception that reaches the terminal fails the test, and so does a traceback that
        was not asked for.
        """
        # What older versions of click have to be told, newer ones do anyway.
        mix = "mix_stderr" in inspect.signature(CliRunner).parameters
        runner = CliRunner(mix_stderr=False) if mix else CliRunner()  # type: ignore[call-arg]
        given = [*self.arguments, *arguments]
        result = runner.invoke(beatstore, given, obj=self.context, input=stdin, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "BEATSTORE_DEBUG" in (env or {}) or "Traceback" not in result.stderr
        return Done(result.exit_code, result.stdout, result.stderr)


def names(done: Done) -> list[str]:
    """Return the names that `--json` printed."""
    return [row["name"] for row in done.json]
