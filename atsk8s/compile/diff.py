"""What is published, and what turns it into what the model has now: one commit's calls, in an order that the core accepts.

Stable things have ids, which are never used again once their thing is gone: a service by its key, a certificate by its Secret,
a route by its identity.  A service or certificate is dropped when the model has no use for it *and* nothing published refers
to it, so that a virtual host may be published later than its model says.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.encode import encode, encode_endpoints, route_identities, services_in_order
from atsk8s.errors import InvariantError
from atsk8s.model.changes import Changes
from atsk8s.model.ir import Certificate, HostKey, Service, ServiceKey, VirtualHost

_DIGEST_BYTES: Final = 16

H = TypeVar("H", bound=Hashable)
V = TypeVar("V")


class PutService(NamedTuple):
    """atsk_commit_service: endpoint records."""

    id: int
    records: bytes
    max_failures: int | None = None


class NameService(NamedTuple):
    """atsk_commit_service_name: an ExternalName."""

    id: int
    name: str
    port: int
    max_failures: int | None = None


class DropService(NamedTuple):
    """atsk_commit_service_drop."""

    id: int


class PutCertificate(NamedTuple):
    """atsk_commit_certificate; its key is not shown."""

    id: int
    certificate: Certificate


class EmptyCertificate(NamedTuple):
    """atsk_commit_certificate_empty."""

    id: int


class DropCertificate(NamedTuple):
    """atsk_commit_certificate_drop."""

    id: int


class PutVhost(NamedTuple):
    """atsk_commit_vhost.  `services` and `routes` are the ids of `Blob.services` and `Blob.routes`."""

    vhost: VirtualHost
    services: tuple[int, ...]
    routes: tuple[int, ...]

    @property
    def key(self) -> HostKey:
        return self.vhost.key

    @property
    def blob(self) -> bytes:
        """Encoded as it is asked for: a first table's blobs, all at once, would leave holes in memory that nothing fills.

        Raises:
            InvariantError: see `encode`.
        """
        return encode(self.vhost).data


class DropVhost(NamedTuple):
    """atsk_commit_vhost_drop."""

    key: HostKey


class PutTls(NamedTuple):
    """atsk_commit_tls."""

    key: HostKey
    certificates: tuple[int, ...]


class DropTls(NamedTuple):
    """atsk_commit_tls_drop."""

    key: HostKey


Call: TypeAlias = (
    PutService
    | NameService
    | DropService
    | PutCertificate
    | EmptyCertificate
    | DropCertificate
    | PutVhost
    | DropVhost
    | PutTls
    | DropTls
)


class _Stable(NamedTuple):
    """A published service or certificate."""

    id: int
    digest: bytes
    n_uses: int  # published virtual hosts or TLS policies that refer to it
    is_wanted: bool  # the model has it


class _PublishedVhost(NamedTuple):
    """The value itself, which the model has as well, and not its bytes: equal values have equal bytes."""

    vhost: VirtualHost
    route_ids: tuple[int, ...]  # in the order of `route_identities`


class _Overlay(Generic[H, V]):
    """Changes to a dict that may still be given up."""

    __slots__ = ("base", "changed")

    def __init__(self, base: dict[H, V]) -> None:
        self.base = base
        self.changed: dict[H, V | None] = {}

    def get(self, key: H) -> V | None:
        return self.changed[key] if key in self.changed else self.base.get(key)

    def set(self, key: H, value: V | None) -> None:
        self.changed[key] = value

    def apply(self) -> None:
        for key, value in self.changed.items():
            if value is None:
                self.base.pop(key, None)
            else:
                self.base[key] = value


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One commit: `calls`, in order; none of them when what is published is equal already.

    Give it to `Published.accept` once it is published.
    """

    calls: tuple[Call, ...]
    apply: tuple[Callable[[], None], ...] = field(repr=False)  # for `Published.accept`


class Published:
    """What the core has, as far as the accepted plans say.  One thread."""

    def __init__(self) -> None:
        self._next_id = 1
        self._services: dict[ServiceKey, _Stable] = {}
        self._certificates: dict[ObjectKey, _Stable] = {}
        self._vhosts: dict[HostKey, _PublishedVhost] = {}
        self._tls: dict[HostKey, tuple[ObjectKey, ...]] = {}

    def plan(self, changes: Changes) -> Plan:
        """The calls that publish `changes`.  Changes nothing but that the ids which it gives are used up.

        Raises:
            InvariantError: a virtual host or TLS policy names a service or certificate that was never brought in.
        """
        services, certificates = _Overlay(self._services), _Overlay(self._certificates)
        vhosts, tls = _Overlay(self._vhosts), _Overlay(self._tls)
        calls: list[Call] = []
        for service_key, service in changes.services.items():
            self._plan_service(service_key, service, services, calls)
        for secret, certificate in changes.certificates.items():
            self._plan_certificate(secret, certificate, certificates, calls, is_gone=certificate is None)
        for secret in sorted(changes.empty_certificates):
            self._plan_certificate(secret, None, certificates, calls, is_gone=False)
        for host, vhost in changes.vhosts.items():
            self._plan_vhost(host, vhost, vhosts, services, calls)
        for host, policy in changes.tls.items():
            wanted = policy.certificates if policy is not None else None
            former = tls.get(host)
            if wanted == former:
                continue
            tls.set(host, wanted)
            ids = _refer(certificates, wanted or (), former or ())
            calls.append(DropTls(host) if wanted is None else PutTls(host, ids))
        calls += [DropService(stable.id) for stable in _sweep(services)]
        calls += [DropCertificate(stable.id) for stable in _sweep(certificates)]
        return Plan(calls=tuple(calls), apply=(services.apply, certificates.apply, vhosts.apply, tls.apply))

    def accept(self, plan: Plan) -> None:
        """The core has published `plan`, the last one that was made."""
        for apply in plan.apply:
            apply()

    def sizes(self) -> Mapping[str, int]:
        """How much is published, by kind."""
        return {
            "virtual_hosts": len(self._vhosts),
            "tls_policies": len(self._tls),
            "services": len(self._services),
            "certificates": len(self._certificates),
        }

    def service_id(self, key: ServiceKey) -> int | None:
        """The id of a published service."""
        stable = self._services.get(key)
        return stable.id if stable is not None else None

    def service_keys(self) -> Mapping[int, ServiceKey]:
        """The published services by id.  May be asked from any thread, which sees them a moment before or after a commit."""
        return {stable.id: key for key, stable in self._services.copy().items()}

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _plan_service(
        self, key: ServiceKey, service: Service | None, services: _Overlay[ServiceKey, _Stable], calls: list[Call]
    ) -> None:
        stable = services.get(key)
        if service is None:
            if stable is not None:
                services.set(key, stable._replace(is_wanted=False))
            return
        records = encode_endpoints(service)
        # An ExternalName may have a pod's set before or after it: what tells them apart is part of the digest.
        digest = _digest(records, service.external_name.encode(), b"%d" % service.external_port, b"%a" % service.max_failures)
        if stable is None or stable.digest != digest:
            place = self._new_id() if stable is None else stable.id
            calls.append(
                NameService(place, service.external_name, service.external_port, service.max_failures)
                if service.external_name
                else PutService(place, records, service.max_failures)
            )
            services.set(key, _Stable(place, digest, stable.n_uses if stable else 0, is_wanted=True))
        elif not stable.is_wanted:
            services.set(key, stable._replace(is_wanted=True))

    def _plan_certificate(
        self,
        key: ObjectKey,
        certificate: Certificate | None,
        certificates: _Overlay[ObjectKey, _Stable],
        calls: list[Call],
        *,
        is_gone: bool,
    ) -> None:
        stable = certificates.get(key)
        if is_gone:
            if stable is not None:
                certificates.set(key, stable._replace(is_wanted=False))
            return
        digest = b"" if certificate is None else _digest(certificate.chain_der, certificate.key_der)
        if stable is None or stable.digest != digest:
            place = self._new_id() if stable is None else stable.id
            calls.append(EmptyCertificate(place) if certificate is None else PutCertificate(place, certificate))
            certificates.set(key, _Stable(place, digest, stable.n_uses if stable else 0, is_wanted=True))
        elif not stable.is_wanted:
            certificates.set(key, stable._replace(is_wanted=True))

    def _plan_vhost(
        self,
        key: HostKey,
        vhost: VirtualHost | None,
        vhosts: _Overlay[HostKey, _PublishedVhost],
        services: _Overlay[ServiceKey, _Stable],
        calls: list[Call],
    ) -> None:
        former = vhosts.get(key)
        if vhost is None:
            if former is not None:
                _refer(services, (), former.vhost.services())
                vhosts.set(key, None)
                calls.append(DropVhost(key))
            return
        if former is not None and former.vhost == vhost:
            vhosts.set(key, former._replace(vhost=vhost))  # one value less in memory
            return
        ids = _refer(services, services_in_order(vhost), former.vhost.services() if former else ())
        if former is None:
            n_routes = len(vhost.rules) + (vhost.default is not None)
            route_ids = tuple(range(self._next_id, self._next_id + n_routes))
            self._next_id += n_routes
        else:
            known = dict(zip(route_identities(former.vhost), former.route_ids, strict=True))
            route_ids = tuple(known.get(identity) or self._new_id() for identity in route_identities(vhost))
        vhosts.set(key, _PublishedVhost(vhost, route_ids))
        calls.append(PutVhost(vhost, ids, route_ids))


def _digest(*parts: bytes) -> bytes:
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def _refer(things: _Overlay[H, _Stable], now: Iterable[H], before: Iterable[H]) -> tuple[int, ...]:
    """Count the references that come and go; the ids of `now`."""
    ids: list[int] = []
    for key in now:
        stable = things.get(key)
        if stable is None:
            raise InvariantError(f"{key} is referred to, but was never brought in")
        things.set(key, _Stable(stable.id, stable.digest, stable.n_uses + 1, stable.is_wanted))
        ids.append(stable.id)
    for key in before:
        stable = things.get(key)
        if stable is None:
            raise InvariantError(f"{key} was referred to, and is gone")
        things.set(key, _Stable(stable.id, stable.digest, stable.n_uses - 1, stable.is_wanted))
    return tuple(ids)


def _sweep(things: _Overlay[H, _Stable]) -> list[_Stable]:
    """Take out what has lost its last use; only what changed can have."""
    gone = [
        (key, stable)
        for key, stable in things.changed.items()
        if stable is not None and not stable.is_wanted and stable.n_uses == 0
    ]
    for key, _ in gone:
        things.set(key, None)
    return [stable for _, stable in gone]
