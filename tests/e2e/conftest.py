"""Fixtures of tests with real processes.

check       a liveness probe
stage       real beats and workers of an app that reports; `new_stage` makes others
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beatstore.beat.pulse import DIRECTORY
from tests.support.brokers import Broker
from tests.support.command import Command
from tests.support.harness.stage import Stage
from tests.support.project import NewProject

APP = "tests.support.tracked_app"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """Return what a liveness probe asks, of the beats of this test."""
    monkeypatch.setenv(DIRECTORY, str(tmp_path / "pulses"))
    call = Command("")
    call.arguments = []
    return lambda: call("check", "--self", "--max-silence", "8s").code


@pytest.fixture
def new_stage(
    broker: Broker, migrated_url: str, new_project: NewProject
) -> Iterator[Callable[..., Stage]]:
    """Hand out `new_stage(database_url=None, **settings)`, which notices quickly who is silent."""
    made: list[Stage] = []

    def new(database_url: str | None = None, **settings: Any) -> Stage:
        given = {"beatstore_heartbeat": 0.3, "beat_max_loop_interval": 0.2, **settings}
        project = new_project(broker, database_url or migrated_url, given, APP)
        made.append(Stage(project, migrated_url))
        return made[-1]

    yield new
    for stage in made:
        stage.close()


@pytest.fixture
def stage(new_stage: Callable[..., Stage]) -> Stage:
    """Hand out a stage of the app that reports, without a process yet."""
    return new_stage()
