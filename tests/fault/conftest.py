"""Fixtures of the fault tests: a scene, which is a database, a broker and beats over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.brokers import Broker
from tests.support.harness.scene import Scene
from tests.support.project import Project

NewScene = Callable[..., Scene]


@pytest.fixture
def new_scene(new_project: Callable[..., Project]) -> Iterator[NewScene]:
    """Hand out `new_scene(broker, url, **settings)`, the settings without their prefix.

    `beat_broker` and `beat_url` are where beats find the same broker and database, if that
    is not where the test does.
    """
    made: list[Scene] = []

    def new(
        broker: Broker,
        url: str,
        *,
        beat_broker: Broker | None = None,
        beat_url: str | None = None,
        **settings: Any,
    ) -> Scene:
        prefixed = {f"beatstore_{key}": value for key, value in settings.items()}
        project = new_project(beat_broker or broker, beat_url or url, prefixed)
        made.append(Scene(project, broker, url))
        return made[-1]

    yield new
    for scene in made:
        scene.project.close()
        scene.close()
