"""Databases that other schedulers keep their tables in, and tasks of theirs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from beatstore import Store
from beatstore.moving.importer import Moved, move
from beatstore.moving.schedulers import SCHEDULERS, How
from tests.support.absent import absent
from tests.support.processes import ROOT

__all__ = [
    "ALCHEMY",
    "DJANGO",
    "HOUR",
    "LONG_AGO",
    "NOW",
    "PROGRAMS",
    "Theirs",
    "both",
    "clocked",
    "cron",
    "every",
    "moved",
    "task",
]

DJANGO, ALCHEMY = SCHEDULERS
PROGRAMS = {DJANGO: "django_beat", ALCHEMY: "sqlalchemy_beat"}
UTC = timezone.utc
NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

both = pytest.mark.parametrize("package", list(SCHEDULERS))


class Theirs:
    """A database that another scheduler keeps its tables in."""

    def __init__(self, package: str, url: str, **given: Any) -> None:
        self.package = package
        self.url = url
        self.given = given

    def write(self, *tasks: dict[str, Any], **given: Any) -> dict[str, float]:
        """Let the package itself write tasks, and return what it was asked."""
        module = self.package.replace("-", "_")
        if importlib.util.find_spec(module) is None:
            absent("peers", f"{self.package} is not installed")
        program = f"tests.integration.peers.{PROGRAMS[self.package]}"
        asked = {"url": self.url, "tasks": tasks, **self.given, **given}
        command = [sys.executable, "-m", program, json.dumps(asked)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def sql(self, *statements: str) -> list[Any]:
        """Run statements that the package would not, and return the rows of the last."""
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            done = [connection.execute(text(one)) for one in statements]
            return list(done[-1]) if done[-1].returns_rows else []

    @property
    def tasks(self) -> str:
        """The name of their table of tasks."""
        return SCHEDULERS[self.package].tables["tasks"]


def task(name: str, kind: str, rule: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Describe a task of theirs."""
    return {"name": name, "task": f"proj.{name}", "schedule": [kind, rule], **fields}


def cron(name: str, minute: str = "0", hour: str = "9", **fields: Any) -> dict[str, Any]:
    """Describe a task with a crontab, at nine each day in UTC."""
    rule = {"minute": minute, "hour": hour, "timezone": fields.pop("timezone", "UTC")}
    return task(name, "crontab", rule, **fields)


def every(name: str, count: int, period: str, **fields: Any) -> dict[str, Any]:
    """Describe a task with an interval."""
    return task(name, "interval", {"every": count, "period": period}, **fields)


def clocked(name: str, at: datetime, **fields: Any) -> dict[str, Any]:
    """Describe a task that runs once."""
    return task(name, "clocked", {"clocked_time": at.isoformat()}, one_off=True, **fields)


def moved(store: Store, theirs: Theirs, dry_run: bool = False, **how: Any) -> Moved:
    """Move over."""
    return move(store, theirs.package, how=How(**how), dry_run=dry_run)
