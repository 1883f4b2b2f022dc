"""Who is asked when, and what the answers so far make of it.  No sockets, no threads; times are given."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from atsk8s.model.ir import EndpointFlags, HealthCheck, Service, ServiceKey
from atsk8s.probes.exchange import Answer, Result

UNHEALTHY_AFTER: Final = 3  # failures in a row that leave an endpoint out
HEALTHY_AFTER: Final = 2  # successes in a row that bring it back
HOLD_INTERVALS: Final = 3  # a verdict that is not renewed for as many intervals (and a timeout) ends by itself
HOLD_MS_MAX: Final = 3_600_000  # bridge.h's bound
JITTER: Final = 0.1  # of an interval, either way: what began together must not stay together


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint of a service."""

    service: ServiceKey
    addr: bytes
    port: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`place` is to be left out for `hold_ms` from now on; 0: no longer."""

    place: Place
    hold_ms: int


@dataclass(slots=True)
class Target:
    """One endpoint, and what is known of it."""

    place: Place
    check: HealthCheck
    n_good: int = 0  # in a row
    n_bad: int = 0  # in a row
    is_out: bool = False
    why: str = ""  # of the last failure
    due_at: float = 0.0  # when it is, or was last, to be asked
    is_dropped: bool = False

    @property
    def port(self) -> int:
        return self.place.port if self.check.port is None else self.check.port

    @property
    def hold_ms(self) -> int:
        return min(HOLD_INTERVALS * self.check.interval_ms + self.check.timeout_ms, HOLD_MS_MAX)

    def take(self, answer: Answer) -> Verdict | None:
        """What `answer` changes, or must be said again to stay in force."""
        was_out = self.is_out
        if answer.result is Result.HEALTHY:
            self.n_good, self.n_bad, self.why = self.n_good + 1, 0, ""
            self.is_out = self.is_out and self.n_good < HEALTHY_AFTER
        elif answer.result is Result.UNHEALTHY:
            self.n_good, self.n_bad, self.why = 0, self.n_bad + 1, answer.why
            self.is_out = self.is_out or self.n_bad >= UNHEALTHY_AFTER
        if self.is_out:
            return Verdict(self.place, self.hold_ms)
        return Verdict(self.place, 0) if was_out else None

    def says(self) -> str:
        """For explain."""
        if self.is_out:
            return f"left out: {self.why}" if self.why else f"left out, {HEALTHY_AFTER - self.n_good} more to come back"
        if self.n_bad:
            return f"failed {self.n_bad} of {UNHEALTHY_AFTER}: {self.why}"
        return "healthy" if self.n_good else "not asked yet"


@dataclass(order=True, slots=True)
class _Due:
    at: float
    n: int  # no two alike: targets are not compared
    target: Target = field(compare=False)


class Targets:
    """Every endpoint that is to be asked, in order of time.

    Args:
        jitter: uniform in [a, b].
    """

    def __init__(self, jitter: Callable[[float, float], float]) -> None:
        self._jitter = jitter
        self._targets: dict[ServiceKey, dict[Place, Target]] = {}
        self._due: list[_Due] = []
        self._n_due = 0

    def __len__(self) -> int:
        return sum(map(len, self._targets.values()))

    def get(self, key: ServiceKey) -> Mapping[Place, Target]:
        return self._targets.get(key, {})

    def put(self, key: ServiceKey, service: Service | None, now: float) -> Iterator[Verdict]:
        """The service is this now; None: gone.  What was said of endpoints that are asked no more is taken back."""
        former = self._targets.pop(key, {})
        check = service.health_check if service is not None else None
        kept: dict[Place, Target] = {}
        if service is not None and check is not None:
            for endpoint in service.endpoints:
                if EndpointFlags.READY not in endpoint.flags:
                    continue  # draining: it gets nothing new, and what it has already is not taken from it
                place = Place(key, endpoint.addr, endpoint.port)
                target = former.pop(place, None)
                if target is None:
                    target = Target(place, check)
                    self._schedule(target, now + self._jitter(0.0, check.interval_ms / 1000))
                target.check = check
                kept[place] = target
        if kept:
            self._targets[key] = kept
        for target in former.values():
            target.is_dropped = True
            if target.is_out:
                yield Verdict(target.place, 0)

    def take_due(self, now: float) -> Target | None:
        """The next one to be asked, if it is time to; until it is `put_back`, it is the caller's."""
        while self._due and (self._due[0].target.is_dropped or self._due[0].at <= now):
            target = heapq.heappop(self._due).target
            if not target.is_dropped:
                return target
        return None

    def put_back(self, target: Target, now: float) -> None:
        """It was asked; ask again after its interval."""
        if not target.is_dropped:
            self._schedule(target, now + target.check.interval_ms / 1000 * self._jitter(1 - JITTER, 1 + JITTER))

    def next_due_s(self, now: float) -> float:
        """Seconds until one is due; infinity if there is none."""
        return max(0.0, self._due[0].at - now) if self._due else float("inf")

    def _schedule(self, target: Target, at: float) -> None:
        target.due_at = at
        self._n_due += 1
        heapq.heappush(self._due, _Due(at, self._n_due, target))
