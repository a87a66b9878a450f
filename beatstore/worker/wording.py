"""What reports say in words: reasons and errors."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from celery.exceptions import Reject

__all__ = ["error_text", "reason_text", "revoked_text"]


def reason_text(what: str, error: BaseException) -> str:
    """Return what happened, and what the task said about it."""
    text = ", ".join(str(arg) for arg in error.args if isinstance(arg, (str, Exception)))
    return f"{what}: {text}" if text else what


def revoked_text(given: Mapping[str, Any]) -> str:
    """Return why a message was thrown away, from the arguments of celery's signal."""
    if given.get("expired"):
        return "expired in the queue"
    if not given.get("terminated"):
        return "revoked"
    signum: Any = given.get("signum")
    try:
        return f"terminated by {signal.Signals(signum).name}"
    except ValueError:
        return f"terminated by {signum}"


def error_text(error: BaseException) -> str:
    """Return an exception's name and text."""
    # An exception that can't be pickled is wrapped; the wrapper has its name.
    name = getattr(error, "exc_cls_name", type(error).__name__)
    try:
        text = str(getattr(error, "reason", error) if isinstance(error, Reject) else error)
    except Exception:  # noqa: BLE001  (of the user's class)
        text = "(it can't be shown)"
    return f"{name}: {text}" if text else str(name)
