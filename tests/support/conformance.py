"""Run the conformance tests on databases that the suite itself does not run on.

    python -m tests.support.conformance [arguments of pytest]

Each server is started on a port of its own and takes the place of the one whose protocol it
speaks. A server that is not to be had here is left out, and that is said.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.absent import Unavailable
from tests.support.database_servers import PrivateOceanBase, PrivatePostgreSQL
from tests.support.servers import PrivateServer

__all__ = ["SERVERS", "Conformance"]

_INTEGRATION = Path(__file__).resolve().parents[1] / "integration"

#: What an entry goes through: written, due, claimed, reported, waited for, kept and removed.
_FILES = (
    "test_bad_rows.py",
    "test_dependencies.py",
    "test_no_json_defaults.py",
    "test_queue.py",
    "test_reports.py",
    "test_retention.py",
    "test_shared_due_times.py",
    "test_store_add.py",
    "test_store_change.py",
    "test_store_oneshots.py",
    "test_store_pausing.py",
    "test_triggers.py",
)


@dataclass(frozen=True)
class Conformance:
    """How to run the tests on a server.

    Attributes:
        kind: what starts it.
        backend: the database of the suite that it stands for.
        variable: by which the suite is told where it is.
        left_out: tests and files of tests that do not pass there, as docs/databases.md says.
        jobs: in how many processes they run.
    """

    kind: type[PrivateServer]
    backend: str
    variable: str
    left_out: tuple[str, ...] = ()
    jobs: int = 2

    def run(self, arguments: list[str]) -> int:
        """Run the tests, and return pytest's exit code."""
        with self.kind() as server:
            server.start()
            env = {**os.environ, self.variable: server.url, "BEATSTORE_TEST_THOROUGH": "1"}
            files = [str(_INTEGRATION / name) for name in _FILES if name not in self.left_out]
            pytest = [sys.executable, "-m", "pytest", "-q", "-n", f"{self.jobs}", "-m", "not slow"]
            others = [name for name in self.left_out if name not in _FILES]
            without = ["-k", f"not ({' or '.join(others)})"] if others else []
            chosen = ["--backends", self.backend, *without, *arguments, *files]
            return subprocess.run([*pytest, *chosen], env=env, check=False).returncode


SERVERS = {
    "postgresql-newest": Conformance(
        PrivatePostgreSQL, "postgresql", "BEATSTORE_TEST_POSTGRESQL_URL"
    ),
    # In one process: it refuses a trigger whose name another database gets at the same time.
    "oceanbase": Conformance(
        PrivateOceanBase,
        "mariadb",
        "BEATSTORE_TEST_MYSQL_URL",
        left_out=(
            *("test_no_json_defaults.py", "test_triggers.py"),
            "test_beats_do_not_wait_for_each_other",
        ),
        jobs=1,
    ),
}


def main(arguments: list[str]) -> int:
    """Run the tests on each server; return 1 if they fail on one."""
    failed = False
    for name, conformance in SERVERS.items():
        began = time.monotonic()
        try:
            code = conformance.run(arguments)
        except Unavailable as reason:
            print(f"{name}: SKIPPED, {reason}", flush=True)
            continue
        failed |= code != 0
        how = "failed" if code else "passed"
        print(f"{name}: {how} after {time.monotonic() - began:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
