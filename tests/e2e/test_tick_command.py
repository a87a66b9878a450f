"""`celery -A proj beatstore tick` in processes of its own, as a system's cron calls it."""

from __future__ import annotations

from datetime import timedelta

from beatstore import Once, Store
from tests.support.brokers import Broker
from tests.support.entrypoints import announce
from tests.support.marks import on_sqlite
from tests.support.project import NewProject


@on_sqlite
def test_cron_can_do_without_a_beat(
    filesystem_broker: Broker,
    migrated_url: str,
    store: Store,
    new_project: NewProject,
) -> None:
    """Ticks at the same time send each entry once, in the app's own way, and end by themselves."""
    for number in range(20):
        at = store.now() - timedelta(seconds=1)
        store.add(f"e{number}", "tests.note", Once(at), args=[number])
    project = new_project(filesystem_broker, migrated_url)
    announce(project.directory)
    ticks = [project.celery("beatstore", "tick") for _ in range(3)]
    assert [tick.wait() for tick in ticks] == [0, 0, 0], [tick.output() for tick in ticks]
    assert sum(int(tick.output().split(" sent")[0].split()[-1]) for tick in ticks) == 20
    sent = [message.args[0] for message in filesystem_broker.drain()]
    assert sorted(sent) == list(range(20))
    assert store.status().beats == []
