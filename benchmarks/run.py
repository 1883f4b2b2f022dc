"""What the command line asks of every group, and how a part of a group fails alone."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks import figures
from benchmarks.figures import Row


class Effort(StrEnum):
    """How much of everything: `quick` leaves variants out, `trial` measures all of them for a moment, to see that they work."""

    FULL = "full"
    QUICK = "quick"
    TRIAL = "trial"


class LateError(RuntimeError):
    """A part of a group took longer than it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the benchmark."""

    scratch: Path  # empty, readable to Traffic Server's user; goes when the group ends
    effort: Effort
    peers: bool

    @property
    def quick(self) -> bool:
        """Say whether variants are left out."""
        return self.effort is Effort.QUICK

    @property
    def n_runs(self) -> int:
        """Return how many interleaved runs each figure gets."""
        return {Effort.FULL: 5, Effort.QUICK: 3, Effort.TRIAL: 1}[self.effort]

    @property
    def shot_s(self) -> float:
        """Return how long one turn under load is [s]."""
        return 2 if self.effort is Effort.FULL else 1

    @property
    def n_changes(self) -> int:
        """Return over how many changes a propagation figure is taken."""
        return {Effort.FULL: 120, Effort.QUICK: 30, Effort.TRIAL: 10}[self.effort]


def part(group: str, name: str, rows: Iterable[Row], *, limit_s: float) -> Iterator[Row]:
    """Yield `rows`; if making them fails, or takes longer than `limit_s`, end with a row that says so.

    The traceback goes to stderr.  The time counts from the first row asked for.  Parts may lie within parts: the inner one's time
    counts in the outer one, too, which is looked at when the inner one ends.  In the main thread alone.
    """

    def late(*_: object) -> None:
        raise LateError(f"not done after {limit_s:g} s")

    began_s = time.monotonic()
    before = signal.signal(signal.SIGALRM, late)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield from rows
    except Exception as error:  # one part's failure costs that part
        signal.setitimer(signal.ITIMER_REAL, 0)
        traceback.print_exc()
        yield figures.failed(group, name, error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left_s:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left_s - (time.monotonic() - began_s)))
