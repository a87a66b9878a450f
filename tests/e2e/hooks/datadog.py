"""Datadog's tracer, its spans kept in this process."""

from __future__ import annotations

from typing import Any

from ddtrace import patch
from ddtrace.trace import TraceFilter, tracer

from beatstore import Cron
from tests.e2e.hooks.stage import Stage, report

spans: list[dict[str, Any]] = []


class Kept(TraceFilter):
    """Keeps every span, and sends none."""

    def process_trace(self, trace: Any) -> None:
        for span in trace:
            spans.append(
                {
                    "name": span.name,
                    "resource": span.resource,
                    "id": span.span_id,
                    "parent": span.parent_id,
                    "trace": span.trace_id,
                    "error": span.error,
                }
            )


def main() -> None:
    tracer.configure(trace_processors=[Kept()])
    patch(celery=True)
    with Stage() as stage:
        for name, task in (("nightly", "tests.ok"), ("failing", "tests.fail")):
            stage.store.add(name, task, Cron("0 2 * * *", "Europe/Berlin"))
        stage.store.add("elsewhere", "tests.elsewhere", Cron("0 1 * * *", "UTC"))
        stage.play()
        tracer.flush()
        report(spans=spans, **stage.account())


main()
