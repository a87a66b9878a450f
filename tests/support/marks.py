"""Marks that many tests share: which database a test keeps to, and how the command is called."""

from __future__ import annotations

import pytest

from tests.support.command import WAYS

__all__ = ["both_ways", "on_mariadb", "on_postgresql", "on_servers", "on_sqlite"]

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
on_mariadb = pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
on_servers = pytest.mark.parametrize("backend", ["postgresql", "mariadb"], indirect=True)

#: The command line as `beatstore --url …` and as `celery -A app beatstore`.
both_ways = pytest.mark.parametrize("way", WAYS)
