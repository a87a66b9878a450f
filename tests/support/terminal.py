"""A pseudo-terminal in which a verb draws its page, and which gets keys and signals.

terminal = Terminal("--url", url, "top")
terminal.shows("entries: +2 active")
terminal.type("q")
assert terminal.ended() == 0
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

from tests.support.processes import ROOT
from tests.support.wait import wait_until

__all__ = ["ENTERED", "LEFT", "Terminal"]

#: The terminal becomes that of the process, so that it gets the signals of Ctrl-C and resizes.
MAIN = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from beatstore.cli import main
sys.argv[0] = "beatstore"
main()
"""

#: What the page writes when it begins, and when it ends.
ENTERED = "\x1b[?1049h"
LEFT = "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Terminal:
    """A terminal in which a command runs."""

    def __init__(self, *command: str, columns: int = 100, lines: int = 40) -> None:
        self._main, side = pty.openpty()
        self.resize(columns, lines)
        self.modes = termios.tcgetattr(side)
        self._side = side  # stays open, so that its modes can be read
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "300"}
        env.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *command],
            env=env,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.set_blocking(self._main, False)
        self._bytes = b""

    @property
    def written(self) -> str:
        """All that the command has written so far."""
        with suppress(BlockingIOError, OSError):
            while part := os.read(self._main, 65536):
                self._bytes += part
        return self._bytes.decode(errors="ignore").replace("\r\n", "\n")

    @property
    def frame(self) -> list[str]:
        """The lines that are shown, without their colours."""
        frames = re.findall(r"\x1b\[H(.*?)\x1b\[J", self.written, re.DOTALL)
        lines = re.sub(r"\x1b\[[0-9;]*[mK]", "", frames[-1] if frames else "").split("\n")
        assert "\x1b" not in "".join(lines)
        return lines

    def shows(self, pattern: str) -> None:
        """Wait until the page matches."""

        def found() -> bool:
            assert self.process.poll() is None, self.written
            return re.search(pattern, "\n".join(self.frame)) is not None

        wait_until(found, 60, lambda: self.written[-3000:])

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def is_as_before(self) -> bool:
        """Return whether screen, cursor and modes are what they were before the command."""
        said = self.written
        return (
            said.count(ENTERED) == said.count(LEFT) and termios.tcgetattr(self._side) == self.modes
        )

    def ended(self) -> int:
        """Wait for the end of the command, and return its exit code."""
        wait_until(lambda: self.process.poll() is not None or not self.written, 60)
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)
        os.close(self._side)
