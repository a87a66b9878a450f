"""The schedule of a made-up company, Lumen Books, with a made-up past.

`fill(store)` adds its entries, and runs as if beat and the workers had been at work for 90 days:
most succeeded, some were late, failed and were retried, and one night the warehouse was down.
`make demo-web` and `make screenshots` show it.
"""

import random
import uuid
from datetime import datetime, timedelta, timezone

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from beatstore import After, Cron, Every, RRule, Store
from beatstore.models import BeatModel, EntryModel, RunModel, WorkerModel

ZONE = "Europe/Berlin"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAYS = 90
MOST = 2500  # runs of one entry

#: Name, task, schedule, options, usual seconds of a run, share of runs that fail.
ENTRIES = [
    ("orders.import", "shop.import_orders", Every(300, START), {"tags": ["shop"]}, 4, 0.004),
    (
        "stock.sync",
        "shop.sync_stock",
        Every(600, START),
        {"tags": ["shop"], "jitter": 30},
        11,
        0.01,
    ),
    ("carts.expire", "shop.expire_carts", Cron("15 * * * *"), {"tags": ["shop"]}, 2, 0),
    ("prices.update", "shop.update_prices", Cron("0 */2 * * *"), {"tags": ["shop"]}, 38, 0.02),
    ("fraud.check", "shop.check_fraud", Cron("*/15 * * * *"), {"overlap": "skip"}, 95, 0.01),
    ("backup.database", "ops.backup", Cron("30 1 * * *"), {"tags": ["ops"]}, 610, 0.01),
    ("backup.verify", "ops.verify", None, {"after": ["backup.database"], "tags": ["ops"]}, 140, 0),
    (
        "etl.extract",
        "etl.extract",
        Cron("0 2 * * *"),
        {"tags": ["etl"], "max_retries": 2},
        380,
        0.03,
    ),
    ("etl.clean", "etl.clean", None, {"after": ["etl.extract"], "tags": ["etl"]}, 220, 0.01),
    ("etl.load", "etl.load", None, {"after": ["etl.clean"], "tags": ["etl"]}, 340, 0.02),
    (
        "report.sales",
        "report.sales",
        Cron("0 6 * * mon-fri"),
        {"after": ["etl.load"], "tags": ["report"]},
        25,
        0.01,
    ),
    ("report.stock", "report.stock", None, {"after": ["etl.load"], "tags": ["report"]}, 31, 0.01),
    (
        "report.mail",
        "report.mail",
        None,
        {"after": [After("report.sales", on="done"), "report.stock"], "tags": ["report"]},
        3,
        0,
    ),
    ("invoices.monthly", "billing.invoices", Cron("0 7 1 * *"), {"tags": ["billing"]}, 900, 0),
    ("invoices.remind", "billing.remind", Cron("0 9 * * mon"), {"tags": ["billing"]}, 44, 0.05),
    (
        "newsletter",
        "mail.newsletter",
        RRule("FREQ=WEEKLY;BYDAY=TH;BYHOUR=17;BYMINUTE=0;BYSECOND=0"),
        {},
        70,
        0,
    ),
    ("search.reindex", "search.reindex", Cron("0 4 * * sun"), {"misfire": "skip"}, 1900, 0.08),
    ("partners.feed", "partners.feed", Cron("20 5 * * *"), {"tags": ["partners"]}, 66, 0.3),
    ("sitemap", "search.sitemap", Cron("45 3 * * *"), {"tags": ["search"]}, 9, 0),
]

ERRORS = {
    "etl.extract": "OperationalError: connection to warehouse:5432 timed out after 30 s",
    "partners.feed": "HTTPError: 502 Bad Gateway from feed.partner.example",
    "prices.update": "ValueError: price of article 9783161484100 is negative",
}
TRACEBACK = """Traceback (most recent call last):
  File "/srv/lumen/tasks.py", line 88, in wrapper
    return task(*args, **kwargs)
  File "/srv/lumen/shop.py", line 214, in run
    rows = fetch(since, limit=5000)
{error}
"""


def fill(store: Store, task: str | None = None) -> None:
    """Add the entries and their past; and without a task of yours, beats and workers too.

    Args:
        store: a migrated store without entries.
        task: the task that all of them send; None for the company's own, which do not exist.
    """
    now = store.now()
    for name, own, schedule, options, _, _ in ENTRIES:
        store.add(name, task or own, schedule, timezone=ZONE, kwargs={"region": "de"}, **options)
    store.by("maria", reason="the partner changes its format").pause("partners.feed")
    store.by("jonas").change("invoices.remind", max_retries=1, retry_delay=3600)
    rng = random.Random(7)
    with Session(store.database.engine) as session:
        first = now - timedelta(days=DAYS)
        session.execute(update(EntryModel).values(created_at=first))
        for name, _, schedule, _, seconds, failing in ENTRIES:
            entry = store.get(name)
            dues = _dues(entry, schedule, now)
            runs = [row for due in dues for row in _runs(rng, entry, due, seconds, failing)]
            if runs:
                session.execute(insert(RunModel), runs)
                _count(session, entry, runs)
        if task is None:
            _processes(session, now)
            ahead = update(EntryModel).where(EntryModel.next_due_at.is_not(None))
            session.execute(ahead.values(wake_at=EntryModel.next_due_at))
        session.commit()


def _dues(entry, schedule, now: datetime) -> list[datetime]:
    """Return the due times of the past; an entry without a schedule ran each night."""
    schedule = schedule or Cron("40 2 * * *")
    first = now - timedelta(days=DAYS)
    return schedule.in_zone(ZONE).anchored(first).between(first, now, 10**6)[-MOST:]


def _runs(rng, entry, due: datetime, seconds: float, failing: float) -> list[dict]:
    """Return the attempts of one occurrence."""
    down = entry.name.startswith("etl.") and (due.toordinal() % 37) == 5
    attempts = []
    for attempt in range(1, 4):
        late = rng.expovariate(1 / 0.05) + (due.minute == 0) * rng.random()
        sent = due + timedelta(seconds=late + (attempt - 1) * 300)
        started = sent + timedelta(seconds=rng.expovariate(2))
        ended = started + timedelta(seconds=seconds * rng.uniform(0.7, 1.5))
        failed = down or rng.random() < failing
        error = ERRORS.get(entry.name, "TimeoutError: no answer within 20 s")
        attempts.append(
            {
                "entry_id": entry.id,
                "entry_name": entry.name,
                "due_at": due,
                "attempt": attempt,
                "task_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                "state": "failed" if failed else "succeeded",
                "sent_at": sent,
                "started_at": started,
                "finished_at": ended,
                "worker": f"celery@lumen-{rng.choice('12')}",
                "error": error if failed else None,
                "traceback": TRACEBACK.format(error=error) if failed else None,
            }
        )
        if not failed or attempt > entry.max_retries:
            break
    return attempts


def _count(session, entry, runs: list[dict]) -> None:
    """Let the entry's counters say the same."""
    failed = sum(run["state"] == "failed" for run in runs)
    session.execute(
        update(EntryModel)
        .where(EntryModel.id == entry.id)
        .values(
            run_count=len(runs),
            done_seq=len(runs),
            failure_seq=failed,
            success_seq=len(runs) - failed,
            last_run_at=runs[-1]["sent_at"],
        )
    )


def _processes(session, now: datetime) -> None:
    """Add two beats and two workers, all alive."""
    up = now - timedelta(days=11, hours=3)
    for number in "12":
        beat = {"id": str(uuid.UUID(int=int(number))), "host": f"lumen-{number}", "pid": 41}
        alive = {"version": "0.1.0", "started_at": up, "heartbeat_at": now + timedelta(days=1)}
        figures = {"tzdata": "2026b", "tick_s": 0.004, "planned": 73_412, "sent": 73_410}
        figures["step"] = "push: from templates, with one LPUSH for each queue and batch"
        session.execute(insert(BeatModel).values(**beat, **alive, **figures))
        worker = {"id": str(uuid.UUID(int=10 + int(number))), "name": f"celery@lumen-{number}"}
        session.execute(insert(WorkerModel).values(**worker, pid=57, **alive, running=0))
