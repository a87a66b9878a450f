"""Real beats that start with entries in their code, and `celery beatstore sync`."""

from __future__ import annotations

import json

from beatstore import Store
from tests.support.brokers import Broker
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.project import NewProject
from tests.support.wait import wait_until

APP = "tests.support.declaring_app"
MODULE = f"module:{APP}"


@on_sqlite
def test_all_that_is_in_the_code_runs(
    filesystem_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """A beat and a worker, an app and an empty database are all that is needed."""
    project = new_project(filesystem_broker, migrated_url, app=APP)
    worker, beat = project.worker(), project.beat()
    runs = project.runs

    def args() -> list[list[object]]:
        return [run.args for run in runs()]

    wait_until(lambda: ["number", 2] in args(), 60, beat.output)
    wait_until(lambda: args().count(["added"]) >= 2, 30, beat.output)
    wait_until(lambda: args().count(["decorated"]) == 2, 30, beat.output)
    assert "imported entries from code: 8 created, 0 updated" in beat.output()
    assert {entry.name: entry.source for entry in store.entries()} == {
        **dict.fromkeys(("added", "daily", "lazy", "leaves", "relative"), "beat_schedule"),
        "celery.backend_cleanup": "beat_schedule",
        **dict.fromkeys(("listed", "tests.decorated"), MODULE),
    }
    assert store.get("added").options["queue"] == filesystem_broker.queue
    assert beat.terminate() == 0
    assert worker.terminate() == 0


@on_postgresql
def test_a_deployment_keeps_what_people_did(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """Several beats of the new code start at once: one imports, and edits and pauses stay."""
    project = new_project(redis_broker, migrated_url, app=APP)
    first = project.beat()
    first.wait_for_output("imported entries from code: 8 created")
    assert first.terminate() == 0
    store.pause("lazy")
    store.change("daily", schedule="30 5 * * *")
    later = {"BEATSTORE_TEST_LATER": "1"}
    beats = [project.beat(env=later) for _ in range(3)]
    for beat in beats:
        beat.wait_for_output("imported entries from code: ")
    said = "".join(beat.output() for beat in beats)
    assert said.count("1 deactivated") == 1
    assert said.count("0 created, 0 updated, 0 deactivated") == 2
    assert store.get("lazy").state == "paused"
    assert (store.get("daily").spec, store.get("leaves").state) == ("30 5 * * *", "cancelled")
    for beat in beats:
        assert "'daily' of beat_schedule keeps its edits" in beat.output()
        assert beat.terminate() == 0


@on_postgresql
def test_the_verb_does_what_beat_does(
    redis_broker: Broker, migrated_url: str, new_project: NewProject, store: Store
) -> None:
    """`celery -A proj beatstore sync` stores all of it, says what, and has its exit codes."""
    project = new_project(redis_broker, migrated_url, app=APP)

    def sync(*options: str, code: int = 0) -> str:
        process = project.celery("beatstore", "sync", *options)
        assert process.wait(60) == code, process.output()
        return process.output()

    planned = sync("--dry-run")
    assert "beat_schedule: 6 created" in planned
    assert f"{MODULE}: 2 created" in planned
    assert store.entries() == []
    (one,) = json.loads(sync("--module", APP, "--json"))
    assert (one["source"], one["created"]) == (MODULE, ["listed", "tests.decorated"])
    assert [entry.name for entry in store.entries()] == ["listed", "tests.decorated"]
    store.add("daily", "tests.note", "0 4 * * *")
    said = sync(code=1)
    assert "refused: daily" in said
    assert "beat_schedule: 5 created" in said
    assert "the app imports or autodiscovers" in sync("--module", "tests.support.wait", code=1)
