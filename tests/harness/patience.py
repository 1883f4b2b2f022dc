"""How long something may take: what is bounded in seconds takes longer where others have the cores, too."""

from __future__ import annotations

import os

_SLOWNESS_MAX = 8.0  # beyond that a bar would no longer tell a slow machine from a hang


def slowness() -> float:
    """How many threads that want to run share a core: the last minute's load by the number of cores, 1 at least."""
    return min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0), _SLOWNESS_MAX)


def stretched(seconds: float) -> float:
    """Return what `seconds` on cores of one's own may take now [s].  Not for time limits of the product, which are the clock's."""
    return seconds * slowness()
