"""A virtual environment for each scheduler, made once for the same requirements."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.peer import COMMON, Peer

__all__ = ["python_of", "versions_of"]

_SHOWN = ("beat", "celery", "kombu", "redis", "amqp", "django", "sqlalchemy", "psycopg", "pymysql")


def python_of(peer: Peer, directory: Path) -> Path:
    """Return the Python of a scheduler's environment below `directory`; make it if need be.

    Raises:
        CalledProcessError: its packages can't be installed.
    """
    wanted = [*COMMON, *peer.requirements]
    mark = hashlib.sha256(json.dumps([wanted, sys.version]).encode()).hexdigest()
    home = directory / peer.name
    python, stamp = home / "bin" / "python", home / "requirements.sha256"
    if not stamp.exists() or stamp.read_text() != mark:
        _run(sys.executable, "-m", "venv", "--clear", str(home))
        _run(str(python), "-m", "pip", "install", "--quiet", *wanted)
        stamp.write_text(mark)
    return python


def versions_of(python: Path) -> dict[str, str]:
    """Return the versions of the packages that matter in an environment."""
    command = [str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    versions = {one["name"].lower(): one["version"] for one in found}
    return {name: versions[name] for name in sorted(versions) if any(s in name for s in _SHOWN)}


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
