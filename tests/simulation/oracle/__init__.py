"""What must be true of a schedule, written from the documentation.

    dues.py      which due times an entry has, and what its misfire policy makes of late ones
    change.py    one commit: what was before, what is after, and who made it
    commits.py   what must be true of each commit
    planning.py  what must be true where a beat decides about an entry
    sending.py   what must be true of each message that the broker takes
    memory.py    what the rules need to know of the past
    explaining.py  what must be true of the answers of `Store.explain`
    rest.py      what must be true when nothing is left to do

A rule yields a sentence for whatever breaks it. Its docstring is the promise.
"""

from tests.simulation.oracle.judge import Judge

__all__ = ["Judge"]
