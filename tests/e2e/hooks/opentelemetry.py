"""OpenTelemetry's instrumentation of celery, its spans kept in this process."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from beatstore import Cron
from tests.e2e.hooks.stage import Stage, report


def main() -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    CeleryInstrumentor().instrument(tracer_provider=provider)
    with Stage() as stage:
        for name in ("nightly", "again"):
            stage.store.add(name, "tests.ok", Cron("0 2 * * *", "Europe/Berlin"))
        stage.store.add("elsewhere", "tests.elsewhere", Cron("0 1 * * *", "UTC"))
        stage.play()
        left = trace.get_current_span().get_span_context().is_valid
        spans = [
            {
                "name": span.name,
                "kind": span.kind.name,
                "id": span.context.span_id,
                "trace": span.context.trace_id,
                "parent": span.parent.span_id if span.parent else None,
                "task": span.attributes.get("messaging.message.id")
                or span.attributes.get("messaging.message_id"),
            }
            for span in kept.get_finished_spans()
        ]
        report(spans=spans, left=left, **stage.account())


main()
