"""Writes the last good state from time to time: a thread beside the controller, which nothing waits for.

What fails here costs the next start its head start, and a line; never traffic, and never a commit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from atsk8s.threads import Keeper, Kept

_log = logging.getLogger(__name__)

INTERVAL_S: Final = 10.0  # between two writes, at least
LOOK_S: Final = 1.0  # how often it looks whether there is something to write
FAILURE_LINE_S: Final = 300.0  # between two lines about failures that go on
STOP_COST_S: Final = 0.3  # a stop waits for a last write only if the one before took no longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one write."""

    version: int = 0  # of the table written
    size_bytes: int = 0
    failure: str = ""  # what failed, and at which file; empty: nothing did


@dataclass(frozen=True, slots=True, kw_only=True)
class SaverReport:
    """What metrics read.  A value: never changed once handed out."""

    n_saved: int = 0
    n_failed: int = 0
    size_bytes: int = 0
    last_s: float = 0.0  # what the last write took


class Saver:
    """Saves the table when its version has changed, no more often than every `INTERVAL_S`."""

    def __init__(
        self,
        save: Callable[[], Outcome],
        live_version: Callable[[], int],
        *,
        directory: str,
        clock: Callable[[], float] = time.monotonic,
        keeper: Keeper | None = None,
    ) -> None:
        """Prepare.

        Args:
            save: writes the published table; may take seconds; never raises.
            live_version: of the published table; 0 while it is not the controller's own.
            directory: for messages.
            clock: seconds.
            keeper: starts the thread again if it ended too early.
        """
        self._save = save
        self._live_version = live_version
        self._directory = directory
        self._clock = clock
        self._saved_version = 0
        self._tried_at_s = float("-inf")
        self._told_at_s = float("-inf")
        self._stop = threading.Event()
        self._keeper = keeper or Keeper()
        self._thread: Kept | None = None
        self.report = SaverReport()

    def start(self) -> None:
        self._thread = self._keeper.keep(self._run, name="atsk8s-saver", purpose="saver")

    def stop(self) -> None:
        """Write a last time, if there is something new and writing is quick, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_COST_S)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.look()
        if self.report.last_s <= STOP_COST_S:
            self.look(is_last=True)

    def look(self, *, is_last: bool = False) -> None:
        """Save, if it is time to."""
        version = self._live_version()
        now = self._clock()
        if version in (0, self._saved_version) or (now - self._tried_at_s < INTERVAL_S and not is_last):
            return
        self._tried_at_s = now
        outcome = self._save()
        took_s = self._clock() - now
        if outcome.failure:
            self.report = replace(self.report, n_failed=self.report.n_failed + 1, last_s=took_s)
            if now - self._told_at_s >= FAILURE_LINE_S:
                self._told_at_s = now
                why = f"{outcome.failure}; the directory must be there, with room, and belong to the user Traffic Server runs as"
                _log.warning("option --state-dir: the last good state could not be written", extra={"why": why})
            return
        self._told_at_s = float("-inf")
        self._saved_version = outcome.version
        self.report = replace(self.report, n_saved=self.report.n_saved + 1, size_bytes=outcome.size_bytes, last_s=took_s)
        _log.debug("last good state written", extra={"directory": self._directory, "version": outcome.version})
