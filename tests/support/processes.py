"""Real processes: started in a group of their own, watched, frozen, killed, cleaned up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.wait import wait_until

__all__ = ["ROOT", "Process", "below", "stopped"]

#: The repository, from which child processes import `beatstore` and `tests`.
ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A running program, its output in a file.

    It leads a process group of its own, so that its children end with it and a Ctrl-C
    meant for pytest does not reach it.

    Args:
        argv: the command.
        log: file that its output is appended to.
        cwd: its working directory.
        env: variables on top of this process's own.
        user: whom to run it as, where this process may choose.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.argv = list(argv)
        self.log = log
        self._skip = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                user=user,
                extra_groups=None if user is None else [],
            )
        self.pid = self._popen.pid

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended {self._popen.returncode}"
        return f"<Process {self.pid} {state}: {' '.join(self.argv)}>"

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def output(self) -> str:
        """Return what it has written so far."""
        with self.log.open("rb") as file:
            file.seek(self._skip)
            return file.read().decode(errors="replace")

    def failed(self) -> bool:
        """Say whether it has written a traceback.

        Python writes one of its own where celery's SystemExit, raised by a signal, meets a
        destructor or a weak reference that dies: it drops the error, and beat ends later.
        """
        output = self.output()
        return output.count("Traceback") > output.count("Exception ignored in")

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until it ends by itself, and return its exit code."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self!r} did not end within {timeout:g} s:\n{self.output()[-4000:]}"
            ) from None

    def wait_for_output(self, text: str, timeout: float = 30.0) -> None:
        """Wait until it has written `text`; fail at once if it ends without."""

        def written() -> bool:
            alive = self.running
            if text in self.output():
                return True
            assert alive, f"{self!r} without {text!r}:\n{self.output()[-4000:]}"
            return False

        wait_until(written, timeout, lambda: f"no {text!r} in:\n{self.output()[-4000:]}")

    def send(self, number: int) -> None:
        """Send a signal to the program alone, not to its children."""
        if self.running:
            self._popen.send_signal(number)

    def terminate(self, timeout: float = 30.0, number: int = signal.SIGTERM) -> int:
        """Ask it to end, wait, and return its exit code; its children are its own care."""
        self.send(number)
        return self.wait(timeout)

    def kill9(self) -> None:
        """Kill it and its group, as a crash of the machine would; also ends what is left."""
        # The group outlives its leader while children are left, and its id with it.
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.send(signal.SIGKILL)
        self._popen.wait(30)

    def pause(self) -> None:
        """Freeze it and everything below it, as a stalled machine would.

        On return every thread of them stands: the signal alone returns before that, and a
        server's thread may still answer one more question.
        """
        _send(self.pid, signal.SIGSTOP)  # first, so that it starts no further child
        wait_until(lambda: stopped(self.pid), 30, lambda: f"{self!r} goes on")
        children = below(self.pid)
        for pid in children:
            _send(pid, signal.SIGSTOP)
        wait_until(lambda: all(map(stopped, children)), 30, lambda: f"children of {self!r} go on")

    def resume(self) -> None:
        """Let it go on after `pause`."""
        for pid in (*below(self.pid), self.pid):
            _send(pid, signal.SIGCONT)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def stopped(pid: int) -> bool:
    """Say whether all threads of a process stand still after SIGSTOP, or it has ended."""
    threads = ["-L"] if sys.platform == "linux" else []
    shown = subprocess.run(
        ["ps", *threads, "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return all(state.startswith(("T", "Z")) for state in shown.split())


def below(pid: int) -> list[int]:
    """Return the descendants of `pid`; some servers give each child its own group."""
    table = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    children: dict[int, list[int]] = {}
    for line in table.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, []))
    return found[1:]
