"""The built wheel: what a user installs can make its own tables."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from beatstore.models import REVISION

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    for name in ("build", "hatchling"):
        pytest.importorskip(name, reason=f"building the wheel needs {name}")
    target = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, ROOT],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = target.glob("*.whl")
    return built


def test_the_wheel_carries_the_migrations(wheel: Path) -> None:
    """Every file that a migration needs is in the wheel, and nothing of a test."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    versions = {f"beatstore/migrations/versions/{path.name}" for path in _versions()}
    assert versions
    assert names >= {"beatstore/migrations/env.py", "beatstore/py.typed", *versions}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"beatstore"}
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_wheel_installs_the_command(wheel: Path) -> None:
    """Installing it makes a command `beatstore`, beside the one of celery."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        written = archive.read(name).decode()
    assert "[console_scripts]\nbeatstore = beatstore.cli:main\n" in written
    assert "[celery.commands]\nbeatstore = beatstore.cli:beatstore\n" in written


def test_an_installed_beatstore_migrates(wheel: Path, tmp_path: Path) -> None:
    """Away from any checkout, the wheel's own migrations take a database up and down."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from beatstore.store.database import migrate; "
        "from beatstore.store.database.engine import Database; "
        "database = Database('sqlite:///beat.db'); "
        "migrate.upgrade(database); migrate.check(database); "
        "print(migrate._scripts()); print(migrate.revision_of(database)); "
        "migrate.downgrade(database)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "site" / "beatstore" / "migrations"), REVISION]


def _versions() -> list[Path]:
    return list((ROOT / "migrations" / "versions").glob("*.py"))
