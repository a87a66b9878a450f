"""What users put on top of beat keeps working: each package for real, in its own process.

A package that is not installed is skipped, and fails where `BEATSTORE_TEST_REQUIRE` names
`hooks`; its promises in general are held by stand-ins in `tests/unit/sender`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.absent import absent
from tests.support.brokers import Broker
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process

Play = Callable[..., dict[str, Any]]

#: Nothing of the packages themselves may reach for the network.
OFFLINE = {
    "DD_CELERY_DISTRIBUTED_TRACING": "true",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "NEW_RELIC_APP_NAME": "tests",
    "NEW_RELIC_DEVELOPER_MODE": "true",
    "NEW_RELIC_LICENSE_KEY": "0" * 40,
    "OTEL_SDK_DISABLED": "false",
}


def installed(package: str) -> bool:
    """Say whether a package can be imported, without importing it here."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # nor can what it is a part of
        return False


@pytest.fixture
def play(tmp_path: Path) -> Iterable[Play]:
    """Return `play(program, package, broker, **given)`: what one of the programs here saw."""
    started: list[Process] = []

    def run(program: str, package: str, broker: Broker, **given: Any) -> dict[str, Any]:
        if not installed(package):
            absent("hooks", f"{package} is not installed")
        given |= {"broker": broker.url, "queue": broker.queue}
        given["database"] = f"sqlite:///{tmp_path}/beatstore.db"
        process = Process(
            [sys.executable, "-m", f"tests.e2e.hooks.{program}", json.dumps(given)],
            log=tmp_path / "log",
            cwd=ROOT,
            env=OFFLINE,
        )
        started.append(process)
        assert process.wait(90) == 0, process.output()[-6000:]
        last = process.output().strip().splitlines()[-1]
        found: dict[str, Any] = json.loads(last)
        return found

    yield run
    for process in started:
        process.kill9()


@pytest.fixture(params=["memory", "redis"])
def any_broker(request: pytest.FixtureRequest) -> Broker:
    """Hand out brokers: on Redis, messages come from templates if nobody looks.

    So a package that beatstore did not find would see nothing there.
    """
    broker: Broker = request.getfixturevalue(f"{request.param}_broker")
    return broker


def all_sent_and_run(found: dict[str, Any]) -> None:
    """Fail unless each run was sent and its message ran once, knowing whose it was."""
    assert {run["state"] for run in found["runs"].values()} == {"sent"}
    ids = {run["id"] for run in found["runs"].values()}
    assert ids == set(found["messages"]) == set(found["ran"])
    for note in found["inside"]:
        assert found["runs"][note["entry"]]["id"] == note["id"]
        assert isinstance(note["run_id"], int)


# -- Sentry --------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "beat_init"])
def test_sentry_crons_and_traces(play: Play, any_broker: Broker, when: str) -> None:
    """Check-ins begin at the send and end with the task; each message is a trace of its own."""
    found = play("sentry", "sentry_sdk", any_broker, when=when)
    all_sent_and_run(found)
    by_monitor: dict[str, list[dict[str, Any]]] = {}
    for check_in in found["check_ins"]:
        by_monitor.setdefault(check_in["monitor_slug"], []).append(check_in)
    # None for one-shots, nor for what Sentry has no schedule for.
    assert sorted(by_monitor) == ["elsewhere", "failing", "nightly", "often", "sundays"]
    ends = {"failing": "error"}
    for name, (begin, end) in by_monitor.items():
        assert begin["status"] == "in_progress"
        assert end["status"] == ends.get(name, "ok")
        assert begin["check_in_id"] == end["check_in_id"]
    config = by_monitor["nightly"][0]["monitor_config"]
    assert config["schedule"] == {"type": "crontab", "value": "0 2 * * *"}
    assert config["timezone"] == "Europe/Berlin"
    sundays = by_monitor["sundays"][0]["monitor_config"]["schedule"]
    assert sundays == {"type": "crontab", "value": "0 1 * * 0,4"}
    interval = by_monitor["often"][0]["monitor_config"]["schedule"]
    assert interval == {"type": "interval", "value": 30, "unit": "minute"}
    # The package wrote into the messages, and not into the rows.
    nightly = found["messages"][found["runs"]["nightly"]["id"]]
    assert nightly["mine"] == "x"
    assert nightly["sentry-monitor-slug"] == "nightly"
    assert found["options"]["nightly"] == {"headers": {"mine": "x"}, "priority": 3}
    assert found["options"]["failing"] == {}
    traces = [message["sentry-trace"].split("-")[0] for message in found["messages"].values()]
    assert len(set(traces)) == len(traces) == 9


# -- Datadog -------------------------------------------------------------------------------


def test_datadog_spans(play: Play, any_broker: Broker) -> None:
    """The span of beat's entry is the parent of the send's, in whose trace the task runs."""
    found = play("datadog", "ddtrace", any_broker)
    all_sent_and_run(found)
    spans = found["spans"]
    beats = {span["resource"]: span for span in spans if span["name"] == "celery.beat.apply_entry"}
    assert sorted(beats) == ["elsewhere", "failing", "nightly"]
    applied = {span["resource"]: span for span in spans if span["name"] == "celery.apply"}
    ran = {span["resource"]: span for span in spans if span["name"] == "celery.run"}
    for name, task in (("nightly", "tests.ok"), ("failing", "tests.fail")):
        assert applied[task]["parent"] == beats[name]["id"]
        assert ran[task]["parent"] == applied[task]["id"]
        assert ran[task]["trace"] == beats[name]["trace"]
    assert (ran["tests.ok"]["error"], ran["tests.fail"]["error"]) == (0, 1)
    assert set(map(str, found["options"].values())) == {"{}"}


# -- OpenTelemetry -------------------------------------------------------------------------


def test_opentelemetry_spans(play: Play, any_broker: Broker) -> None:
    """Producer and consumer are linked, for tasks that beat knows and for mere names."""
    found = play("opentelemetry", "opentelemetry.instrumentation.celery", any_broker)
    all_sent_and_run(found)
    by_id = {span["id"]: span for span in found["spans"]}
    consumers = [span for span in found["spans"] if span["kind"] == "CONSUMER"]
    assert Counter(span["name"] for span in consumers) == {
        "run/tests.ok": 2,
        "run/tests.elsewhere": 1,
    }
    for consumer in consumers:
        producer = by_id[consumer["parent"]]
        assert producer["kind"] == "PRODUCER"
        assert producer["name"] == consumer["name"].replace("run/", "apply_async/")
        assert producer["trace"] == consumer["trace"]
        assert producer["task"] == consumer["task"]
        assert producer["parent"] is None
    assert len({span["trace"] for span in consumers}) == 3
    assert found["left"] is False, "a span was left open in beat"


# -- locks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "package"), [("once", "celery_once"), ("singleton", "celery_singleton")]
)
def test_a_locked_task_is_sent_once(
    play: Play, redis_broker: Broker, program: str, package: str
) -> None:
    """The first of two is sent; the duplicate is skipped, saying so; later ones are sent again."""
    found = play(program, package, redis_broker)
    for turn, account in enumerate(found["turns"]):
        runs = {
            name.removesuffix(f"-{turn}"): run
            for name, run in account["runs"].items()
            if name.endswith(f"-{turn}")
        }
        assert {name: run["state"] for name, run in runs.items()} == {
            name: "skipped" if "second" in name else "sent" for name in runs
        }
        assert len(runs) == 5
        for name, run in runs.items():
            if "second" in name:
                assert run["reason"].startswith("already queued"), run
                if program == "singleton":
                    first = runs[name.replace("second", "first")]
                    assert run["reason"] == f"already queued: {first['id']}"
                assert run["id"] not in account["ran"]
            else:
                assert account["ran"][run["id"]] == "SUCCESS"


# -- New Relic and health checks -----------------------------------------------------------


def test_new_relic(play: Play, any_broker: Broker) -> None:
    """With New Relic's agent around celery beat sends, and the task runs in a transaction."""
    found = play("relic", "newrelic", any_broker)
    all_sent_and_run(found)
    assert set(found["ran"].values()) == {"SUCCESS"}
    assert found["patched"]
    assert found["watched"] == ["tests.watched"]


def test_health_check(play: Play, any_broker: Broker) -> None:
    """A health check that replaces `tick` on our scheduler finds beat alive, and lets it work."""
    found = play("health", "celery_healthcheck", any_broker, port=free_port())
    assert found["on_instance"]
    status, answer = found["answers"][-1]
    assert (status, answer["status"]) == (200, "ok")
    assert found["runs"]["a"]["state"] == "sent"
