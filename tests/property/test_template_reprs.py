"""The representation of arguments in a template is that of Celery."""

from __future__ import annotations

from typing import Any

from celery.utils.saferepr import saferepr
from hypothesis import given
from hypothesis import strategies as st

from beatstore.beat.ladder.template import flat_repr

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)


@given(
    value=st.lists(PLAIN) | st.dictionaries(st.text(max_size=20), PLAIN), most=st.integers(1, 300)
)
def test_flat_values(value: Any, most: int) -> None:
    """It is the same text wherever it is known."""
    found = flat_repr(value, most)
    assert found is None or found == saferepr(value, most, maxlevels=3)
    assert flat_repr(value, 10_000) == saferepr(value, 10_000, maxlevels=3)
