"""ConfigMaps, merged and put into effect: what is wanted, what was set, what to give back, and what is wrong with each.

The controller's thread alone.  Of two ConfigMaps that say different things of one key the oldest wins, as with every other object
(precedence.object_precedence); a value that cannot be used does not count.  A record that no ConfigMap wants any more gets the
value that it had before the first one set it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from atsk8s.api.core import ConfigMap
from atsk8s.api.meta import ObjectKey
from atsk8s.cluster_settings import records
from atsk8s.cluster_settings.keys import CONFIGMAP_ANNOTATION, KeyState, Value, key_of, parse_value
from atsk8s.cluster_settings.records import Record, check_name, check_value
from atsk8s.errors import Reason, RejectError
from atsk8s.model.grants import AccessList, Grant
from atsk8s.model.host_certificates import HostCertificate
from atsk8s.model.ir import Condition, ObjectRef
from atsk8s.model.names import shown
from atsk8s.model.precedence import object_precedence
from atsk8s.settings import Settings

FAULTS_MAX: Final = 8  # conditions that one key gets
SOURCE_EXPLICIT: Final = 3  # RecSourceT REC_SOURCE_EXPLICIT: set by an administrator


class RecordTable(Protocol):
    """Traffic Server's records (bridge/records.py)."""

    def unavailable(self) -> str:
        """Why records cannot be read and set in this process; "" if they can."""
        ...

    def read(self, name: str) -> Record | None:
        """A record of configuration; None: there is none.

        Raises:
            RejectError: UNSUPPORTED: it is of a type that is not understood.
        """
        ...

    def write(self, name: str, record: Record, value: str | None, source: int) -> bool:
        """Set a record, unchecked; whether it took it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One usable entry of one ConfigMap.  `record`: what it is about, if it is one of Traffic Server's."""

    object: ObjectRef
    text: str  # as it counts: two that are equal say the same
    value: Value
    record: Record | None = None


class ClusterSettings:
    """See the module."""

    def __init__(
        self, settings: Settings, table: RecordTable | None, set_health_path: Callable[[str], None] = lambda _: None
    ) -> None:
        """`table` None is for outside of Traffic Server: records are checked by name alone, and nothing is set.

        `set_health_path` is told the first path that holds, and each that takes its place.
        """
        self._settings = settings
        self._namespace = settings.own_namespaces[0]
        self._named = ObjectKey(*settings.configmap) if settings.configmap else None
        self._table = table
        self._set_health_path = set_health_path
        self._health_path = ""  # as it was set; "": what a last good state had, perhaps
        self._maps: dict[ObjectKey, ConfigMap] = {}
        self._is_dirty = False
        self._in_effect: dict[str, _Wanted] = {}
        self._written: dict[str, str] = {}  # records: what we have set
        self._former: dict[str, Record] = {}  # of those: as they were before
        self._conditions: dict[ObjectRef, tuple[Condition, ...]] = {}

    # --- objects --------------------------------------------------------------------------------------------------------------

    def put(self, key: ObjectKey, obj: ConfigMap | None) -> None:
        """Take in that the ConfigMap `key` is `obj` now; None: there is none."""
        if obj is not None and self._is_ours(key, obj):
            self._maps[key] = obj
            self._is_dirty = True
        elif self._maps.pop(key, None) is not None:
            self._is_dirty = True

    def reset(self) -> None:
        """Forget every ConfigMap, but not what was set: for reading all of them anew."""
        self._maps.clear()
        self._is_dirty = True

    def _is_ours(self, key: ObjectKey, obj: ConfigMap) -> bool:
        if key == self._named:
            return True
        return key.namespace == self._namespace and obj.metadata.annotations.get(CONFIGMAP_ANNOTATION) == "true"

    # --- into effect ----------------------------------------------------------------------------------------------------------

    def apply(self) -> tuple[ObjectRef, ...]:
        """Put what is wanted now into effect; the ConfigMaps whose conditions differ from before, sorted."""
        if not self._is_dirty:
            return ()
        found: dict[ObjectRef, list[Condition]] = {}
        wanted = self._merge(found)
        for name in [name for name in self._written if name not in wanted]:
            self._give_back(name)
        for name, want in wanted.items():
            if want.record is not None and not self._write(name, want):
                found.setdefault(want.object, []).append(
                    _condition(want.object, Reason.UNSUPPORTED, name, "was not taken by Traffic Server: see its log")
                )
        self._in_effect = wanted
        self._apply_health_path()
        former, self._conditions = self._conditions, {ref: tuple(sorted(set(those))) for ref, those in found.items()}
        self._is_dirty = False
        return tuple(sorted(ref for ref in {*former, *self._conditions} if former.get(ref, ()) != self._conditions.get(ref, ())))

    def _merge(self, found: dict[ObjectRef, list[Condition]]) -> dict[str, _Wanted]:
        wanted: dict[str, _Wanted] = {}
        for key, configmap in sorted(self._maps.items(), key=lambda item: object_precedence(item[1].metadata.created_s, item[0])):
            ref = ObjectRef(kind="ConfigMap", namespace=key.namespace, name=key.name)
            against = found.setdefault(ref, [])
            for name, text in sorted(configmap.data.items()):
                try:
                    want = self._want(ref, name, text, against)
                except RejectError as fault:
                    against.append(_condition(ref, fault.reason, name, fault.message))
                    continue
                first = wanted.setdefault(name, want)
                if first.text != want.text:
                    message = f"{first.object} says otherwise and comes first, so it wins: remove one of them"
                    against.append(_condition(ref, Reason.CONFLICT, name, message))
        for ref in [ref for ref, against in found.items() if not against]:
            del found[ref]
        return wanted

    def _want(self, ref: ObjectRef, name: str, text: str, against: list[Condition]) -> _Wanted:
        """One entry, checked.

        Raises:
            RejectError: it cannot be used.
        """
        key = key_of(name)
        if name.startswith(records.PREFIX):
            return self._want_record(ref, name, text)
        value = parse_value(key, text)
        if isinstance(value, AccessList):
            against += [_condition(ref, Reason.INVALID_SETTING, name, fault) for fault in value.faults[:FAULTS_MAX]]
        if key.state is KeyState.PENDING:
            against.append(_condition(ref, Reason.UNSUPPORTED, name, f"has no effect yet: {key.remedy}"))
        return _Wanted(object=ref, text=repr(value), value=value)

    def _want_record(self, ref: ObjectRef, name: str, text: str) -> _Wanted:
        check_name(name)
        if self._table is None:
            return _Wanted(object=ref, text=text, value=text)
        why = self._table.unavailable()
        if why:
            raise RejectError(Reason.UNSUPPORTED, why)
        record = self._former.get(name) or self._table.read(name)  # what is set is ours: the former value is Traffic Server's
        if record is None:
            raise RejectError(Reason.UNKNOWN_SETTING, "is no record of this Traffic Server: correct its name")
        value = check_value(name, record, text)
        return _Wanted(object=ref, text=value, value=value, record=record)

    def _write(self, name: str, want: _Wanted) -> bool:
        assert self._table is not None
        assert want.record is not None
        if self._written.get(name) == want.text:
            return True
        if not self._table.write(name, want.record, want.text, SOURCE_EXPLICIT):
            return False
        self._former.setdefault(name, want.record)
        self._written[name] = want.text
        return True

    def _apply_health_path(self) -> None:
        path = self.health_path
        if path != self._health_path:
            self._set_health_path(path)
            self._health_path = path

    def _give_back(self, name: str) -> None:
        former = self._former.pop(name)
        del self._written[name]
        if self._table is not None:
            self._table.write(name, former, former.value, former.source)

    # --- what came of it ------------------------------------------------------------------------------------------------------

    def conditions(self) -> Iterator[Condition]:
        """Everything that is wrong with any ConfigMap, in no order."""
        for those in self._conditions.values():
            yield from those

    def verdict(self, ref: ObjectRef) -> tuple[Condition, ...]:
        """What is wrong with one ConfigMap, sorted; () is "accepted"."""
        return self._conditions.get(ref, ())

    @property
    def records(self) -> Mapping[str, str]:
        """What is set at the moment, by record."""
        return dict(self._written)

    @property
    def health_path(self) -> str:
        """`healthcheck-path`, or else the option's."""
        want = self._in_effect.get("healthcheck-path")
        return want.value if want is not None and isinstance(want.value, str) else self._settings.health_path

    @property
    def grants(self) -> tuple[Grant, ...] | None:
        """`domain-access-list`; None if there is none, or an empty one."""
        want = self._in_effect.get("domain-access-list")
        return want.value.grants if want is not None and isinstance(want.value, AccessList) else None

    @property
    def certificates(self) -> tuple[HostCertificate, ...]:
        """`tls-certificates`; () if there are none."""
        want = self._in_effect.get("tls-certificates")
        return want.value if want is not None and isinstance(want.value, tuple) else ()


def _condition(ref: ObjectRef, reason: Reason, name: str, message: str) -> Condition:
    what = name if len(name) <= 100 and name.isascii() and name.isprintable() else shown(name)
    return Condition(object=ref, reason=reason, message=f"{what}: {message}")
