"""celery-singleton: a duplicate is answered with the id of the task that is queued already."""

from __future__ import annotations

from typing import Any

from celery_singleton import Singleton

from beatstore import Once
from tests.e2e.hooks.stage import GIVEN, NIGHT, Stage, report


def main() -> None:
    with Stage(singleton_backend_url=GIVEN["broker"]) as stage:
        for app in (stage.app, stage.worker_app):

            @app.task(name="tests.single", base=Singleton, shared=False)
            def single(n: int) -> None:
                """Return the one that is queued already."""

            @app.task(name="tests.strict", base=Singleton, raise_on_duplicate=True, shared=False)
            def strict(n: int) -> None:
                """Raise when it is queued already."""

        found: list[dict[str, Any]] = []
        for turn in range(2):
            for task in ("single", "strict"):
                for name in ("first", "second"):
                    stage.store.add(f"{task}-{name}-{turn}", f"tests.{task}", Once(NIGHT), args=[1])
            stage.store.add(f"other-{turn}", "tests.single", Once(NIGHT), args=[2])
            stage.play()
            found.append(stage.account())
        report(turns=found)


main()
