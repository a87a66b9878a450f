"""A beat whose clock a test sets, by libfaketime: `faketime` as Debian and others pack it.

offset = Offset(tmp_path)
scene.start_beat(app=APP, env=offset.env)
offset.set(3600)
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.absent import absent

__all__ = ["APP", "Offset"]

#: What `celery -A` is given.
APP = "tests.support.faked_app"


class Offset:
    """By how much the clock of some processes is wrong; skips the test without faketime.

    Args:
        directory: where the file is that they read it from.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "offset"
        self._library = _library()
        self.set(0)

    def set(self, seconds: int) -> None:
        """Set the clocks, also of processes that run."""
        # In one step: it is read whenever one of them asks for the time.
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+}\n")
        new.replace(self._file)

    @property
    def env(self) -> dict[str, str]:
        """The variables that put a process under it."""
        return {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # One setting under two names, of older and of newer versions.
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Python compares the times of files.
            "NO_FAKE_STAT": "1",
        }


def _library() -> str:
    program = shutil.which("faketime")
    if program is None:
        absent("faketime", "no such program on this machine")
    command = [program, "-f", "+0", "env"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        if name == "LD_PRELOAD":
            return value
    absent("faketime", "it preloads no library here")
