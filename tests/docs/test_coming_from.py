"""The page "Coming from …" is run: each pair of blocks, and their due times compared.

The packages that the first blocks are written for come with the group `peers`; without one
of them its pair is skipped.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab, maybe_schedule
from click.testing import CliRunner

from beatstore import ManualClock, Store
from beatstore.cli import beatstore
from tests.support.brokers import Broker

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming-from.md"
NOW = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


def blocks(heading: str) -> list[str]:
    """Return the two fenced blocks of a section."""
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    [text] = [part for part in section if part.startswith(f"{heading}\n")]
    found = re.findall(r"^```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 2
    return found


@pytest.fixture
def app() -> Iterator[Any]:
    app: Any = Celery("proj", broker="memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(
        Store(f"sqlite:///{tmp_path / 'now.db'}", clock=ManualClock(NOW))
    ) as store:
        store.migrate()
        yield store


def run(block: str, **names: Any) -> dict[str, Any]:
    exec(compile(block, PAGE.name, "exec"), names)
    return names


def times_of(schedule: crontab, count: int = 3) -> list[datetime]:
    """Return when celery's own schedule is due after NOW."""
    found: list[datetime] = []
    last = NOW
    for _ in range(count):
        schedule.nowfun = lambda now=last: now
        last = (last + schedule.remaining_estimate(last)).astimezone(timezone.utc)
        found.append(last)
    return found


def call_of(entry: Any) -> tuple[Any, ...]:
    return entry.task, entry.args, entry.kwargs, entry.options


def test_from_beat_schedule(app: Any, store: Store) -> None:
    """A `beat_schedule` and the entries put instead of it send the same, at the same times."""
    there, here = blocks("Celery's beat_schedule")
    run(there, app=app)
    run(here, store=store)
    given = app.conf.beat_schedule
    assert [entry.name for entry in store.entries()] == sorted(given)
    for name, one in given.items():
        called = (one["task"], one.get("args", []), one.get("kwargs", {}), one.get("options", {}))
        assert call_of(store.get(name)) == called
    assert store.preview("report", 3) == times_of(given["report"]["schedule"])
    first, second = store.preview("ping", 2)
    assert second - first == maybe_schedule(given["ping"]["schedule"]).run_every


def test_from_redbeat(app: Any, store: Store, redis_broker: Broker) -> None:
    """RedBeat's entry, saved in a real Redis, and the one put instead are due together."""
    pytest.importorskip("redbeat")
    there, here = blocks("RedBeat")
    app.conf.update(redbeat_redis_url=redis_broker.url, redbeat_key_prefix="coming-from:")
    entry = run(there, app=app)["entry"]
    try:
        run(here, store=store)
        made = store.get("report")
        assert (made.task, made.args) == (entry.task, entry.args)
        assert store.preview("report", 3) == times_of(entry.schedule)
    finally:
        entry.delete()


def test_from_apscheduler(app: Any, store: Store) -> None:
    """APScheduler's job and the entry put instead have the same rule and the same policies."""
    pytest.importorskip("apscheduler")

    @app.task(name="proj.report", shared=False)
    def report(city: str) -> None:
        """Do nothing."""

    there, here = blocks("APScheduler")
    # The job is only added to a scheduler that never starts; its function must be importable.
    [job] = run(there, report="builtins:print")["scheduler"].get_jobs()
    run(here, store=store, report=report)
    made = store.get(job.id)
    assert made.args == list(job.args)
    assert made.grace_s == job.misfire_grace_time
    assert (made.jitter_s, made.overlap) == (job.trigger.jitter, "skip")
    assert (job.coalesce, job.max_instances) == (True, 1)
    job.trigger.jitter = None
    expected: list[datetime] = []
    for _ in range(5):
        after = expected[-1] + timedelta(seconds=1) if expected else NOW
        expected.append(job.trigger.get_next_fire_time(None, after))
    assert store.preview("report", 5) == expected


def test_from_cron(store: Store) -> None:
    """The entries have the five fields of the lines of the crontab, and its zone."""
    there, here = blocks("cron")
    run(here, store=store)
    zone, *lines = there.splitlines()
    fields = {line.split()[-1].rpartition("/")[2]: line.split()[:5] for line in lines}
    fields["report"] = fields.pop("Berlin")
    assert {entry.name: entry.spec.split() for entry in store.entries()} == fields
    assert {f"CRON_TZ={entry.timezone}" for entry in store.entries()} == {zone}
    assert store.get("sync").overlap == "skip"
    jitter = int(re.search(r"RANDOM \\% (\d+)", there)[1])  # type: ignore[index]
    assert store.get("close-month").jitter_s == jitter


DJANGO = """
import sys
import django
from django.conf import settings

tables = {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}
settings.configure(
    DATABASES={"default": tables},
    INSTALLED_APPS=["django_celery_beat"],
    MIGRATION_MODULES={"django_celery_beat": None},
    USE_TZ=True,
)
django.setup()
from django.core.management import call_command

call_command("migrate", run_syncdb=True, verbosity=0)
exec(sys.argv[2])
"""


def test_from_django_celery_beat(store: Store, tmp_path: Path) -> None:
    """Django's rows, written by its own models and imported, are the entry put instead."""
    pytest.importorskip("django_celery_beat")
    there, here = blocks("django-celery-beat")
    rows = tmp_path / "django.db"
    subprocess.run([sys.executable, "-c", DJANGO, str(rows), there], check=True)
    moved = Store(f"sqlite:///{tmp_path / 'moved.db'}", clock=ManualClock(NOW))
    with contextlib.closing(moved):
        moved.migrate()
        given = ["--url", str(moved.database.url), "import", "--from", "django-celery-beat"]
        said = CliRunner().invoke(beatstore, [*given, "--url", f"sqlite:///{rows}"])
        assert said.exit_code == 0, said.output
        run(here, store=store)
        put, imported = store.get("report"), moved.get("report")
        for field in ("task", "args", "kwargs", "options", "timezone", "misfire", "state"):
            assert getattr(imported, field) == getattr(put, field), field
        assert moved.preview("report", 5) == store.preview("report", 5)
