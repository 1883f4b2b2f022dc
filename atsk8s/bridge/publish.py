"""Hands a plan to the core as one commit: all of it, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from _atsk8s import ffi, lib

from atsk8s.compile.diff import (
    Call,
    DropCertificate,
    DropService,
    DropTls,
    DropVhost,
    EmptyCertificate,
    NameService,
    Plan,
    Published,
    PutCertificate,
    PutService,
    PutTls,
    PutVhost,
)
from atsk8s.compile.layout import NONE
from atsk8s.errors import InvariantError, Reason
from atsk8s.model.changes import Changes
from atsk8s.model.ir import Condition, HostKey, ObjectRef, ServiceKey
from atsk8s.model.names import host_text
from atsk8s.probes.rounds import Ejected, EjectedReport
from atsk8s.probes.targets import Verdict

_log = logging.getLogger(__name__)

# enum atsk_status of plugin_c/base/atsk_base.h: what a refusal is called.
_STATUS: Final = {
    -1: "out of memory",
    -2: "layout",
    -3: "truncated",
    -4: "out of range",
    -5: "not sorted",
    -6: "not a host",
    -7: "unknown id",
    -8: "called out of order",
    -9: "certificate unusable",
    -10: "private key unusable, or of another certificate",
}
EJECTED_MAX: Final = 100  # services that are named as having endpoints left out: each is a row of a metric
_NO_MEMORY: Final = -1
_OUT_OF_ORDER: Final = -8


class CommitWriter:
    """controller.Table over the core.  The controller's thread only, but for `refusals` and `sizes`."""

    def __init__(self, *, labels_services: bool = False) -> None:
        """`labels_services`: the access log is to show services by name."""
        self._labels_services = labels_services
        self._published = Published()
        self._version = 0
        self._refusals: Mapping[object, Condition] = {}
        self._pending: tuple[Plan, int] | None = None  # being published, and the version before it

    def sizes(self) -> Mapping[str, int]:
        """See controller.Table."""
        return self._published.sizes()

    def version(self) -> int:
        """See controller.Table."""
        lib.atsk_py_commit_abort()  # whatever was staged when the thread ended; harmless if nothing was
        pending, self._pending = self._pending, None
        if pending is not None and (version := _table_version()) != pending[1]:
            self._published.accept(pending[0])
            self._version = version
        return self._version

    def probed(self, verdict: Verdict) -> None:
        """See probes.rounds.HealthTable."""
        place = verdict.place
        number = self._published.service_id(place.service)
        if number is None:
            return
        family = 4 if len(place.addr) == 4 else 6
        status = lib.atsk_py_endpoint_probed(number, place.addr.ljust(16, b"\0"), family, place.port, verdict.hold_ms)
        if status < 0:
            raise InvariantError(f"the core refused a check's verdict on {place.service}: {_STATUS.get(status, status)}")

    def ejected(self) -> EjectedReport:
        """See probes.rounds.HealthTable."""
        room = ffi.new("struct atsk_py_ejected[]", EJECTED_MAX)
        n = int(lib.atsk_py_ejected(room, EJECTED_MAX))
        if not n:
            return EjectedReport()
        keys = self._published.service_keys()
        first = [
            Ejected(service=keys[item.service_id], n_eligible=item.n_eligible, n_ejected=item.n_ejected)
            for item in room[0 : min(n, EJECTED_MAX)]
            if item.service_id in keys
        ]
        return EjectedReport(n_services=n, first=tuple(first))

    def service_keys(self) -> Mapping[int, ServiceKey]:
        """Published services by the id that the core knows them by.  Any thread."""
        return self._published.service_keys()

    def refusals(self) -> tuple[Condition, ...]:
        """See controller.Table."""
        return tuple(self._refusals.values())

    def commit(self, changes: Changes) -> int | None:
        """See controller.Table.

        The core checks again what the model found right.  What it refuses all the same costs itself: a virtual host or TLS policy
        stays as it was published, a certificate or service becomes empty, and the rest is published.
        """
        refused: dict[object, Condition] = {}
        version: int | None = None
        while True:
            plan = self._published.plan(_without(changes, refused))
            if not plan.calls and self._version:
                break
            hosts = {key: why for key, why in self._stage(plan, refused).items() if isinstance(key, HostKey)}
            if not hosts:
                if not self._version:  # until one is published: what a last good state left goes with it
                    _take_over()
                self._pending = (plan, _table_version())
                version = _publish()
                break
            lib.atsk_py_commit_abort()  # staged with refused hosts in it: plan anew without them
        self._published.accept(plan)
        self._version, self._pending = version or self._version, None
        if self._labels_services:
            self._label(changes.services)
        # What came again and was not refused again is right now.
        settled = {*changes.vhosts, *changes.tls}
        self._refusals = {key: why for key, why in self._refusals.items() if key not in settled} | refused
        return version

    def _label(self, services: Iterable[ServiceKey]) -> None:
        """Tell the core what services are called; one that cannot be told of has no name in the access log."""
        for key in services:
            number = self._published.service_id(key)
            if number is not None:
                label = f"{key.name}:{key.port}".encode()
                lib.atsk_py_service_label(number, label, len(label))

    def _stage(self, plan: Plan, refused: dict[object, Condition]) -> dict[object, Condition]:
        """Opens a commit and stages `plan`; what the core refuses is returned, and joins `refused`."""
        _must(lib.atsk_py_commit_begin(), "begin")
        found: dict[object, Condition] = {}
        try:
            for call in plan.calls:
                status = _issue(call)
                if status >= 0:
                    continue
                if status == _NO_MEMORY:
                    raise MemoryError("the core is out of memory")
                if status == _OUT_OF_ORDER:
                    raise InvariantError(f"the core was called out of order: {type(call).__name__}")
                key, ref = _named(call)
                found[key] = _refusal(call, ref, str(_STATUS.get(status, status)))
        except BaseException:
            lib.atsk_py_commit_abort()
            raise
        refused.update(found)
        return found


def _refusal(call: Call, ref: ObjectRef, why: str) -> Condition:
    """What a refused call means: a certificate is the Secret's fault; anything else that the model passed is ours."""
    if isinstance(call, PutCertificate):  # OpenSSL looks closer than the model: at every key and signature of the chain
        message = f"TLS cannot use it ({why}): a key or a signature in its chain is unreadable, or too weak for OpenSSL's level 2"
        return Condition(object=ref, reason=Reason.INVALID_CERTIFICATE, message=message)
    _log.error("refused by the core", extra={"item": type(call).__name__, "object": str(ref), "why": why})
    return Condition(object=ref, reason=Reason.UNSUPPORTED, message=f"refused by the core ({why}); please report this")


def _without(changes: Changes, refused: Mapping[object, Condition]) -> Changes:
    if not refused:
        return changes
    return replace(
        changes,
        vhosts={key: vhost for key, vhost in changes.vhosts.items() if key not in refused},
        tls={key: policy for key, policy in changes.tls.items() if key not in refused},
    )


def _issue(call: Call) -> int:
    """One call of bridge.h: enum atsk_status.  A refused service or certificate is staged without content instead."""
    match call:
        case PutService(id=number, records=records, max_failures=failures):
            status = lib.atsk_py_commit_service(number, records, len(records), _own(failures))
            return status if _is_taken(status) else _after(status, lib.atsk_py_commit_service(number, b"", 0, NONE))
        case NameService(id=number, name=name, port=port, max_failures=failures):
            raw = name.encode()
            status = lib.atsk_py_commit_service_name(number, raw, len(raw), port, _own(failures))
            return status if _is_taken(status) else _after(status, lib.atsk_py_commit_service(number, b"", 0, NONE))
        case DropService(id=number):
            return int(lib.atsk_py_commit_service_drop(number))
        case PutCertificate(id=number, certificate=certificate):
            chain, key = certificate.chain_der, certificate.key_der
            status = lib.atsk_py_commit_certificate(number, chain, len(chain), key, len(key))
            return status if _is_taken(status) else _after(status, lib.atsk_py_commit_certificate_empty(number))
        case EmptyCertificate(id=number):
            return int(lib.atsk_py_commit_certificate_empty(number))
        case DropCertificate(id=number):
            return int(lib.atsk_py_commit_certificate_drop(number))
        case PutVhost(key=key, blob=blob, services=services, routes=routes):
            host = key.host.encode()
            return int(
                lib.atsk_py_commit_vhost(
                    key.local_port, key.place, host, len(host), blob, len(blob), services, len(services), routes, len(routes)
                )
            )
        case DropVhost(key=key):
            host = key.host.encode()
            return int(lib.atsk_py_commit_vhost_drop(key.local_port, key.place, host, len(host)))
        case PutTls(key=key, certificates=certificates):
            host = key.host.encode()
            return int(lib.atsk_py_commit_tls(key.local_port, key.place, host, len(host), certificates, len(certificates)))
        case DropTls(key=key):
            host = key.host.encode()
            return int(lib.atsk_py_commit_tls_drop(key.local_port, key.place, host, len(host)))


def _own(value: int | None) -> int:
    """What a Service says itself, as the core takes it; None: as the options say."""
    return NONE if value is None else value


def _is_taken(status: int) -> bool:
    return status >= 0 or status in (_NO_MEMORY, _OUT_OF_ORDER)


def _after(status: int, second: int) -> int:
    """The status to report when an item was refused and staged empty instead: the refusal, unless that failed worse."""
    return status if second >= 0 else second


def _named(call: Call) -> tuple[object, ObjectRef]:
    """What a refused call is about: its key, by which a host can be left out, and a name for people."""
    match call:
        case PutVhost(key=key) | DropVhost(key=key) | PutTls(key=key) | DropTls(key=key):
            return key, ObjectRef(kind="Host", namespace="", name=host_text(key))
        case PutCertificate(certificate=certificate):
            secret = certificate.key
            return secret, ObjectRef(kind="Secret", namespace=secret.namespace, name=secret.name)
        case _:
            return call.id, ObjectRef(kind="Service", namespace="", name=f"number {call.id}")


def _table_version() -> int:
    out = ffi.new("struct atsk_py_decision *")
    lib.atsk_py_decide(0, b"", 0, b"/", 1, out)
    return int(out.version)


def _must(status: int, what: str) -> None:
    if status != 0:
        raise InvariantError(f"the core cannot {what} a commit: {_STATUS.get(status, status)}")


def _take_over() -> None:
    status = lib.atsk_py_commit_take_over()
    if status != 0:
        lib.atsk_py_commit_abort()
        _must(status, "take over from the last good state with")


def _publish() -> int:
    version = ffi.new("uint64_t *")
    status = lib.atsk_py_commit_publish(version)
    if status != 0:
        lib.atsk_py_commit_abort()
        _must(status, "publish")
    return int(version[0])
