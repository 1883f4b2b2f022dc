"""Threads that are not to end before their work does.

What a thread is made of may end it all the same, past every handler of its own: SystemExit in a library, no memory for the handler
itself.  A thread that watches would be gone then, its kind frozen for ever and nothing said of it.  So those threads are kept:
somebody who goes round anyway (the controller) calls `Keeper.tend`, which starts again what has ended before its work was done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

_log = logging.getLogger(__name__)

BACKOFF_FIRST_S: Final = 1.0  # before the second restart in a row; the first comes at once
BACKOFF_MAX_S: Final = 30.0
CALM_S: Final = 60.0  # one that ran for this long has recovered


class Restarts:
    """How often threads were started again, by what they are for.  Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, purpose: str) -> None:
        with self._lock:
            self._counts[purpose] = self._counts.get(purpose, 0) + 1

    def counts(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._counts)


class Backoff:
    """How long to leave something that ended before it is started again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._delay_s = 0.0
        self._started_at = clock()
        self.failing_since: float | None = None  # on the clock; None: it runs, or ran for long enough when it last did

    def started(self) -> None:
        self._started_at = self._clock()

    def ended(self) -> float:
        """It has ended too early; seconds to wait now."""
        now = self._clock()
        if self.failing_since is None or now - self._started_at >= CALM_S:
            self._delay_s, self.failing_since = 0.0, now
        else:
            self._delay_s = min(max(BACKOFF_FIRST_S, 2 * self._delay_s), BACKOFF_MAX_S)
        return self._delay_s

    def failing_s(self) -> float:
        """Since when starting it again has been of no use [s]; 0: it runs."""
        now = self._clock()
        if self.failing_since is None or now - self._started_at >= CALM_S:
            return 0.0
        return now - self.failing_since


class Kept:
    """One such thread.  A daemon: a thread that hangs in name resolution must not keep the process from ending."""

    def __init__(self, run: Callable[[], None], *, name: str, purpose: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.purpose = purpose
        self._run = run
        self._clock = clock
        self._backoff = Backoff(clock)
        self._due_at: float | None = None  # when it is to be started again; None: it has not been seen to have ended
        self._is_done = False
        self._error: BaseException | None = None
        self._thread = self._start()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._main, name=self.name, daemon=True)
        thread.start()
        self._backoff.started()
        return thread

    def _main(self) -> None:
        try:
            self._run()
            self._is_done = True
        except BaseException as error:
            self._error = error

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def failing_s(self) -> float:
        """Since when it has been ending early, over and over, or could not be started [s]; 0: it runs, or is done."""
        return 0.0 if self._is_done else self._backoff.failing_s()

    def tend(self) -> bool:
        """True if it was started again."""
        if self._is_done or self._thread.is_alive():
            return False
        if self._due_at is None:
            delay_s = self._backoff.ended()
            self._due_at = self._clock() + delay_s
            error, self._error = self._error, None  # with its traceback, which holds what the thread had in its hands
            _log.error(
                "a thread ended before its time, and is started again",
                exc_info=error,
                extra={"which": self.name, "why": type(error).__name__ if error else "unknown", "after_s": delay_s},
            )
        if self._clock() < self._due_at:
            return False
        try:
            self._thread = self._start()
        except RuntimeError as error:  # the limit of processes or memory
            self._due_at = self._clock() + self._backoff.ended()
            _log.warning("a thread could not be started", extra={"which": self.name, "why": str(error)})
            return False
        self._due_at = None
        return True


class Keeper:
    """All kept threads of a process.  `keep` and `close` from any thread; `tend` from one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.restarts = Restarts()
        self._clock = clock
        self._kept: tuple[Kept, ...] = ()
        self._lock = threading.Lock()
        self._is_closed = False

    def keep(self, run: Callable[[], None], *, name: str, purpose: str) -> Kept:
        """Start a thread.  `run` returns when its work is done, and must bear being called again after it ended anywhere.

        Args:
            name: of the thread, for logs.
            purpose: label of the counter of restarts; few different ones.
        """
        kept = Kept(run, name=name, purpose=purpose, clock=self._clock)
        with self._lock:
            self._kept = (*self._kept, kept)
        return kept

    def tend(self) -> None:
        """Start again what has ended before its time, each after its backoff."""
        for kept in self._kept:
            if self._is_closed:
                return
            if kept.tend():
                self.restarts.add(kept.purpose)

    def close(self) -> None:
        """Everything is about to end: start nothing again."""
        self._is_closed = True

    def failing(self) -> Mapping[str, float]:
        """Threads that end over and over, by name: since when [s]."""
        return {kept.name: failing_s for kept in self._kept if (failing_s := kept.failing_s()) > 0}
