"""Fixtures of tests with real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from beatstore.beat.pulse import DIRECTORY
from tests.support.command import Command


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """Return what a liveness probe asks, of the beats of this test."""
    monkeypatch.setenv(DIRECTORY, str(tmp_path / "pulses"))
    call = Command("")
    call.arguments = []
    return lambda: call("check", "--self", "--max-silence", "8s").code
