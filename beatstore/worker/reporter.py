"""Write run reports in a background thread, so that tasks do not wait for the database.

    handler -> Reporter.report, .ask -> queue -> the thread -> Reports -> database

Invariants:
    * No caller waits longer than it asked to, and none waits while the database is known to be
      unavailable or slow.
    * Reports are written in order, and kept as long as the process lives; beyond `LIMIT`,
      `started` reports are dropped first.
    * A report is written at once; in a burst for which no task waits, see `beatstore.worker.pace`.
      A question does not wait for the reports; see `beatstore.worker.queued`.
    * Only the thread uses the connection, and it releases the connection when it is idle.

On failure: if the database is unavailable, or accepts no report at all, this is logged once and
retried. A report that the database refuses twice, alone and on a new connection, is logged and
dropped. A report on a run that is not in this database is ignored, and logged once for each run.

A forked child must not use its parent's reporter; see `beatstore.worker.signals`.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from beatstore.errors import BeatstoreError, HeldError, StoreError
from beatstore.outage import MAX_WAIT_S, Outage
from beatstore.tick.reports import Origin, Report
from beatstore.worker.pace import LEAST, Pace
from beatstore.worker.queued import BATCH, Item, next_batch
from beatstore.worker.writer import Writer

__all__ = ["Reporter"]

logger = logging.getLogger(__name__)

#: The maximum number of reports in the queue.
LIMIT = 10_000

#: Seconds without a report after which the connection is released.
IDLE = 10.0

#: Seconds until a report on a locked run is retried, if there are no other reports.
HELD = 0.5

#: Seconds until a question on a locked run is asked again; the database has waited for the lock.
HELD_QUESTION = 0.01

#: The origin of a test report, which belongs to no run.
NO_RUN = Origin(0, "")


class Reporter:
    """Writes the reports of one process.

    Args:
        open_writer: makes the writer, in the reporter's thread, when it is first needed.
        limit: the maximum number of reports in the queue.
        idle: seconds without a report after which the connection is released.
        linger: the least seconds that reports are gathered for; see `beatstore.worker.pace`.
    """

    def __init__(
        self,
        open_writer: Callable[[], Writer],
        *,
        limit: int = LIMIT,
        idle: float = IDLE,
        linger: float = LEAST,
    ) -> None:
        self._open_writer = open_writer
        self._limit = limit
        self._idle = idle
        self._pace = Pace(linger)
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._items: OrderedDict[int, Item] = OrderedDict()
        #: The numbers of queued `started` reports, by run and part.
        self._started: OrderedDict[Origin, int] = OrderedDict()
        #: Runs that are not in this database, as logged already.
        self._unknown: OrderedDict[Origin, None] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._writer: Writer | None = None
        self._outage = Outage(
            "could not report runs to the database", "reporting runs to the database again"
        )
        self._slow = self._overflow = self._hurry = False
        self._open = self._ending = self._useless = False

    # -- called by the tasks' threads ------------------------------------------------------

    def report(self, report: Report, *, wait: float = 0.0) -> bool:
        """Queue a report.

        Args:
            report: the report.
            wait: how many seconds to wait until it is written.

        Returns:
            Whether it is written by now.
        """
        item = self._put(report, None, waited=wait > 0)
        return self._await(item, wait)

    def ask(self, report: Report, *, again: bool, wait: float) -> str | None:
        """Mark a run started, unless it must not start.

        Args:
            report: a report with the state `started`.
            again: whether a run that is started already may start again.
            wait: how many seconds to wait for the answer.

        Returns:
            Why it must not start; None if it may, or if there was no answer in time.
        """
        item = self._put(report, again, waited=wait > 0)
        if self._await(item, wait):
            return item.answer
        with self._changed:
            if item.again is not None:
                self._let_start(item)
        return None

    @property
    def is_behind(self) -> bool:
        """Whether a whole batch waits; then tasks should wait, too."""
        return len(self._items) >= BATCH

    def prepare(self, wait: float) -> bool:
        """Connect early, so that the first question is fast; return whether it is connected."""
        # A report for no run opens the connection and compiles the statements.
        return self.report(Report(NO_RUN, "started", time.monotonic(), ""), wait=wait)

    def flush(self, timeout: float) -> bool:
        """Wait until all reports are written, and return whether they are."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._items, timeout)
            self._hurry = False
            return not self._items

    def stop(self, timeout: float) -> None:
        """Write the remaining reports and stop the thread; a later report starts another."""
        deadline = time.monotonic() + timeout
        if not self.flush(timeout) and not self._ending:
            logger.error("%d run reports were not written before shutdown", len(self._items))
        with self._changed:
            thread, self._ending = self._thread, True
            self._changed.notify_all()
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))

    # -- the queue, with `_changed` held -----------------------------------------------------

    def _put(self, report: Report, again: bool | None, *, waited: bool) -> Item:
        waited = waited and self._outage.over and not self._slow
        over = threading.Event() if waited else None
        with self._changed:
            item = Item(next(self._numbers), report, again if waited else None, over)
            if self._useless:
                item.end_wait()
                return item
            self._ending = False
            self._merge(item)
            if len(self._items) >= self._limit:
                self._drop_one()
            self._items[item.number] = item
            if report.state == "started" and item.again is None:
                self._started[report.of] = item.number
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, daemon=True, name="beatstore")
                self._thread.start()
            self._changed.notify_all()
        return item

    def _merge(self, item: Item) -> None:
        """Merge a queued `started` report into the report of the end."""
        if item.report.state == "started":
            return
        number = self._started.pop(item.report.of, None)
        start = None if number is None else self._items.pop(number, None)
        if start is not None:
            if item.report.started is None:
                item.report = replace(item.report, started=start.report.at)
            start.end_wait()

    def _drop_one(self) -> None:
        if not self._overflow:
            self._overflow = True
            logger.error("more than %d run reports are waiting, dropping the oldest", self._limit)
        if self._started:
            _, number = self._started.popitem(last=False)
            dropped = self._items.pop(number, None)
        else:
            _, dropped = self._items.popitem(last=False)
        if dropped is not None:
            dropped.end_wait()

    def _let_start(self, item: Item) -> None:
        """Turn an unanswered question into a `started` report: the run starts anyway."""
        item.again = None
        if item.number in self._items:
            self._started[item.report.of] = item.number

    def _await(self, item: Item, wait: float) -> bool:
        if item.over is not None and not item.over.wait(wait):
            self._slow = True  # until the next report is written
        return item.written

    # -- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            items = self._next()
            if items:
                self._write(items)
                continue
            self._close()
            with self._changed:
                if self._ending and not self._items:
                    self._thread = None
                    return

    def _next(self) -> list[Item]:
        """Wait for reports, and return what to write; nothing if it is time to disconnect."""
        with self._changed:
            while not self._items:
                if self._ending or not self._changed.wait(self._idle if self._open else None):
                    return []
            self._gather()
            left = self._pace.left(time.monotonic(), self._ends)
            overdue = left <= 0 or self._hurry or self.is_behind
            batch = next_batch(self._items.values(), overdue=overdue)
            if batch[0].again is None:
                self._pace.write(self._ends)
            return batch

    def _gather(self) -> None:
        """Wait for reports to be written with those that are there."""
        began = time.monotonic()
        while not self._is_urgent() and (left := self._pace.left(began, self._ends)) > 0:
            self._changed.wait(left)

    @property
    def _ends(self) -> int:
        return len(self._items) - len(self._started)

    def _is_urgent(self) -> bool:
        waited = any(item.over is not None for item in self._items.values())
        return waited or self._hurry or self.is_behind

    def _write(self, items: list[Item]) -> bool:
        """Write a batch; return whether the database is available."""
        if self._writer is None:
            try:
                self._writer = self._open_writer()
                self._outage.max_wait_s = min(MAX_WAIT_S, self._writer.max_wait_s)
            except Exception as error:  # noqa: BLE001  (it is logged there)
                self._give_up(error)
                return False
        self._open = True
        try:
            self._write_together(self._writer, items)
        except StoreError as error:
            self._wait_for_database(error)
            return False
        except Exception as error:  # noqa: BLE001  (of any driver; handled below)
            # The connection may be in a bad state: use a new one.
            self._close()
            if len(items) > 1:
                return all(self._write([one]) for one in items if one.number in self._items)
            return self._refused(items[0], error)
        return True

    def _refused(self, item: Item, error: Exception) -> bool:
        """Retry a report that the database has refused alone, and drop it the second time."""
        if not item.refused:
            item.refused = True
            return self._write([item])
        if self._refuses_all():
            self._wait_for_database(error)
            return False
        of, state = item.report.of, item.report.state
        logger.error(
            "dropped the report that run %d (task id %s) is %s, since the database refused it "
            "twice: %s: %s",
            *(of.run_id, of.task_id, state, type(error).__name__, error),
        )
        self._take_out([item], written=False)
        return True

    def _refuses_all(self) -> bool:
        """Return whether the database refuses all reports, e.g. without tables or permissions."""
        try:
            if self._writer is not None:
                self._writer.write([Report(NO_RUN, "started", time.monotonic(), "")])
        except Exception:  # noqa: BLE001  (the report's own error is more useful)
            return True
        return False

    def _write_together(self, writer: Writer, items: list[Item]) -> None:
        again = items[-1].again
        if again is not None:
            items = self._answer(writer, items[-1], items[:-1], again=again)
        if items:
            unwritten = writer.write([item.report for item in items])
            self._log_unknown(unwritten.unknown)
            held = [item for item in items if item.report in unwritten.held]
            written = [item for item in items if item not in held]
            self._settle(written, held, alone=not written)

    def _answer(
        self, writer: Writer, question: Item, others: list[Item], *, again: bool
    ) -> list[Item]:
        """Answer a question, and return the other reports that were not written with it."""
        reports = [item.report for item in others]
        try:
            question.answer, ends = writer.start_and_end(question.report, reports, again=again)
        except HeldError:
            self._settle([], [question], alone=not others)
            return others
        written = [item for item in others if item.report in ends]
        self._settle([question, *written], [], alone=False)
        if question.answer is not None and question.again is None:
            logger.warning(
                "run %d started before the database answered that it must not: %s",
                *(question.report.of.run_id, question.answer),
            )
        return [item for item in others if item not in written]

    def _settle(self, written: list[Item], held: list[Item], *, alone: bool) -> None:
        self._outage.end()
        self._slow = False
        self._take_out(written, written=True)
        if held:
            self._put_off(held, alone=alone)

    def _put_off(self, held: list[Item], *, alone: bool) -> None:
        """Move reports on locked runs to the end of the queue.

        A question is asked again for as long as its task waits.
        """
        with self._changed:
            asked = any(item.again is not None for item in held)
            for item in held:
                if item.again is None:
                    item.end_wait()
                if item.number in self._items:
                    self._items.move_to_end(item.number)
            if alone and not self._ending:
                self._changed.wait(HELD_QUESTION if asked else HELD)

    def _log_unknown(self, unknown: Sequence[Report]) -> None:
        """Log once for each run that it is not in this database."""
        for report in unknown:
            of = report.of._replace(part=None)
            if of == NO_RUN or of in self._unknown:
                continue
            self._unknown[of] = None
            if len(self._unknown) > self._limit:
                self._unknown.popitem(last=False)
            logger.warning(
                "run %d with the task id %s is not in this database: a beat with another database "
                "sent its message, or its row was deleted; ignoring its reports",
                *(of.run_id, of.task_id),
            )

    def _take_out(self, items: list[Item], *, written: bool) -> None:
        with self._changed:
            for item in items:
                item.written = written
                self._items.pop(item.number, None)
                if self._started.get(item.report.of) == item.number:
                    del self._started[item.report.of]
                item.end_wait()
            if not self._items:
                self._overflow = False
                self._changed.notify_all()

    def _wait_for_database(self, error: Exception) -> None:
        wait = self._outage.begin(error)
        with self._changed:
            for item in tuple(self._items.values()):
                if item.again is not None:
                    self._let_start(item)
                item.end_wait()
            prepared = self._started.pop(NO_RUN, None)
            if prepared is not None:  # a test report, not worth keeping
                self._items.pop(prepared, None)
                self._changed.notify_all()
            hurried = self._hurry
            self._changed.wait_for(
                lambda: self._hurry and not hurried, min(wait, 0.2) if hurried else wait
            )

    def _give_up(self, error: Exception) -> None:
        """Stop reporting in this process, since the settings can't be used."""
        logger.error(
            "this process can't report the outcomes of runs: %s",
            error,
            exc_info=not isinstance(error, BeatstoreError),
        )
        with self._changed:
            self._useless = True
            for item in self._items.values():
                item.end_wait()
            self._items.clear()
            self._started.clear()
            self._changed.notify_all()

    def _close(self) -> None:
        self._open = False
        if self._writer is not None:
            try:
                self._writer.close()
            except Exception as error:  # noqa: BLE001  (the connection is not needed any more)
                logger.debug("could not close the connection: %s", error)
