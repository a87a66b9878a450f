"""The wheel of this checkout, and a new environment that it is installed into."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.absent import absent

__all__ = ["Environment", "build_wheel"]

ROOT = Path(__file__).resolve().parents[2]


def build_wheel(target: Path) -> Path:
    """Build the source distribution into a directory, and the wheel from that; return its path."""
    for name in ("build", "hatchling", "hatch_fancy_pypi_readme"):
        pytest.importorskip(name, reason=f"building the wheel needs {name}")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, ROOT],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = target.glob("*.whl")
    return built


class Environment:
    """A virtual environment with nothing in it but pip.

    Where packages can't be installed into one, the test is skipped; with `packages` in
    BEATSTORE_TEST_REQUIRE it fails.

    Args:
        directory: to make it in.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        made = _run([sys.executable, "-m", "venv", str(directory)], os.environ)
        if made.returncode:
            absent("packages", f"no virtual environment: {made.stdout}{made.stderr}")
        found = self._pip("download", "--no-deps", "--dest", str(directory / "tried"), "tzdata")
        if found.returncode:
            absent("packages", f"no package index: {found.stderr.strip()[-300:]}")

    @property
    def variables(self) -> dict[str, str]:
        """What a shell has that has activated it, and nothing of this process's Python."""
        return {
            "PATH": os.pathsep.join([str(self.directory / "bin"), os.environ["PATH"]]),
            "VIRTUAL_ENV": str(self.directory),
            "PYTHONPATH": "",
            "PYTHONUNBUFFERED": "1",
            # What is compiled at its first import is kept, also where the tests' own is not.
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def install(self, *requirements: str) -> None:
        """Install packages."""
        done = self._pip("install", "--quiet", "--no-compile", *requirements)
        assert done.returncode == 0, done.stdout + done.stderr

    def _pip(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        pip = [str(self.directory / "bin" / "python"), "-m", "pip", verb]
        quiet = ["--disable-pip-version-check", "--retries", "1"]
        return _run([*pip, *quiet, *arguments], {**os.environ, **self.variables})


def _run(
    argv: Sequence[str], env: os._Environ[str] | dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
