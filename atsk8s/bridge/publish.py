"""Hands changes to the core as one commit, and remembers what is published.

Names become 64-bit ids here.  A service or certificate gets the next number and no number is used twice; a route's id is a hash
of its identity, so that it is the same in every process and nothing has to be remembered.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Final, Generic, TypeVar

from _atsk8s import ffi, lib

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.encode import encode, encode_endpoints
from atsk8s.errors import InvariantError, Reason
from atsk8s.model.changes import Changes
from atsk8s.model.ir import Certificate, Condition, HostKey, ObjectRef, Service, ServiceKey, TlsPolicy, VirtualHost
from atsk8s.model.names import host_text

_log = logging.getLogger(__name__)
K = TypeVar("K")

# enum atsk_status of plugin_c/atsk_base.h: what a refusal is called in a log line.
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
_NO_MEMORY: Final = -1
_OUT_OF_ORDER: Final = -8


class _Refused(Exception):
    """The core refused one item; the commit goes on without it."""


@dataclass(frozen=True, slots=True)
class _Published:
    """What is published under one host key: a digest of it, and the ids that it uses."""

    digest: bytes
    uses: tuple[int, ...]


class _Ids(Generic[K]):
    """Ids of services or of certificates: which are known to the core, and how many published things use each."""

    def __init__(self) -> None:
        self.of: dict[K, int] = {}
        self.uses: Counter[int] = Counter()
        self.gone: set[K] = set()  # to be dropped as soon as nothing published uses them
        self._last = 0

    def new(self) -> int:
        self._last += 1
        return self._last

    def has_idle(self) -> bool:
        """Whether something waits to be dropped that nothing uses any more."""
        return any(key in self.of and not self.uses[self.of[key]] for key in self.gone)


class _State:
    """What is published, by name."""

    def __init__(self) -> None:
        self.services: _Ids[ServiceKey] = _Ids()
        self.certificates: _Ids[ObjectKey] = _Ids()
        self.vhosts: dict[HostKey, _Published] = {}
        self.tls: dict[HostKey, _Published] = {}
        self.refusals: dict[object, Condition] = {}


class CommitWriter:
    """controller.Table over the C core.  The controller's thread only."""

    def __init__(self) -> None:
        self._state = _State()
        self._version = 0

    def sizes(self) -> Mapping[str, int]:
        return {
            "virtual_hosts": len(self._state.vhosts),
            "tls_policies": len(self._state.tls),
            "services": len(self._state.services.of),
            "certificates": len(self._state.certificates.of),
        }

    def refusals(self) -> tuple[Condition, ...]:
        """What the core did not take though the model thought it right, of what is not published in a newer form since."""
        return tuple(self._state.refusals.values())

    def commit(self, changes: Changes) -> int | None:
        """See controller.Table."""
        if not changes and self._version and not self._due():
            return None
        stage = _Stage(self._state, changes)
        _must(lib.atsk_py_commit_begin())
        try:
            stage.run()
            if self._version and not stage.n_calls:
                lib.atsk_py_commit_abort()
                return None
            version = _publish()
        except BaseException:
            lib.atsk_py_commit_abort()
            raise
        stage.settle()
        self._version = version
        return version

    def _due(self) -> bool:
        """Whether something waits to be dropped that nothing uses any more."""
        state = self._state
        return state.services.has_idle() or state.certificates.has_idle()


class _Stage:
    """One commit under way.  The writer's own state is changed in `settle` alone, after the core has published."""

    def __init__(self, state: _State, changes: Changes) -> None:
        self._state = state
        self._changes = changes
        self._new_services: dict[ServiceKey, int] = {}
        self._new_certificates: dict[ObjectKey, int] = {}
        self._dropped_services: list[ServiceKey] = []
        self._dropped_certificates: list[ObjectKey] = []
        self._vhosts: dict[HostKey, _Published | None] = {}
        self._tls: dict[HostKey, _Published | None] = {}
        self._service_uses: Counter[int] = Counter()
        self._certificate_uses: Counter[int] = Counter()
        self._refused: dict[object, Condition] = {}
        self._taken: list[object] = []
        self.n_calls = 0  # that changed something

    def run(self) -> None:
        """Stage everything: what is referred to before what refers, drops last."""
        changes, state = self._changes, self._state
        for service_key, service in changes.services.items():
            if service is not None:
                ref = ObjectRef(kind="Service", namespace=service_key.namespace, name=service_key.name)
                self._each(service_key, partial(self._service, service), ref)
        for key in changes.empty_certificates:
            self._certificate(key, None)
        for key, certificate in changes.certificates.items():
            if certificate is not None:
                ref = ObjectRef(kind="Secret", namespace=key.namespace, name=key.name)
                if not self._each(key, partial(self._certificate, key, certificate), ref):
                    self._certificate(key, None)  # its hosts fall back to the default certificate
        for host, vhost in changes.vhosts.items():
            self._each(host, partial(self._vhost, host, vhost), _ref_of(host))
        for host, policy in changes.tls.items():
            self._each(host, partial(self._policy, host, policy), _ref_of(host))
        self._drop(state.services, self._service_uses, changes.services, self._dropped_services, lib.atsk_py_commit_service_drop)
        self._drop(
            state.certificates,
            self._certificate_uses,
            {**changes.certificates, **dict.fromkeys(changes.empty_certificates, True)},
            self._dropped_certificates,
            lib.atsk_py_commit_certificate_drop,
        )

    def _each(self, key: object, call: Callable[[], None], ref: ObjectRef) -> bool:
        """One item: if the core refuses it, what it is published as stays, and the others go on."""
        try:
            call()
        except _Refused as refusal:
            message = f"refused by the core ({refusal}); what was published before stays in use: please report this"
            _log.error("item refused", extra={"item": str(key), "why": str(refusal)})
            self._refused[key] = Condition(object=ref, reason=Reason.UNSUPPORTED, message=message)
            return False
        self._taken.append(key)
        return True

    def _call(self, status: int) -> None:
        if status == _NO_MEMORY:
            raise MemoryError("the core is out of memory")
        if status == _OUT_OF_ORDER:
            raise InvariantError("the core was called out of order")
        if status < 0:
            raise _Refused(_STATUS.get(status, str(status)))
        self.n_calls += 1

    def _service(self, service: Service) -> None:
        ids = self._state.services
        known = ids.of.get(service.key)
        number = known if known is not None else ids.new()
        if service.external_name:
            name = service.external_name.encode()
            self._call(lib.atsk_py_commit_service_name(number, name, len(name), service.external_port))
        else:
            records = encode_endpoints(service)
            self._call(lib.atsk_py_commit_service(number, records, len(records)))
        if known is None:
            self._new_services[service.key] = number

    def _certificate(self, key: ObjectKey, certificate: Certificate | None) -> None:
        ids = self._state.certificates
        known = ids.of.get(key, self._new_certificates.get(key))
        number = known if known is not None else ids.new()
        if certificate is None:
            self._call(lib.atsk_py_commit_certificate_empty(number))
        else:
            chain, secret = certificate.chain_der, certificate.key_der
            self._call(lib.atsk_py_commit_certificate(number, chain, len(chain), secret, len(secret)))
        if known is None:
            self._new_certificates[key] = number

    def _vhost(self, key: HostKey, vhost: VirtualHost | None) -> None:
        host = key.host.encode()
        former = self._state.vhosts.get(key)
        if vhost is None:
            if former is not None:
                self._call(lib.atsk_py_commit_vhost_drop(key.local_port, key.place, host, len(host)))
                self._vhosts[key] = None
                self._service_uses.subtract(former.uses)
            return
        blob = encode(vhost)
        services = self._numbers(blob.services, self._state.services.of, self._new_services)
        routes = [route_id(identity) for identity in blob.routes]
        digest = _digest(blob.data, services, routes)
        if former is not None and former.digest == digest:
            return
        self._call(
            lib.atsk_py_commit_vhost(
                key.local_port, key.place, host, len(host), blob.data, len(blob.data), services, len(services), routes, len(routes)
            )
        )
        self._vhosts[key] = _Published(digest, tuple(services))
        self._service_uses.update(services)
        self._service_uses.subtract(former.uses if former is not None else ())

    def _policy(self, key: HostKey, policy: TlsPolicy | None) -> None:
        host = key.host.encode()
        former = self._state.tls.get(key)
        if policy is None:
            if former is not None:
                self._call(lib.atsk_py_commit_tls_drop(key.local_port, key.place, host, len(host)))
                self._tls[key] = None
                self._certificate_uses.subtract(former.uses)
            return
        numbers = self._numbers(policy.certificates, self._state.certificates.of, self._new_certificates)
        digest = _digest(b"", numbers, ())
        if former is not None and former.digest == digest:
            return
        self._call(lib.atsk_py_commit_tls(key.local_port, key.place, host, len(host), numbers, len(numbers)))
        self._tls[key] = _Published(digest, tuple(numbers))
        self._certificate_uses.update(numbers)
        self._certificate_uses.subtract(former.uses if former is not None else ())

    @staticmethod
    def _numbers(keys: Iterable[K], known: Mapping[K, int], new: Mapping[K, int]) -> list[int]:
        numbers = []
        for key in keys:
            number = known.get(key, new.get(key))
            if number is None:
                raise InvariantError(f"{key} is referred to and was never handed over")
            numbers.append(number)
        return numbers

    def _drop(
        self,
        ids: _Ids[K],
        delta: Counter[int],
        changed: Mapping[K, object],
        dropped: list[K],
        drop: Callable[[int], int],
    ) -> None:
        """Drop what the model let go of, as far as no published thing uses it: a held-back change may leave a user standing."""
        for key, value in changed.items():
            if value is None:
                ids.gone.add(key)
            else:
                ids.gone.discard(key)
        for key in tuple(ids.gone):
            number = ids.of.get(key)
            if number is None:
                ids.gone.discard(key)
            elif ids.uses[number] + delta[number] == 0:
                self._call(drop(number))
                dropped.append(key)

    def settle(self) -> None:
        """The core has published: what was staged is what is."""
        state = self._state
        state.services.of.update(self._new_services)
        state.certificates.of.update(self._new_certificates)
        for ids, delta in ((state.services, self._service_uses), (state.certificates, self._certificate_uses)):
            ids.uses.update(delta)
            for number in delta:
                if ids.uses[number] == 0:
                    del ids.uses[number]
        for service in self._dropped_services:
            del state.services.of[service]
            state.services.gone.discard(service)
        for certificate in self._dropped_certificates:
            del state.certificates.of[certificate]
            state.certificates.gone.discard(certificate)
        for published, staged in ((state.vhosts, self._vhosts), (state.tls, self._tls)):
            for host, value in staged.items():
                if value is None:
                    published.pop(host, None)
                else:
                    published[host] = value
        for item in self._taken:
            state.refusals.pop(item, None)
        state.refusals.update(self._refused)


def route_id(identity: str) -> int:
    """A route's id: 64 bits of a hash of its identity.  Two of a million routes share one with a chance of 3e-8; they would
    share their counters."""
    return int.from_bytes(blake2b(identity.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little") or 1


def _digest(data: bytes, *numbers: Iterable[int]) -> bytes:
    digest = blake2b(data, digest_size=16)
    for row in numbers:
        digest.update(repr(list(row)).encode())
    return digest.digest()


def _ref_of(host: HostKey) -> ObjectRef:
    return ObjectRef(kind="Host", namespace="", name=host_text(host))


def _must(status: int) -> None:
    if status != 0:
        raise InvariantError(f"the core cannot begin a commit: {_STATUS.get(status, status)}")


def _publish() -> int:
    version = ffi.new("uint64_t *")
    status = lib.atsk_py_commit_publish(version)
    if status != 0:
        raise InvariantError(f"the core cannot publish: {_STATUS.get(status, status)}")
    return int(version[0])
