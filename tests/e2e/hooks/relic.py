"""New Relic's agent, without its collector."""

from __future__ import annotations

from typing import Any

import newrelic.agent

newrelic.agent.initialize(environment="development")

import celery.app.trace  # noqa: E402  (the agent patches what is imported after it)

from beatstore import Cron  # noqa: E402
from tests.e2e.hooks.stage import Stage, report  # noqa: E402


def main() -> None:
    newrelic.agent.register_application(timeout=10)
    watched: list[str] = []
    with Stage() as stage:
        for app in (stage.app, stage.worker_app):

            @app.task(name="tests.watched", shared=False)
            def watched_task() -> None:
                transaction: Any = newrelic.agent.current_transaction()
                watched.append(transaction.name if transaction else "")

        stage.store.add("nightly", "tests.ok", Cron("0 2 * * *", "Europe/Berlin"))
        stage.store.add("watched", "tests.watched", Cron("0 1 * * *", "UTC"))
        stage.store.add("elsewhere", "tests.elsewhere", Cron("0 1 * * *", "UTC"))
        stage.play()
        patched = hasattr(celery.app.trace.build_tracer, "__wrapped__")
        report(watched=watched, patched=patched, **stage.account())


main()
