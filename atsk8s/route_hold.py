"""Routes that are published a moment later than they could be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from atsk8s.model.changes import Changes
from atsk8s.model.ir import HostKey, ServiceKey, VirtualHost

ROUTE_HOLD_S: Final = 0.1  # how long a new route waits for its Service and slices to be seen (design: no 503 on a first route)


class RouteHold:
    """Holds back a virtual host whose change brings a service that nobody has seen yet.

    Kinds arrive in no order: an Ingress may be here before its Service and EndpointSlices.  Its route is published when they
    are, or after `ROUTE_HOLD_S`, so that the first request to a Service's first route finds an endpoint, and a dangling
    reference still gets its 503.  Everything else of the same change is published at once.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: dict[HostKey, tuple[float, VirtualHost]] = {}  # due time, and what is due

    def reset(self) -> None:
        self._held.clear()

    def due_in_s(self) -> float:
        """Seconds until the first held one is due; infinity if none is."""
        return max(0.0, min(due for due, _ in self._held.values()) - self._clock()) if self._held else float("inf")

    def apply(self, changes: Changes, is_seen: Callable[[ServiceKey], bool]) -> Changes:
        """`changes` without what must wait, and with what has waited long enough or need wait no more."""
        now = self._clock()
        vhosts: dict[HostKey, VirtualHost | None] = {}
        for key, vhost in changes.vhosts.items():
            due = self._held.pop(key, (now + ROUTE_HOLD_S, None))[0]
            if vhost is not None and now < due and not all(map(is_seen, vhost.services())):
                self._held[key] = (due, vhost)
            else:
                vhosts[key] = vhost
        for key, (due, held) in tuple(self._held.items()):
            if now >= due or all(map(is_seen, held.services())):
                del self._held[key]
                vhosts[key] = held
        return replace(changes, vhosts=vhosts)
