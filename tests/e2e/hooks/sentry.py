"""Sentry with `monitor_beat_tasks`, its envelopes kept in this process."""

from __future__ import annotations

from typing import Any

import sentry_sdk
from celery import signals
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

from beatstore import Cron, Every, Once
from tests.e2e.hooks.stage import GIVEN, NIGHT, Stage, report

check_ins: list[dict[str, Any]] = []


class Kept(Transport):
    """Keeps the check-ins, and sends nothing."""

    def capture_envelope(self, envelope: Any) -> None:
        check_ins.extend(item.payload.json for item in envelope.items if item.type == "check_in")


def start_sentry(**_: Any) -> None:
    sentry_sdk.init(
        dsn="https://key@sentry.invalid/1",
        transport=Kept(),
        integrations=[CeleryIntegration(monitor_beat_tasks=True)],
    )


def main() -> None:
    with Stage() as stage:
        store = stage.store
        mine = {"headers": {"mine": "x"}, "priority": 3}
        store.add("nightly", "tests.ok", Cron("0 2 * * *", "Europe/Berlin"), options=mine)
        store.add("failing", "tests.fail", Cron("0 1 * * *", "UTC"))
        store.add("often", "tests.ok", Every(1800))
        store.add("seconds", "tests.ok", Cron("0 1 * * * 0,30", "UTC"))
        store.add("elsewhere", "tests.elsewhere", Cron("0 1 * * *", "UTC"))
        store.add("sundays", "tests.ok", Cron("0 1 * * 7,thu", "UTC"))
        for n in range(3):
            store.add(f"once-{n}", "tests.ok", Once(NIGHT))
        if GIVEN["when"] == "beat_init":
            signals.beat_init.connect(start_sentry)
        else:
            start_sentry()
        stage.play()
        sentry_sdk.flush()
        report(check_ins=check_ins, **stage.account())


main()
