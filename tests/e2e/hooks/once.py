"""celery-once: a task that can't be queued twice takes a lock in Redis when it is sent."""

from __future__ import annotations

from typing import Any

from celery_once import QueueOnce

from beatstore import Once
from tests.e2e.hooks.stage import GIVEN, NIGHT, Stage, report


def main() -> None:
    lock = {"backend": "celery_once.backends.Redis", "settings": {"url": GIVEN["broker"]}}
    with Stage() as stage:
        for app in (stage.app, stage.worker_app):
            app.conf.ONCE = lock

            @app.task(name="tests.strict", base=QueueOnce, shared=False)
            def strict(n: int) -> None:
                """Raise when it is queued already."""

            @app.task(name="tests.graceful", base=QueueOnce, once={"graceful": True}, shared=False)
            def graceful(n: int) -> None:
                """Return nothing when it is queued already."""

        found: list[dict[str, Any]] = []
        for turn in range(2):
            for task in ("strict", "graceful"):
                for name in ("first", "second"):
                    stage.store.add(f"{task}-{name}-{turn}", f"tests.{task}", Once(NIGHT), args=[1])
            stage.store.add(f"other-{turn}", "tests.strict", Once(NIGHT), args=[2])
            stage.play()
            found.append(stage.account())
        report(turns=found)


main()
