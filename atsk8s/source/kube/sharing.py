"""One copy of what thousands of objects have in common: the namespace, the class, the path "/" of a Service, a Service's ports.

The decoder makes each object's values anew.  Of an Ingress of one host two fifths of its memory are like those of others.
"""

from __future__ import annotations

from sys import intern
from typing import Final, Generic, TypeVar

from atsk8s.api.absent import fill
from atsk8s.api.core import Service
from atsk8s.api.discovery import EndpointSlice
from atsk8s.api.meta import K
from atsk8s.api.networking import Ingress

V = TypeVar("V")

KEPT_MAX: Final = 1024  # values that one pool remembers; what is made after that shares with what comes then
SHARED_PATHS_MAX: Final = 4  # of one host; longer lists are hardly ever equal, and a pool must not keep large ones alive


class _Pool(Generic[V]):
    """The first of equal values.  Bounded: it starts anew when it is full, and then less is shared, and nothing lost."""

    def __init__(self) -> None:
        self._kept: dict[V, V] = {}

    def get(self, value: V) -> V:
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        return self._kept.setdefault(value, value)


class Sharing:
    """What the objects of one kind share.  Used by one thread."""

    def __init__(self) -> None:
        self._values: _Pool[object] = _Pool()

    def share(self, obj: K) -> K:
        """`obj`, with values of earlier objects in place of its own where they are equal.

        Args:
            obj: freshly decoded and not yet shared with another thread: this finishes its construction.
        """
        meta = obj.metadata
        fill(meta, "namespace", intern(meta.namespace))
        match obj:
            case Ingress():
                if obj.spec.ingress_class_name:
                    fill(obj.spec, "ingress_class_name", self._values.get(obj.spec.ingress_class_name))
                for rule in obj.spec.rules:
                    if rule.http is not None and len(rule.http.paths) <= SHARED_PATHS_MAX:
                        fill(rule, "http", self._values.get(rule.http))
            case Service():
                fill(obj.spec, "type", self._values.get(obj.spec.type))
                fill(obj.spec, "ports", self._values.get(obj.spec.ports))
            case EndpointSlice():
                fill(obj, "address_type", self._values.get(obj.address_type))
                fill(obj, "ports", self._values.get(obj.ports))
        return obj
