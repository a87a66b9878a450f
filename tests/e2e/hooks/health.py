"""celery-healthcheck: a port of beat's own, which tells how long ago it ticked."""

from __future__ import annotations

import json
import threading
from urllib.request import urlopen

import celery_healthcheck
from celery.beat import Service

from beatstore import Once
from tests.e2e.hooks.stage import GIVEN, NIGHT, Stage, report, wait


def main() -> None:
    with Stage(healthcheck_beat_port=GIVEN["port"]) as stage:
        celery_healthcheck.register(stage.app)
        stage.store.add("a", "tests.ok", Once(NIGHT))
        stage.clock.set(NIGHT)
        service = Service(stage.app, scheduler_cls="beatstore:DBScheduler")
        thread = threading.Thread(target=service.start, daemon=True)
        thread.start()
        answers: list[tuple[int, dict[str, object]]] = []

        def healthy() -> bool:
            try:
                with urlopen(f"http://127.0.0.1:{GIVEN['port']}/", timeout=5) as answer:
                    answers.append((answer.status, json.load(answer)))
            except OSError:
                return False
            return True

        wait(healthy, "an answer")
        wait(lambda: stage.messages, "a message")
        service.stop(wait=True)
        thread.join(20)
        on_instance = "tick" in vars(service.scheduler)
        report(answers=answers, on_instance=on_instance, **stage.account())


main()
