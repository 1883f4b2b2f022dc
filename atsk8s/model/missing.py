"""Services and Secrets that are referred to and are not there: told to the Ingresses that name them, whose authors can mend it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Set
from typing import Final

from atsk8s.api.meta import ObjectKey
from atsk8s.errors import Reason
from atsk8s.model.ir import Condition, ObjectRef, ingress_ref
from atsk8s.model.verdicts import Verdicts

NAMED_MAX: Final = 32  # missing objects of one kind for which an Ingress has a condition each; it counts the others


class Missing:
    """The objects of one kind that something in use refers to and that are not there, and which Ingresses name them.

    One condition for each Ingress and name, whichever port is meant.  What no Ingress names an option does; then there is only the
    absent object itself for the condition to stand against.  Conditions follow from who names what and what is absent now, not
    from how that came about.

    Args:
        kind: of the objects.
        remedy: what is wrong and what to do, as it follows after the object's name.
    """

    def __init__(self, kind: str, remedy: str) -> None:
        self._kind = kind
        self._remedy = remedy
        self._namers: dict[ObjectKey, list[ObjectKey]] = {}  # the Ingresses that name it, sorted: there are many with one alone
        self._absent: dict[ObjectKey, None] = {}
        self._dirty_ingresses: dict[ObjectKey, None] = {}
        self._dirty_names: dict[ObjectKey, None] = {}

    def replace(self, ingress: ObjectKey, former: Set[ObjectKey], now: Set[ObjectKey]) -> None:
        """An Ingress named `former`, and names `now`."""
        if former == now:
            return
        for name in now - former if former else now:
            namers = self._namers.get(name)
            if namers is None:
                self._namers[name] = [ingress]
            else:
                insort(namers, ingress)
        for name in former - now if now else former:
            namers = self._namers[name]
            del namers[bisect_left(namers, ingress)]
            if not namers:
                del self._namers[name]
        for name in former ^ now if self._absent else ():
            if name in self._absent:
                self._dirty_ingresses[ingress] = None
                self._dirty_names[name] = None

    def note(self, name: ObjectKey, *, is_absent: bool) -> None:
        """Whether `name` is referred to and not there."""
        if is_absent == (name in self._absent):
            return
        if is_absent:
            self._absent[name] = None
        else:
            del self._absent[name]
        self._dirty_ingresses.update(dict.fromkeys(self._namers.get(name, ())))
        self._dirty_names[name] = None

    def drain(self, verdicts: Verdicts, named_by: Callable[[ObjectKey], Set[ObjectKey]]) -> None:
        """Bring the conditions up to date.

        Args:
            verdicts: where they go.
            named_by: what an Ingress names now; nothing if there is none.
        """
        for ingress in tuple(self._dirty_ingresses):
            verdicts.put((f"missing {self._kind}", ingress), self._conditions(ingress, named_by(ingress) & self._absent.keys()))
            del self._dirty_ingresses[ingress]
        for name in tuple(self._dirty_names):
            verdicts.put((f"absent {self._kind}", name), self._own(name))
            del self._dirty_names[name]

    def _conditions(self, ingress: ObjectKey, missing: Set[ObjectKey]) -> tuple[Condition, ...]:
        ref = ingress_ref(ingress)
        told = [f"it refers to {self._kind} {name}, {self._remedy}" for name in sorted(missing)[:NAMED_MAX]]
        if len(missing) > NAMED_MAX:
            told.append(f"it refers to {len(missing) - NAMED_MAX} more {self._kind}s that are not there")
        return tuple(Condition(object=ref, reason=Reason.NOT_FOUND, message=message) for message in told)

    def _own(self, name: ObjectKey) -> tuple[Condition, ...]:
        if name not in self._absent or name in self._namers:
            return ()
        ref = ObjectRef(kind=self._kind, namespace=name.namespace, name=name.name)
        return (Condition(object=ref, reason=Reason.NOT_FOUND, message=f"an option refers to it, {self._remedy}"),)
