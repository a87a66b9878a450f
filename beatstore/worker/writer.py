"""What `beatstore.worker.reporter` needs of `beatstore.tick.reports.Reports`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from beatstore.tick.reports import Report, Unwritten

__all__ = ["Writer"]


class Writer(Protocol):
    """Writes the reports of one process.

    Attributes:
        max_wait_s: the longest wait between two attempts in an outage, in seconds.
    """

    max_wait_s: float

    def write(self, reports: Sequence[Report]) -> Unwritten:
        """Write reports in one transaction, and return those that were not written.

        Writing them again changes nothing.
        """

    def start_and_end(
        self, report: Report, reports: Sequence[Report], *, again: bool
    ) -> tuple[str | None, list[Report]]:
        """Mark a run started, or return why it must not start; and which `reports` were written."""

    def close(self) -> None:
        """Release the connection until it is needed again."""
