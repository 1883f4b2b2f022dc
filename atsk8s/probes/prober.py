"""The thread that asks: as many endpoints at a time as `AT_ONCE`, by one selector."""

from __future__ import annotations

import logging
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from atsk8s.model.ir import Service, ServiceKey
from atsk8s.probes.exchange import Answer, Exchange, Result, place_text
from atsk8s.probes.targets import Place, Target, Targets, Verdict
from atsk8s.threads import Keeper, Kept

_log = logging.getLogger(__name__)

AT_ONCE: Final = 128  # checks in flight; the others wait their turn
PER_S: Final = 500.0  # checks begun: each takes some 0.1 ms from the interpreter, which commits need as well
BURST: Final = 50.0
REST_S: Final = 1.0  # when there is no socket to be had
LINES_PER_MINUTE: Final = 20  # about endpoints that are left out, or are back; the rest is counted


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What metrics read.  A value."""

    n_healthy: int = 0
    n_unhealthy: int = 0
    n_unknown: int = 0
    n_late: int = 0  # begun more than an interval after their time: there are more than can be asked that often
    n_targets: int = 0


@dataclass(slots=True)
class _Flight:
    target: Target
    exchange: Exchange
    ends_at: float


class Prober:
    """See the package.  `take` and `verdicts` are the controller's thread's; there is no thread before there is something to ask.

    Args:
        on_verdict: called when there is something in `verdicts`; any thread, must not block.
        clock: monotonic seconds.
        jitter: uniform in [a, b].
        keeper: starts the thread again if it ended too early; it asks everybody anew then.
    """

    def __init__(
        self,
        on_verdict: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
        keeper: Keeper | None = None,
    ) -> None:
        self._on_verdict = on_verdict
        self._clock = clock
        self._jitter = jitter
        self._keeper = keeper or Keeper(clock)
        self._lock = threading.Lock()
        self._services: dict[ServiceKey, Service] = {}  # all that ask for checks
        self._changed: dict[ServiceKey, None] = {}  # since the thread looked
        self._verdicts: dict[Place, Verdict] = {}  # the latest of each
        self._targets = Targets(jitter)
        self._thread: Kept | None = None
        self._stopping = threading.Event()
        self._pair: tuple[socket.socket, socket.socket] | None = None  # what wakes the thread, and what it is woken by
        self._lines_from, self._n_lines = float("-inf"), 0
        self._tokens, self._tokens_at = BURST, clock()
        self.report = ProbeReport()

    # --- for other threads ----------------------------------------------------------------------------------------------------

    def take(self, services: Mapping[ServiceKey, Service | None]) -> None:
        """These have changed; None: gone."""
        with self._lock:
            for key, service in services.items():
                if service is not None and service.health_check is not None:
                    self._services[key] = service
                elif self._services.pop(key, None) is None:
                    continue
                self._changed[key] = None
        self._start()
        self._wake()

    def _start(self) -> None:
        if self._thread is not None or not self._changed:
            return
        if self._pair is None:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
        self._thread = self._keeper.keep(self.run, name="atsk8s-probes", purpose="probes")

    def verdicts(self) -> list[Verdict]:
        """What is to be said to the core since the last call, the latest of each endpoint."""
        self._start()  # if it could not be before
        if not self._verdicts:
            return []
        with self._lock:
            found, self._verdicts = list(self._verdicts.values()), {}
        return found

    def says(self, key: ServiceKey) -> Mapping[str, str]:
        """What is known of a service's endpoints, by "ADDRESS:PORT", for people."""
        with self._lock:
            return {place_text(place.addr, place.port): target.says() for place, target in self._targets.get(key).items()}

    def stop(self, timeout_s: float = 2.0) -> None:
        self._stopping.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._pair is not None and not self._thread.is_alive():
                for end in self._pair:
                    end.close()

    def _wake(self) -> None:
        if self._pair is not None:
            with suppress(OSError):  # it has been woken often enough, or is no more
                self._pair[1].send(b"!")

    # --- the thread -----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Ask until stopped.  Called again, it begins anew: what was said before ends by itself."""
        if self._pair is None:
            return
        alarm = self._pair[0]
        flights: dict[socket.socket, _Flight] = {}
        with self._lock:
            self._targets = Targets(self._jitter)
            self._changed = dict.fromkeys(self._services)
        with selectors.DefaultSelector() as selector:
            selector.register(alarm, selectors.EVENT_READ)
            try:
                while not self._stopping.is_set():
                    self._take_changes(alarm)
                    rest_s = self._start_due(selector, flights)
                    self._wait(selector, flights, rest_s)
                    self._end_late(selector, flights)
            finally:
                for flight in flights.values():
                    flight.exchange.close()

    def _take_changes(self, alarm: socket.socket) -> None:
        with suppress(BlockingIOError):
            while alarm.recv(4096):
                pass
        with self._lock:
            changed, self._changed = self._changed, {}
            for key in changed:
                for verdict in self._targets.put(key, self._services.get(key), self._clock()):
                    self._verdicts[verdict.place] = verdict
            if changed:
                self.report = replace(self.report, n_targets=len(self._targets))
        if self._verdicts:
            self._on_verdict()

    def _start_due(self, selector: selectors.BaseSelector, flights: dict[socket.socket, _Flight]) -> float:
        """Begin what is due; seconds until more is."""
        now = self._clock()
        self._tokens = min(BURST, self._tokens + (now - self._tokens_at) * PER_S)
        self._tokens_at = now
        while len(flights) < AT_ONCE:
            if self._tokens < 1:
                return (1 - self._tokens) / PER_S
            target = self._targets.take_due(now)
            if target is None:
                return self._targets.next_due_s(now)
            self._tokens -= 1
            if now - target.due_at > target.check.interval_ms / 1000:
                self.report = replace(self.report, n_late=self.report.n_late + 1)
            exchange = Exchange(target.place.addr, target.port, target.check.path)
            if exchange.failed is not None or exchange.socket is None:
                answer = exchange.failed or Answer(Result.UNKNOWN)
                self._end(target, exchange, answer)
                if answer.result is Result.UNKNOWN:
                    return REST_S
                continue
            flights[exchange.socket] = _Flight(target, exchange, now + target.check.timeout_ms / 1000)
            selector.register(exchange.socket, exchange.events)
        return float("inf")  # one of those in flight must end first

    def _wait(self, selector: selectors.BaseSelector, flights: dict[socket.socket, _Flight], rest_s: float) -> None:
        first = min((flight.ends_at for flight in flights.values()), default=float("inf"))
        wait_s = min(rest_s, max(0.0, first - self._clock()))
        for key, _ in selector.select(None if wait_s == float("inf") else wait_s):
            flight = flights.get(key.fileobj) if isinstance(key.fileobj, socket.socket) else None
            if flight is None or flight.exchange.socket is None:
                continue  # woken
            answer = flight.exchange.advance()
            if answer is None:
                selector.modify(flight.exchange.socket, flight.exchange.events)
            else:
                self._land(selector, flights, flight, answer)

    def _end_late(self, selector: selectors.BaseSelector, flights: dict[socket.socket, _Flight]) -> None:
        now = self._clock()
        for flight in [flight for flight in flights.values() if flight.ends_at <= now]:
            self._land(selector, flights, flight, Answer(Result.UNHEALTHY, f"no answer within {flight.target.check.timeout_ms} ms"))

    def _land(
        self, selector: selectors.BaseSelector, flights: dict[socket.socket, _Flight], flight: _Flight, answer: Answer
    ) -> None:
        assert flight.exchange.socket is not None
        selector.unregister(flight.exchange.socket)
        del flights[flight.exchange.socket]
        self._end(flight.target, flight.exchange, answer)

    def _end(self, target: Target, exchange: Exchange, answer: Answer) -> None:
        exchange.close()
        report = self.report
        match answer.result:
            case Result.HEALTHY:
                self.report = replace(report, n_healthy=report.n_healthy + 1)
            case Result.UNHEALTHY:
                self.report = replace(report, n_unhealthy=report.n_unhealthy + 1)
            case Result.UNKNOWN:
                self.report = replace(report, n_unknown=report.n_unknown + 1)
        was_out = target.is_out
        with self._lock:
            verdict = None if target.is_dropped else target.take(answer)
            if verdict is not None:
                self._verdicts[verdict.place] = verdict
            self._targets.put_back(target, self._clock())
        if verdict is not None:
            if target.is_out != was_out:
                self._tell(target)
            self._on_verdict()

    def _tell(self, target: Target) -> None:
        now = self._clock()
        if now - self._lines_from >= 60:
            self._lines_from, self._n_lines = now, 0
        self._n_lines += 1
        if self._n_lines <= LINES_PER_MINUTE:
            extra = {
                "service": str(target.place.service),
                "address": place_text(target.place.addr, target.port),
                "why": target.why,
            }
            _log.info("endpoint is left out: its health check fails" if target.is_out else "endpoint is back", extra=extra)
