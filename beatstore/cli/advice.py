"""What beatstore advises, as commands: its errors and sentences name calls of the Python API.

Each rule is a pattern of such a call and the command that does the same. What no rule knows is
left as it is.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable

__all__ = ["as_commands"]

_Replacement = str | Callable[[re.Match[str]], str]

#: A name as `repr` writes it, in a group of this name.
_NAME = r"""(?P<{}>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ENTRY, _OTHER = _NAME.format("entry"), _NAME.format("other")

#: Units of the options that take a duration.
_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"))


def as_commands(text: str, *, of_app: bool) -> str:
    """Return a text with commands in place of calls.

    Args:
        text: an error, a warning or a sentence of an explanation.
        of_app: whether the command line was called with an app, and not with a URL.
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text if of_app else text.replace("`celery -A proj beatstore ", "`beatstore --url … ")


def _name(found: re.Match[str], group: str = "entry") -> str:
    return shlex.quote(str(ast.literal_eval(found[group])))


def _done_to(found: re.Match[str]) -> str:
    return f"`{found['verb']} {_name(found)}`"


def _unlinked(found: re.Match[str]) -> str:
    return f"`change {_name(found)} --after …` without {_name(found, 'other')}"


def _after(found: re.Match[str]) -> str:
    return f"`--after {shlex.quote(ast.literal_eval(found['entry']) + ':on=done,first_free')}`"


def _every(found: re.Match[str]) -> str:
    seconds = float(found[1])
    for size, unit in _UNITS:
        if seconds and not seconds % size:
            return f"`--every {seconds / size:g}{unit}`"
    return f"`--every {seconds:g}s`"


_RULES: tuple[tuple[re.Pattern[str], _Replacement], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"\bstore\.(?P<verb>pause|resume|remove|trigger|cancel)\({_ENTRY}\)", _done_to),
        (
            rf"\bstore\.(?P<verb>change)\({_ENTRY}, (?:…|schedule=…)\)",
            _done_to,
        ),
        (rf"\bstore\.explain\({_ENTRY}\)", lambda found: f"`why {_name(found)}`"),
        (rf"\bstore\.errors\({_ENTRY}\)", lambda found: f"`errors {_name(found)}`"),
        (r"\bstore\.(pause|cancel)\(…\)", r"`\1 NAME`"),
        (rf"\bstore\.link\({_ENTRY}, …\)", lambda found: f"`change {_name(found)} --after …`"),
        (rf"\bstore\.unlink\({_ENTRY}, {_OTHER}\)", _unlinked),
        (rf"\bAfter\({_ENTRY}, on='done', first_free=True\)", _after),
        (r"\boverlap='wait'", "`--overlap wait`"),
        (r"\bgive an edge first_free=True", "write one of its edges as `--after NAME:first_free`"),
        (r"\bfirst_free=True on one edge", "`--after NAME:first_free` for one edge"),
        (
            r"\buse put\(\) to create or update, or change\(\) to edit it",
            "use `add --put` to create or update, or `change` to edit it",
        ),
        (r"\bEvery\((\d+(?:\.\d+)?)\)", _every),
        (r"\bif_version=(\d+)", r"`--if-version \1`"),
        (r"\bsee explain\(\)", "see `why`"),
        (r"\bsee store\.status\(\)", "see `status`"),
        (r"(`celery -A proj beatstore migrate`), or Store\.migrate\(\)", r"\1"),
    )
)
