"""Keep each reply of Redis to the commands of a pipeline."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["note_replies"]


def note_replies(
    pipeline: Any, replies: list[object], connection_errors: tuple[type[Exception], ...]
) -> None:
    """Have a pipeline of redis-py add the reply to each command to a list.

    So they are known if one of them failed, or if the connection breaks after some of them.
    """
    parse = pipeline.parse_response

    def read(*args: Any, **options: Any) -> Any:
        try:
            reply = parse(*args, **options)
        except connection_errors:
            raise
        except Exception as error:
            # A copy, since redis-py adds the command, and so the message, to the first error.
            replies.append(copy.copy(error))
            raise
        replies.append(reply)
        return reply

    pipeline.parse_response = read
