"""When this process would be better started again: what /livez fails for.

A restart costs every open connection, so that it is the last means.  What is wrong with objects, pods or the API server is no
reason, nor is a thread that ended: that is started again within the process.  A reason is what no restart of a thread mends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from atsk8s.source.interface import KindStatus

_log = logging.getLogger(__name__)

# A watch's thread waits for nothing longer than the read timeout of a watch (300 s and a grace) without noting that it moved.
WATCH_STILL_MAX_S: Final = 600.0
THREAD_FAILING_MAX_S: Final = 120.0  # a thread that ends again and again for this long is not mended by another restart
CLOCK_BACK_MAX_S: Final = 60.0  # smaller steps, and slewing, cost timeouts that are late by as much


def liveness_faults(kinds: Iterable[KindStatus], failing: Mapping[str, float], clock_back_s: float) -> list[str]:
    """Reasons to start the process again.

    Args:
        kinds: state of every kind.
        failing: threads that end over and over, since when [s].
        clock_back_s: see `WallClock`.
    """
    faults = [
        f"the watch of {kind.name} has not moved for {kind.still_s:.0f} s" for kind in kinds if kind.still_s > WATCH_STILL_MAX_S
    ]
    faults += [
        f"thread {name} has ended over and over for {failing_s:.0f} s; the log says why"
        for name, failing_s in failing.items()
        if failing_s > THREAD_FAILING_MAX_S
    ]
    if clock_back_s > CLOCK_BACK_MAX_S:
        faults.append(f"the wall clock is {clock_back_s:.0f} s behind where it was: {_CLOCK_REMEDY}")
    return faults


_CLOCK_REMEDY: Final = (
    "Traffic Server times everything by it, so that no timeout ends anything, and no shutdown, until it has caught up: "
    "start Traffic Server again (kill it, if it does not end)"
)


class WallClock:
    """Notes that the wall clock was set back.  Traffic Server 9.2 takes the time from it alone (ink_get_hrtime(): CLOCK_REALTIME):
    its timers stand still until the clock shows again what it has shown before."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._latest = wall_clock()
        self._is_told = False

    def look(self) -> None:
        """Once a round; a step back that is mended by another before the next look is not seen, and did no harm."""
        back_s = self.back_s()
        self._latest = max(self._latest, self._wall_clock())
        if back_s <= CLOCK_BACK_MAX_S:
            self._is_told = False
        elif not self._is_told:
            self._is_told = True
            _log.warning("the wall clock was set back", extra={"by_s": round(back_s), "remedy": _CLOCK_REMEDY})

    def back_s(self) -> float:
        """How far the clock is behind the latest time that it has shown [s]."""
        return max(0.0, self._latest - self._wall_clock())
