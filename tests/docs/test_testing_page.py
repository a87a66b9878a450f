"""The page on testing is run: its tests pass, and its code prints what the page says."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from beatstore import testing

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text()
FIRST, *BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """The first block is a file of tests that a reader's pytest runs as it stands."""
    (tmp_path / "test_schedules.py").write_text(FIRST)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT,
        # A reader has none of our options. Plugins take seconds to load.
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_page_prints_what_it_says() -> None:
    """The other blocks, run one after the other, print what their comments show."""
    names: dict[str, Any] = {}
    for block in BLOCKS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block, "testing.md", "exec"), names)
        shown = [line[2:] for line in block.splitlines() if line.startswith("# ")]
        assert said.getvalue().splitlines() == shown


def test_the_page_names_every_field() -> None:
    """Whatever a row, an outcome and a piece of work have is named on the page."""
    for kind in (testing.Row, testing.Work, testing.Waiting, testing.Outcome):
        for field in fields(kind):
            assert re.search(rf"\b{field.name}\b", PAGE), f"{kind.__name__}.{field.name}"
