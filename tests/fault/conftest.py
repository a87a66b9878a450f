"""Fixtures of the fault tests: a scene, which is a database, a broker and beats over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.brokers import Broker
from tests.support.project import Project
from tests.support.scene import Scene

NewScene = Callable[..., Scene]


@pytest.fixture
def new_scene(new_project: Callable[..., Project]) -> Iterator[NewScene]:
    """Hand out `new_scene(broker, url, beat_url=None, **settings)`, with `beatstore_` left out."""
    made: list[Scene] = []

    def new(broker: Broker, url: str, *, beat_url: str | None = None, **settings: Any) -> Scene:
        prefixed = {f"beatstore_{key}": value for key, value in settings.items()}
        made.append(Scene(new_project(broker, beat_url or url, prefixed), url))
        return made[-1]

    yield new
    for scene in made:
        scene.project.close()
        scene.close()


@pytest.fixture
def scene(new_scene: NewScene, redis_broker: Broker, migrated_url: str) -> Scene:
    """Hand out a scene on Redis with claims that expire after 2 s."""
    return new_scene(redis_broker, migrated_url, claim_ttl=2)
