"""What reports say in words: reasons, errors and signals."""

from __future__ import annotations

import signal
from typing import Any

from celery.exceptions import Reject

__all__ = ["error_text", "reason_text", "signal_name"]


def reason_text(what: str, error: BaseException) -> str:
    """Return what happened, and what the task said about it."""
    text = ", ".join(str(arg) for arg in error.args if isinstance(arg, (str, Exception)))
    return f"{what}: {text}" if text else what


def signal_name(given: Any) -> str:
    """Return the name of a signal, or what was given."""
    try:
        return signal.Signals(given).name
    except ValueError:
        return str(given)


def error_text(error: BaseException) -> str:
    """Return an exception's name and text."""
    # An exception that can't be pickled is wrapped; the wrapper has its name.
    name = getattr(error, "exc_cls_name", type(error).__name__)
    try:
        text = str(getattr(error, "reason", error) if isinstance(error, Reject) else error)
    except Exception:  # noqa: BLE001  (of the user's class)
        text = "(it can't be shown)"
    return f"{name}: {text}" if text else str(name)
