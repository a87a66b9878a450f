"""Writing text to a terminal or a pipe, in safe characters that its encoding has.

Invariants:
    * No character of a name or an error moves the cursor or changes a colour.
    * Characters that the encoding of the output lacks are replaced; no value of a row and no
      `PYTHONIOENCODING` makes a verb fail.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TextIO

import click

__all__ = ["clean", "in_dot", "in_json", "in_mermaid", "is_terminal", "note", "say", "writable"]

#: Replacements for our own characters; those of drawings are one character wide.
_REPLACEMENTS = {
    **dict.fromkeys("├└┴┼┤┘", "+"),
    **{"│": "|", "─": "-", "●": "*", "◌": "~", "‖": "=", "✓": "v", "○": "o", "✗": "x"},
    **dict(zip("▁▂▃▄▅▆▇█", "_.-=+*#@", strict=True)),
    **{"…": "...", "→": "->"},
}


def clean(text: str) -> str:
    """Return text on one line, without control characters."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    # A lone surrogate cannot be encoded.
    return " " if char.isspace() else char.encode("unicode_escape", "surrogatepass").decode()


def _replacement(char: str) -> str:
    return _REPLACEMENTS.get(char) or _escaped(char)


def in_json(char: str) -> str:
    """Return a character escaped for JSON."""
    return json.dumps(char)[1:-1]


def in_mermaid(char: str) -> str:
    """Return a character escaped for a Mermaid label."""
    return f"#{ord(char)};"


def in_dot(char: str) -> str:
    """Return a character escaped for a DOT label."""
    return f"&#{ord(char)};"


def writable(
    text: str, escape: Callable[[str], str] = _replacement, *, stream: TextIO | None = None
) -> str:
    """Return text that the encoding of the output can write, with other characters escaped.

    Args:
        text: any text.
        escape: escapes a character.
        stream: where it will be written; None: stdout.
    """
    encoding = getattr(stream or sys.stdout, "encoding", None) or "ascii"
    if _has(encoding, text):
        return text
    return "".join(char if _has(encoding, char) else escape(char) for char in text)


def _has(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    except LookupError:
        return text.isascii()
    return True


def say(
    text: str,
    escape: Callable[[str], str] = _replacement,
    *,
    err: bool = False,
    nl: bool = True,
    color: bool | None = None,
) -> None:
    """Write text to stdout or stderr, in its encoding, unless it is closed."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        click.echo(writable(text, escape, stream=stream), file=stream, nl=nl, color=color)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; one that was closed before the start is None."""
    return stream is not None and stream.isatty()


def note(message: str) -> None:
    """Write a remark for people to stderr, so that stdout has only the result."""
    say(f"beatstore: {clean(message)}", err=True)
