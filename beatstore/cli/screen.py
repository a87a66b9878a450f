"""The whole terminal as one page that is drawn in place, with keys that need no Enter.

Invariants:
    * When the block ends, the terminal shows what it showed before, with its cursor and modes;
      also after an error, Ctrl-C, SIGTERM, and while the process is stopped by Ctrl-Z.
    * Signal handlers only note the signal. It wakes `Screen.wait`.

Keys need a POSIX terminal; elsewhere only Ctrl-C is left.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, suppress
from types import FrameType
from typing import Any

from beatstore.cli.writing import is_terminal

__all__ = ["Screen"]

#: Alternate screen, hidden cursor, no wrapping of long lines; and all of it back.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"

_HOME = "\x1b[H"
_END_OF_LINE = "\x1b[K"
_END_OF_PAGE = "\x1b[J"
_ESCAPE = "\x1b"

#: Signals that end the program, and others that wake it. Windows lacks some.
_ENDING = ("SIGINT", "SIGTERM", "SIGQUIT")
_WAKING = ("SIGTSTP", "SIGWINCH")


class Screen:
    """The terminal of stdin and stdout, within a block.

    Attributes:
        ended_by: the signal that asked the program to end; None: none did.
    """

    def __init__(self) -> None:
        self.ended_by: int | None = None
        self._stopped = False
        self._keys = _terminal_of(sys.stdin)
        self._modes: list[Any] = []
        self._bell, self._heard = socket.socketpair()
        self._stack = ExitStack()

    def __enter__(self) -> Screen:
        with ExitStack() as stack:
            for end in (self._bell, self._heard):
                stack.callback(end.close)
                end.setblocking(False)
            before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
            stack.callback(signal.set_wakeup_fd, before)
            for name in (*_ENDING, *_WAKING):
                if (number := getattr(signal, name, None)) is not None:
                    stack.callback(signal.signal, number, signal.signal(number, self._note))
            if is_terminal(sys.stderr):
                # A line of a log would stand in the middle of the page.
                stack.enter_context(redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
            stack.callback(self._leave)
            self._take()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def size(self) -> tuple[int, int]:
        """The columns and lines of the terminal now."""
        with suppress(OSError, ValueError):
            found = os.get_terminal_size(sys.stdout.fileno())
            if found.columns > 0 and found.lines > 0:
                return found.columns, found.lines
        columns, lines = shutil.get_terminal_size()
        return columns, lines

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines in place of those before; they must fit `size`."""
        page = "\n".join(f"{line}{_END_OF_LINE}" for line in lines)
        _write(f"{_HOME}{page}{_END_OF_PAGE}")

    def wake(self) -> None:
        """End `wait`; any thread may call this."""
        with suppress(OSError):  # it is closed, or has been told often enough
            self._bell.send(b"\0")

    def wait(self, timeout: float | None) -> str:
        """Wait for keys, a signal, or `wake`.

        Args:
            timeout: seconds to wait at most; None: no limit.

        Returns:
            The keys that were pressed, "" if none were. A terminal that is gone sends "q".
        """
        watched: list[Any] = [self._heard] if self._keys is None else [self._heard, self._keys]
        ready, _, _ = select.select(watched, [], [], timeout)
        if self._heard in ready:
            with suppress(BlockingIOError):
                while self._heard.recv(4096):
                    pass
        if self._stopped:
            self._stopped = False
            self._leave()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()
        return self._pressed() if self._keys in ready else ""

    def _pressed(self) -> str:
        assert self._keys is not None
        try:
            found = os.read(self._keys, 4096)
        except OSError:
            found = b""
        # Arrows and the like are a sequence of several characters, which mean nothing here.
        keys = found.decode(errors="ignore")
        return "" if keys.startswith(_ESCAPE) else keys or "q"

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name in _ENDING:
            self.ended_by = number
        elif name == "SIGTSTP":
            self._stopped = True

    def _take(self) -> None:
        if self._keys is not None:
            import termios  # noqa: PLC0415  (Windows has none)
            import tty  # noqa: PLC0415

            self._modes = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        _write(_ENTER)

    def _leave(self) -> None:
        with suppress(OSError):  # the terminal is gone
            _write(_LEAVE)
        if self._keys is not None and self._modes:
            import termios  # noqa: PLC0415

            with suppress(OSError, termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._modes)


def _terminal_of(stream: Any) -> int | None:
    """Return the file descriptor of a stream that is a POSIX terminal; None for others."""
    if os.name != "posix" or not is_terminal(stream):
        return None
    return int(stream.fileno())


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
