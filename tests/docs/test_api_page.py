"""The page on the Python API is what the sources say."""

from __future__ import annotations

import re

import pytest

import beatstore

pytest.importorskip("griffe", reason="docs/api.md is made by griffe")

from tests.support import apipage


def test_the_page_is_up_to_date() -> None:
    """What `make docs` would write is what stands there."""
    assert apipage.PAGE.read_text() == apipage.made(), "docs/api.md is stale; write: make docs"


def test_every_public_name_has_a_heading() -> None:
    """The page has each name of `beatstore.__all__`."""
    headings = set(re.findall(r"^### (\w+)$", apipage.PAGE.read_text(), re.MULTILINE))
    assert headings == {name for name in beatstore.__all__ if name != "__version__"}


def test_every_method_of_the_store_is_told() -> None:
    """The page has each public method of `Store`, so each has a docstring."""
    told = set(re.findall(r"^#### Store\.(\w+)$", apipage.PAGE.read_text(), re.MULTILINE))
    assert told == {name for name in dir(beatstore.Store) if not name.startswith("_")}
