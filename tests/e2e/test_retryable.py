"""A call that fails here, and is made again by a real beat and a real worker."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Task

from beatstore import Run, retryable
from tests.support.harness.stage import Stage
from tests.support.wait import wait_until


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_call_that_failed_here_is_made_there(stage: Stage) -> None:
    """The worker gets the same arguments; what fails there too is tried as often as was asked."""

    def away(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("not from here")

    def task(name: str) -> Task[..., Any]:
        made: Task[..., Any] = stage.app.task(away, name=name, shared=False)
        return made

    well = retryable(task("tests.note"), retry_delay=0, store=stage.store)(7, to="ann")
    badly = retryable(task("tests.break"), max_retries=2, retry_delay=0, store=stage.store)()
    stage.start_beat()
    stage.worker("threads")

    def ended() -> list[Run] | None:
        runs = stage.store.runs()
        over = sorted(run.state for run in runs) == ["failed", "failed", "succeeded"]
        return runs if over else None

    runs = wait_until(ended, 30, lambda: str(stage.store.runs()))
    assert runs is not None
    assert sorted((run.entry_name, run.attempt, run.state) for run in runs) == sorted(
        [(well.name, 1, "succeeded"), (badly.name, 1, "failed"), (badly.name, 2, "failed")]
    )
    (ran,) = [ran for ran in stage.project.runs() if ran.task == "tests.note"]
    assert (ran.args, ran.kwargs) == ([7], {"to": "ann"})
