"""The built wheel: what a user installs can make its own tables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from email.policy import default
from pathlib import Path

import pytest

from beatstore.database.models import REVISION
from tests.support.wheel import build_wheel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


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


def metadata(wheel: Path) -> Message:
    """Return what the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_string(archive.read(name).decode(), policy=default)


def test_the_page_of_the_package_index(wheel: Path) -> None:
    """The long description is the README, and each of its links leads somewhere from anywhere."""
    said = metadata(wheel)
    assert said["Description-Content-Type"] == "text/markdown"
    page, readme = str(said.get_payload()), (ROOT / "README.md").read_text()
    code = re.compile(r"^```.*?^```|`[^`\n]+`", re.M | re.S)
    assert page.startswith("# beatstore\n")
    assert code.findall(page)[: len(code.findall(readme))] == code.findall(readme)
    links = re.findall(r"\]\(([^)]*)\)", code.sub("", page))
    assert all(link.startswith("https://") for link in links), links
    known = [url.partition(",")[2].strip() for url in said.get_all("Project-URL", [])]
    assert not links or known, "name the address of the sources in [project.urls], too"


def test_the_source_distribution_has_the_pages(wheel: Path) -> None:
    """The README, and every file that it or a page links to, come with the sources."""
    [sources] = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sources) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert page.relative_to(ROOT).as_posix() in names
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            found = (page.parent / target).resolve().relative_to(ROOT).as_posix()
            assert any(name == found or name.startswith(f"{found}/") for name in names), found


def test_every_extra_that_is_named_exists(wheel: Path) -> None:
    """What the README, the pages and errors have people install is an extra of the wheel."""
    known = set(metadata(wheel).get_all("Provides-Extra"))
    named: set[str] = set()
    for folder, pattern in ((ROOT, "*.md"), (ROOT / "docs", "*.md"), (ROOT / "beatstore", "*.py")):
        found = folder.rglob(pattern) if folder.name == "beatstore" else folder.glob(pattern)
        for path in found:
            for extras in re.findall(r"\bbeatstore\[([\w, ]+)\]", path.read_text()):
                named |= {extra.strip() for extra in extras.split(",")}
    assert {"postgres", "redis", "solar"} <= named <= known


def test_an_installed_beatstore_migrates(wheel: Path, tmp_path: Path) -> None:
    """Away from any checkout, the wheel's own migrations take a database up and down."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from beatstore.database import migrate; "
        "from beatstore.database.engine import Database; "
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
