"""How text gets onto a terminal, or into a pipe: in characters that are safe and can be written.

Invariants:
    * No character of a name or an error moves the cursor or changes a colour.
    * What the encoding of the output has no character for is written in others; nothing that
      a row holds, and no `PYTHONIOENCODING`, makes a verb fail.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TextIO

import click

__all__ = ["clean", "in_dot", "in_json", "in_mermaid", "note", "say", "writable"]

#: What stands for characters of ours where they can't be written; in a drawing each for one.
_ALIKE = {
    **dict.fromkeys("├└┴┼┤┘", "+"),
    **{"│": "|", "─": "-", "●": "*", "◌": "~", "‖": "=", "✓": "v", "○": "o", "✗": "x"},
    **{"…": "...", "→": "->"},
}


def clean(text: str) -> str:
    """Return text on one line that can't steer a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    # Half of a surrogate pair could not even be written.
    return " " if char.isspace() else char.encode("unicode_escape", "surrogatepass").decode()


def _alike(char: str) -> str:
    return _ALIKE.get(char) or _escaped(char)


def in_json(char: str) -> str:
    """Return a character as JSON escapes it."""
    return json.dumps(char)[1:-1]


def in_mermaid(char: str) -> str:
    """Return a character as a label of Mermaid's can spell it."""
    return f"#{ord(char)};"


def in_dot(char: str) -> str:
    """Return a character as a label of DOT's can spell it."""
    return f"&#{ord(char)};"


def writable(
    text: str, spelt: Callable[[str], str] = _alike, *, stream: TextIO | None = None
) -> str:
    """Return text that the encoding of the output has, what it lacks spelt otherwise.

    Args:
        text: any text.
        spelt: spells a character.
        stream: where it is to be written; None: stdout.
    """
    encoding = getattr(stream or sys.stdout, "encoding", None) or "ascii"
    if _has(encoding, text):
        return text
    return "".join(char if _has(encoding, char) else spelt(char) for char in text)


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
    spelt: Callable[[str], str] = _alike,
    *,
    err: bool = False,
    nl: bool = True,
    color: bool | None = None,
) -> None:
    """Write text to stdout or stderr, in its encoding."""
    stream = sys.stderr if err else sys.stdout
    click.echo(writable(text, spelt, stream=stream), file=stream, nl=nl, color=color)


def note(message: str) -> None:
    """Tell a person something beside the result: on stderr, where no program reads it."""
    say(f"beatstore: {clean(message)}", err=True)
