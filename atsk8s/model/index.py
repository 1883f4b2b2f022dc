"""What depends on what: claims by host, and how often a thing is referred to.  Pure data structures; updates cost what changes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from atsk8s.api.meta import ObjectKey
from atsk8s.errors import InvariantError
from atsk8s.model.ir import HostKey
from atsk8s.model.precedence import Precedence


class Claim(Protocol):
    """What an object wants of a host; equal claims lead to equal outcomes."""

    @property
    def object(self) -> ObjectKey: ...

    @property
    def precedence(self) -> Precedence: ...


C = TypeVar("C", bound=Claim)
H = TypeVar("H", bound=Hashable)


def _precedence(claim: Claim) -> Precedence:
    return claim.precedence


class ClaimIndex(Generic[C]):
    """The claims on each host, by precedence; an object has at most one on a host."""

    def __init__(self) -> None:
        self._claims: dict[HostKey, list[C]] = {}

    def get(self, host: HostKey) -> Sequence[C]:
        """The claims on `host`, oldest object's first.  Borrowed: valid until the next `replace`."""
        return self._claims.get(host, ())

    def __contains__(self, host: HostKey) -> bool:
        return host in self._claims

    def __iter__(self) -> Iterator[HostKey]:
        return iter(self._claims)

    def replace(self, old: Iterable[tuple[HostKey, C]], new: Iterable[tuple[HostKey, C]]) -> list[HostKey]:
        """Take out an object's former claims and put in its present ones; the hosts for which that makes a difference."""
        touched: list[HostKey] = []
        former = dict(old)
        for host, claim in new:
            was = former.pop(host, None)
            if was == claim:
                continue
            if was is not None:
                self._remove(host, was)
            claims = self._claims.get(host)
            if claims is None:
                self._claims[host] = [claim]
            else:
                insort(claims, claim, key=_precedence)
            touched.append(host)
        for host, was in former.items():
            self._remove(host, was)
            touched.append(host)
        return touched

    def _remove(self, host: HostKey, claim: C) -> None:
        claims = self._claims[host]
        place = bisect_left(claims, claim.precedence, key=_precedence)
        if place == len(claims) or claims[place].object != claim.object:
            raise InvariantError(f"{claim.object} has no claim on {host}")
        del claims[place]
        if not claims:
            del self._claims[host]


class References(Generic[H]):
    """How many things refer to each of some others."""

    def __init__(self) -> None:
        self._counts: dict[H, int] = {}

    def __contains__(self, thing: H) -> bool:
        return thing in self._counts

    def __iter__(self) -> Iterator[H]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, thing: H) -> bool:
        """True if it is the first reference."""
        n = self._counts.get(thing, 0)
        self._counts[thing] = n + 1
        return n == 0

    def remove(self, thing: H) -> bool:
        """True if it was the last one."""
        n = self._counts[thing]
        if n > 1:
            self._counts[thing] = n - 1
            return False
        del self._counts[thing]
        return True
