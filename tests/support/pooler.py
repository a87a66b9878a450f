"""A PgBouncer of a test's own, in transaction mode, before a PostgreSQL server."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from tests.support.database_servers import someone
from tests.support.servers import PrivateServer, on_path

__all__ = ["PrivatePgBouncer"]


class PrivatePgBouncer(PrivateServer):
    """PgBouncer: a few sessions of the server, given to clients by the transaction.

    Args:
        server: the URL of a database.
        sessions: how many sessions of the server all clients share.
        settings: further lines of its settings, such as `max_prepared_statements = 200`.
    """

    name = "pgbouncer"

    def __init__(self, server: str, sessions: int = 3, *settings: str) -> None:
        super().__init__(*settings)
        self._server = make_url(server)
        self._sessions = sessions
        if os.geteuid() == 0:
            self.user = someone("nobody")
            os.chown(self.directory, pwd.getpwnam(self.user).pw_uid, -1)

    @classmethod
    def find(cls) -> Path:
        """Find `pgbouncer`."""
        return on_path("pgbouncer")

    @property
    def url(self) -> str:
        """The URL of the same database through the pooler."""
        made = self._server.set(host="127.0.0.1", port=self.port)
        return made.render_as_string(hide_password=False)

    @property
    def version(self) -> tuple[int, ...]:
        """Its version, such as (1, 18)."""
        told = subprocess.run(
            [self.program, "--version"], check=False, capture_output=True, text=True
        )
        found = re.search(r"PgBouncer (\d+)\.(\d+)", told.stdout)
        assert found, told
        return tuple(map(int, found.groups()))

    @property
    def prepares(self) -> bool:
        """Whether it was told to prepare statements for its clients."""
        return any("max_prepared_statements" in setting for setting in self.options)

    def prepare(self) -> None:
        """Write its settings: all as they are by default, but for transaction mode."""
        server = self._server
        target = f"host={server.host} port={server.port or 5432} user={server.username}"
        if server.password:
            target += f" password={server.password}"
        (self.directory / "users").write_text(f'"{server.username}" ""\n')
        (self.directory / "ini").write_text(
            f"""[databases]
{server.database} = {target} dbname={server.database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
auth_file = {self.directory / "users"}
pool_mode = transaction
default_pool_size = {self._sessions}
"""
            + "\n".join(self.options)
        )

    def argv(self) -> list[str]:
        """Return the command."""
        return [str(self.program), "-q", str(self.directory / "ini")]

    def answers(self) -> bool:
        """Say whether it leads to the server."""
        url = make_url(self.url).set(drivername="postgresql")
        try:
            psycopg.connect(url.render_as_string(hide_password=False), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
