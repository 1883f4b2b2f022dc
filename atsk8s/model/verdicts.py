"""What is wrong with which object.  A verdict is an object's conditions: none is "accepted"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from atsk8s.api.meta import ObjectKey
from atsk8s.model.ir import Condition, HostKey, ObjectRef, ServiceKey

# Where conditions come from: translating an object, or assembling or resolving something that several objects touch.
Origin: TypeAlias = tuple[str, ObjectKey | HostKey | ServiceKey]


class Verdicts:
    """All conditions, by origin and by object, and which objects' have changed.  Objects without any take no room."""

    def __init__(self) -> None:
        self._by_origin: dict[Origin, tuple[Condition, ...]] = {}
        self._origins: dict[ObjectRef, dict[Origin, None]] = {}
        self._changed: dict[ObjectRef, None] = {}

    def put(self, origin: Origin, conditions: tuple[Condition, ...]) -> None:
        """Replace what `origin` has against any object."""
        former = self._by_origin.get(origin, ())
        if former == conditions:
            return
        for condition in former:
            origins = self._origins.get(condition.object)
            if origins is not None:
                origins.pop(origin, None)
                if not origins:
                    del self._origins[condition.object]
        if conditions:
            self._by_origin[origin] = conditions
        else:
            del self._by_origin[origin]
        for condition in conditions:
            self._origins.setdefault(condition.object, {})[origin] = None
        for condition in (*former, *conditions):
            self._changed[condition.object] = None

    def of(self, ref: ObjectRef) -> tuple[Condition, ...]:
        """Everything that is wrong with one object, sorted, once each."""
        origins = self._origins.get(ref)
        if origins is None:
            return ()
        return tuple(sorted({c for origin in origins for c in self._by_origin[origin] if c.object == ref}))

    def from_origin(self, origin: Origin) -> tuple[Condition, ...]:
        """What `origin` has put."""
        return self._by_origin.get(origin, ())

    def __iter__(self) -> Iterator[Condition]:
        """All conditions, in no order; the same one may come from two origins."""
        for conditions in self._by_origin.values():
            yield from conditions

    def take_changed(self) -> tuple[ObjectRef, ...]:
        """The objects whose conditions were touched since the last call, sorted."""
        changed, self._changed = self._changed, {}
        return tuple(sorted(changed))
