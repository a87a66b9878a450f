"""Engines of a test run share the statements that they have compiled.

Each test has a store, and so an engine, of its own. Each engine would compile the same statements
anew, which took a third of the time of a run. What a statement is compiled to depends on how its
dialect is set up, not on the engine; so the key of the cache names the former.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.util import LRUCache

__all__ = ["share"]

#: What a statement or its parameters may be compiled by, beside the kind of dialect.
_SETUP = (
    *("server_version_info", "is_mariadb", "default_schema_name", "paramstyle", "_json_serializer"),
    *("_json_deserializer", "insert_returning", "update_returning", "supports_native_enum"),
    *("_backslash_escapes", "_requires_alias_for_on_duplicate_key", "label_length"),
)


class _Shared:
    """What one engine sees of the statements that all have compiled."""

    def __init__(self, all_of_them: LRUCache[Any, Any]) -> None:
        self._all = all_of_them

    def get(self, key: Any) -> Any:
        """Return what was compiled for an equal statement on a dialect that is set up alike."""
        return self._all.get(_shared(key))

    def __setitem__(self, key: Any, compiled: Any) -> None:
        self._all[_shared(key)] = compiled

    def clear(self) -> None:
        """Keep what others have compiled."""


def share(patch: pytest.MonkeyPatch) -> None:
    """Have all engines that are made from now on share what they compile."""
    compiled: LRUCache[Any, Any] = LRUCache(5_000)
    init = Engine.__init__

    def sharing(engine: Engine, *args: Any, **kwargs: Any) -> None:
        init(engine, *args, **kwargs)
        if engine._compiled_cache is not None:
            engine._compiled_cache = _Shared(compiled)  # type: ignore[assignment]

    patch.setattr(Engine, "__init__", sharing)


def _shared(key: Any) -> Any:
    dialect, *rest = key
    setup = (getattr(dialect, name, None) for name in _SETUP)
    return type(dialect), *setup, *rest
