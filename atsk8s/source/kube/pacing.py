"""How often a reflector may bother the API server, whatever goes wrong.  Clock and randomness are given, nothing sleeps here."""

from __future__ import annotations

from dataclasses import dataclass, field

from atsk8s.source.interface import Clock, Jitter

# client-go's numbers (tools/cache/reflector.go): at worst one request in 0.8 s, soon one in 30-60 s, 98 % fewer than without.
BACKOFF_FIRST_S = 0.8
BACKOFF_MAX_S = 30.0
# Where nobody answers, trying costs nobody anything: a server that comes back after an hour is found 5-10 s later.
UNREACHABLE_MAX_S = 5.0
BACKOFF_CALM_S = 120.0  # without a failure for this long, the next one counts as the first

# A starting aggregator answers `503 Retry-After: 10` although it is up after 4 s: a wish, not an order.
RETRY_AFTER_MAX_S = 5.0

REQUESTS_AT_ONCE = 10
REQUESTS_PER_S = 1.0

STREAMED_LIST_RETRY_S = 600.0


class Backoff:
    """Exponential, with jitter on every delay so that what failed together does not return together."""

    def __init__(self, clock: Clock, jitter: Jitter) -> None:
        self._clock = clock
        self._jitter = jitter
        self._base_s = BACKOFF_FIRST_S
        self._last = float("-inf")

    def next_s(self, max_s: float = BACKOFF_MAX_S) -> float:
        """Seconds to wait now; the next call's answer is twice as long, up to `max_s`, unless calm comes between."""
        now = self._clock()
        if now - self._last > BACKOFF_CALM_S:
            self._base_s = BACKOFF_FIRST_S
        delay_s = min(self._base_s, max_s) * self._jitter(1.0, 2.0)
        self._base_s = min(self._base_s * 2, max_s)
        self._last = now + delay_s
        return delay_s


@dataclass(slots=True)
class TokenBucket:
    """So many at once, and so many a second in the long run.  Who takes one that is not there yet owes it."""

    at_once: float
    per_s: float
    at_s: float  # when `left` was so many
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.at_once

    def wait_s(self, now: float) -> float:
        """Seconds until there is a token; 0: there is one."""
        self.left = min(self.at_once, self.left + (now - self.at_s) * self.per_s)
        self.at_s = now
        return max(0.0, (1 - self.left) / self.per_s)

    def take(self) -> None:
        self.left -= 1


class RequestBudget:
    """The last bound: it holds also where each request by itself looks like a success.

    A server that ends every watch at once after one event is an example: no rule about errors or short watches sees it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bucket = TokenBucket(REQUESTS_AT_ONCE, REQUESTS_PER_S, clock())

    def take_s(self) -> float:
        """Take one request; seconds to wait before sending it, usually 0."""
        wait_s = self._bucket.wait_s(self._clock())
        self._bucket.take()
        return wait_s


@dataclass(slots=True)
class StreamedLists:
    """Whether to ask for lists as a stream (`sendInitialEvents`), one answer for all kinds of a server.

    On by default in servers 1.32 and from 1.34, off in 1.33, unknown before 1.27.  A refusal is remembered for a while only:
    servers are upgraded.
    """

    clock: Clock
    refused_at: float = float("-inf")

    def is_worth_a_try(self) -> bool:
        """No refusal in the last ten minutes."""
        return self.clock() - self.refused_at >= STREAMED_LIST_RETRY_S

    def refuse(self) -> None:
        """The server does not know them, or not properly."""
        self.refused_at = self.clock()
