"""The model's state: the objects of every kind, what they translate to, and what a change of one of them touches.

Changes go in one by one (`put`), marking what is dirty; `drain` assembles and resolves just that and returns what differs from
what it returned before.  However the changes came and were drained, the sum is what one `drain` of the final objects gives.
Not thread-safe: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from heapq import heappop, heappush
from typing import Final, Protocol, TypeVar

from atsk8s.api import core
from atsk8s.api.discovery import EndpointSlice
from atsk8s.api.meta import KubeObject, ObjectKey
from atsk8s.api.networking import Ingress, IngressClass
from atsk8s.errors import InvariantError, Reason, RejectError
from atsk8s.model.assemble import assemble_fallback, assemble_tls, assemble_vhost, services_of
from atsk8s.model.changes import Changes as Changes
from atsk8s.model.claimants import NO_CLAIMS, Claimants
from atsk8s.model.explain import dump, explain
from atsk8s.model.grants import Grant
from atsk8s.model.host_certificates import HostCertificate, policy_for
from atsk8s.model.index import ClaimIndex, References
from atsk8s.model.ingress import Claims, RouteClaim, TlsClaim
from atsk8s.model.ir import (
    Certificate,
    Condition,
    HostKey,
    ObjectRef,
    Place,
    Service,
    ServiceKey,
    TlsPolicy,
    VirtualHost,
    ingress_ref,
)
from atsk8s.model.missing import Missing
from atsk8s.model.names import FALLBACK
from atsk8s.model.services import AddressRules, Whereabouts, resolve_service
from atsk8s.model.tenancy import StrictTenancy
from atsk8s.model.verdicts import Origin, Verdicts
from atsk8s.settings import EndpointSlices, Settings, Tenancy

O = TypeVar("O", bound=KubeObject)
K = TypeVar("K")
V = TypeVar("V")

_SHARED_SPARE: Final = 4096  # shared values that may be of no use any more


class Kind(Protocol):
    """What tells kinds apart (source.kinds.Kind)."""

    @property
    def name(self) -> str: ...


class Model:
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        """Raises:
        SettingsError: an option cannot be read.
        """
        self._settings = settings
        self._address_rules = AddressRules(
            allow_external_names=settings.allow_external_names,
            allow_loopback=settings.allow_loopback_endpoints,
            managed_slices_only=settings.endpoint_slices is EndpointSlices.MANAGED,
        )
        self._here = Whereabouts(zone=settings.zone, node_name=settings.node_name)
        backend, secret = settings.default_backend, settings.default_certificate
        self._default_backend = ServiceKey(namespace=backend[0], name=backend[1], port=backend[2]) if backend else None
        self._default_certificate = ObjectKey(*secret) if secret else None
        self._host_certificates: tuple[HostCertificate, ...] = ()
        self._claimants = Claimants(settings, self._take_claims)
        # What may be known outside and is not in the state: a drain after a reset says that it is gone.
        self._ghosts: Changes = Changes()
        self._last: Changes = Changes()
        self._clear()

    def _clear(self) -> None:
        # Objects, as put.
        self._claimants.clear()  # Ingresses, IngressClasses and Namespaces
        self._services: dict[ObjectKey, core.Service] = {}
        self._slices: dict[ObjectKey, EndpointSlice] = {}
        self._secrets: dict[ObjectKey, core.Secret] = {}
        # What they translate to, and indexes.
        self._routes: ClaimIndex[RouteClaim] = ClaimIndex()
        self._tls_claims: ClaimIndex[TlsClaim] = ClaimIndex()
        self._strict = StrictTenancy(self._routes, self._tls_claims) if self._settings.tenancy is Tenancy.STRICT else None
        self._slices_of: dict[ObjectKey, dict[ObjectKey, EndpointSlice]] = {}  # by Service
        self._ports_of: dict[ObjectKey, dict[ServiceKey, None]] = {}  # the ServiceKeys in use, by Service
        self._service_uses: References[ServiceKey] = References()
        self._certificate_uses: References[ObjectKey] = References()
        # What was drained.
        self._vhosts: dict[HostKey, VirtualHost] = {}
        self._tls: dict[HostKey, TlsPolicy] = {}
        self._resolved: dict[ServiceKey, Service] = {}
        self._certificates: dict[ObjectKey, Certificate | None] = {}
        self._verdicts = Verdicts()
        self._missing_services = Missing("Service", "but there is no such Service: create it")
        self._missing_secrets = Missing("Secret", f"but there is no {core.TLS_SECRET_TYPE} Secret of this name: create it")
        self._expiries: list[tuple[int, ObjectKey]] = []  # a heap; entries of replaced certificates are skipped when they come up
        # What is not drained yet: dirty, and done by a drain that did not reach its end.
        self._dirty_hosts: dict[HostKey, None] = {FALLBACK: None}
        self._dirty_tls: dict[HostKey, None] = {FALLBACK: None}
        self._dirty_services: dict[ServiceKey, None] = {}
        self._dirty_certificates: dict[ObjectKey, None] = {}
        self._out_vhosts: dict[HostKey, VirtualHost | None] = {}
        self._out_tls: dict[HostKey, TlsPolicy | None] = {}
        self._out_services: dict[ServiceKey, Service | None] = {}
        self._out_certificates: dict[ObjectKey, Certificate | None] = {}
        self._out_empty: dict[ObjectKey, None] = {}

    def reset(self) -> None:
        """Forget every object, and take nothing for published: for loading everything anew after a commit that failed.

        The next `drain` returns all there is, and None for what any earlier one returned and is no more.
        """
        last = self._last
        self._ghosts = Changes(
            vhosts=dict.fromkeys((*self._ghosts.vhosts, *self._vhosts, *self._out_vhosts, *last.vhosts)),
            tls=dict.fromkeys((*self._ghosts.tls, *self._tls, *self._out_tls, *last.tls)),
            services=dict.fromkeys((*self._ghosts.services, *self._resolved, *self._out_services, *last.services)),
            certificates=dict.fromkeys(
                (*self._ghosts.certificates, *self._certificates, *self._out_certificates, *last.certificates)
            ),
        )
        self._clear()

    # --- objects --------------------------------------------------------------------------------------------------------------

    def put(self, kind: Kind, key: ObjectKey, obj: KubeObject | None) -> None:
        """Take in that the object `key` of `kind` is `obj` now; None: there is none.

        Raises:
            InvariantError: `obj` is not of `kind`, or `kind` is not one of ours.
        """
        match kind.name:
            case "Ingress":
                self._claimants.put_ingress(key, _typed(obj, Ingress))
            case "IngressClass":
                self._claimants.put_class(key, _typed(obj, IngressClass))
            case "Service":
                _set(self._services, key, _typed(obj, core.Service))
                self._touch_service(key)
            case "EndpointSlice":
                self._put_slice(key, _typed(obj, EndpointSlice))
            case "Secret":
                _set(self._secrets, key, _typed(obj, core.Secret))
                if key in self._certificate_uses:
                    self._dirty_certificates[key] = None
            case "Namespace":
                self._claimants.put_namespace(key, _typed(obj, core.Namespace))
            case name:
                raise InvariantError(f"the model knows no kind {name}")

    def _take_claims(self, key: ObjectKey, former: Claims, now: Claims) -> None:
        """One Ingress's claims have changed, or its verdict has."""
        for host in self._routes.replace(former.routes, now.routes):
            self._dirty_hosts[host] = None
            # The certificates of the namespace that owns the routes come first; and some hosts have one because of their routes.
            if host in self._tls_claims or self._host_certificates:
                self._dirty_tls[host] = None
        for host in self._tls_claims.replace(former.tls, now.tls):
            self._dirty_tls[host] = None
        self._verdicts.put(("Ingress", key), now.conditions)
        self._missing_services.replace(key, _objects(former.services()), _objects(now.services()))
        self._missing_secrets.replace(key, former.secrets(), now.secrets())
        shared = self._claimants.shared
        if len(shared) > _SHARED_SPARE + 2 * len(self._service_uses):
            shared.clear()  # most are of Ingresses that are gone; the others are shared less, no more

    def set_grants(self, grants: tuple[Grant, ...] | None) -> None:
        """`domain-access-list` of ConfigMaps; () grants nothing, None is no list.  It stays through `reset`."""
        self._claimants.set_grants(grants)

    def set_host_certificates(self, certificates: tuple[HostCertificate, ...]) -> None:
        """Certificates for hosts that have routes, and whose Ingresses name none."""
        if certificates != self._host_certificates:
            self._host_certificates = certificates
            self._dirty_tls.update(dict.fromkeys(self._routes))

    def _touch_service(self, key: ObjectKey) -> None:
        for port in self._ports_of.get(key, ()):
            self._dirty_services[port] = None

    def _put_slice(self, key: ObjectKey, new: EndpointSlice | None) -> None:
        former = self._slices.get(key)
        _set(self._slices, key, new)
        for item in (former, new):
            if item is None or not item.service_name:
                continue
            service = ObjectKey(key.namespace, item.service_name)
            if item is new:
                self._slices_of.setdefault(service, {})[key] = item
            else:
                siblings = self._slices_of[service]
                del siblings[key]
                if not siblings:
                    del self._slices_of[service]
            self._touch_service(service)

    # --- drain ----------------------------------------------------------------------------------------------------------------

    def drain(self, *, now_s: int) -> Changes:
        """Assemble and resolve what is dirty; what differs from what was drained before.

        If it raises, which only a fault of ours can make it do, nothing is lost: what was dirty still is, and what was done
        is returned by the next call.

        Args:
            now_s: Unix time, for certificates that have expired.
        """
        if self._strict is not None:
            self._spread(self._strict)
        for host in tuple(self._dirty_hosts):
            self._drain_vhost(host)
        for host in tuple(self._dirty_tls):
            self._drain_tls(host)
        for service in tuple(self._dirty_services):
            self._drain_service(service)
        self._note_expired(now_s)
        for secret in tuple(self._dirty_certificates):
            self._drain_certificate(secret, now_s)
        self._missing_services.drain(self._verdicts, lambda ingress: _objects(self._claims(ingress).services()))
        self._missing_secrets.drain(self._verdicts, lambda ingress: self._claims(ingress).secrets())
        # All are empty; but one that was large once has its places still, and whoever walks it walks over these.
        for dirty in (self._dirty_hosts, self._dirty_tls, self._dirty_services, self._dirty_certificates):
            dirty.clear()
        ghosts = self._ghosts
        self._last = Changes(
            vhosts=_with_ghosts(ghosts.vhosts, self._out_vhosts, self._vhosts),
            tls=_with_ghosts(ghosts.tls, self._out_tls, self._tls),
            services=_with_ghosts(ghosts.services, self._out_services, self._resolved),
            certificates=_with_ghosts(ghosts.certificates, self._out_certificates, self._certificates),
            empty_certificates=frozenset(self._out_empty),
            verdicts=self._verdicts.take_changed(),
        )
        self._ghosts = Changes()
        self._out_vhosts, self._out_tls, self._out_services, self._out_certificates, self._out_empty = {}, {}, {}, {}, {}
        return self._last

    def _spread(self, strict: StrictTenancy) -> None:
        for host in sorted(strict.affected((*self._dirty_hosts, *self._dirty_tls))):
            self._dirty_hosts[host] = None
            self._dirty_tls[host] = None

    def _drain_vhost(self, host: HostKey) -> None:
        claims = self._routes.get(host)
        if host.place is Place.FALLBACK:
            new, conditions = assemble_fallback(claims, self._default_backend)
        else:
            owner = self._strict.owner(host) if self._strict is not None else None
            new, conditions = assemble_vhost(host, claims, owner=owner)
        self._verdicts.put(("routes", host), conditions)
        former = self._vhosts.get(host)
        if new != former:
            before, after = services_of(former), services_of(new)
            for service in after - before:
                if self._service_uses.add(service):
                    self._ports_of.setdefault(ObjectKey(service.namespace, service.name), {})[service] = None
                    self._dirty_services[service] = None
            for service in before - after:
                if self._service_uses.remove(service):
                    _discard(self._ports_of, ObjectKey(service.namespace, service.name), service)
                    self._dirty_services[service] = None
            _set(self._vhosts, host, new)
            self._out_vhosts[host] = new
        del self._dirty_hosts[host]

    def _drain_tls(self, host: HostKey) -> None:
        new: TlsPolicy | None
        conditions: tuple[Condition, ...] = ()
        if host.place is Place.FALLBACK:
            secret = self._default_certificate
            new = TlsPolicy(key=host, certificates=(secret,)) if secret is not None else None
        else:
            routes = self._routes.get(host)
            namespace = routes[0].object.namespace if routes else None
            owner = self._strict.tls_owner(host) if self._strict is not None else None
            new, conditions = assemble_tls(host, self._tls_claims.get(host), routes_namespace=namespace, owner=owner)
            if new is None and routes and self._host_certificates:
                new = policy_for(host, self._host_certificates)
        self._verdicts.put(("tls", host), conditions)
        former = self._tls.get(host)
        if new != former:
            after = new.certificates if new else ()
            for key in after:
                if self._certificate_uses.add(key):
                    self._dirty_certificates[key] = None
            for key in former.certificates if former else ():
                if self._certificate_uses.remove(key):
                    self._dirty_certificates[key] = None
            _set(self._tls, host, new)
            self._out_tls[host] = new
        del self._dirty_tls[host]

    def _drain_service(self, key: ServiceKey) -> None:
        new: Service | None = None
        conditions: tuple[Condition, ...] = ()
        owner = ObjectKey(key.namespace, key.name)
        found = self._services.get(owner)
        if key in self._service_uses:
            new = Service(key=key)
            if found is not None:
                slices = self._slices_of.get(owner, {})
                in_order = slices.values() if len(slices) < 2 else (slices[name] for name in sorted(slices))
                new, conditions = resolve_service(key, found, in_order, self._address_rules, self._here)
        self._missing_services.note(owner, is_absent=found is None and owner in self._ports_of)
        self._verdicts.put(("service", key), conditions)
        if new != self._resolved.get(key):
            _set(self._resolved, key, new)
            self._out_services[key] = new
        del self._dirty_services[key]

    def _note_expired(self, now_s: int) -> None:
        """Certificates expire without any object's change."""
        while self._expiries and self._expiries[0][0] <= now_s:
            _, key = heappop(self._expiries)
            found = self._certificates.get(key)
            if found is not None and found.not_after_s <= now_s:
                self._verdicts.put(("certificate", key), (_expired(found),))

    def _drain_certificate(self, key: ObjectKey, now_s: int) -> None:
        is_used = key in self._certificate_uses
        was_known = key in self._certificates
        new, conditions = self._certificate(key) if is_used else (None, ())
        if new is not None and new.not_after_s <= now_s:
            conditions = (_expired(new),)
        self._missing_secrets.note(key, is_absent=is_used and key not in self._secrets)
        self._verdicts.put(("certificate", key), conditions)
        if not is_used:
            if was_known:
                del self._certificates[key]
                self._out_certificates[key] = None
                self._out_empty.pop(key, None)
        elif not was_known or self._certificates[key] != new:
            self._certificates[key] = new
            self._out_certificates.pop(key, None)
            self._out_empty.pop(key, None)
            if new is None:
                self._out_empty[key] = None
            else:
                self._out_certificates[key] = new
                heappush(self._expiries, (new.not_after_s, key))
        del self._dirty_certificates[key]

    def _certificate(self, key: ObjectKey) -> tuple[Certificate | None, tuple[Condition, ...]]:
        secret = self._secrets.get(key)
        if secret is None:
            return None, ()
        # Imported with the first Secret in use: a tenth of a second that a start without TLS need not pay.
        from atsk8s.model.certificates import certificate

        try:
            return certificate(key, secret), ()
        except RejectError as rejection:
            ref = ObjectRef(kind="Secret", namespace=key.namespace, name=key.name)
            return None, (Condition(object=ref, reason=rejection.reason, message=rejection.message, fatal=True),)

    # --- questions ------------------------------------------------------------------------------------------------------------

    def is_seen(self, key: ServiceKey) -> bool:
        """Whether all that `key` depends on has arrived: its Service, and unless that is an ExternalName at least one slice.

        That goes for a Service without selector, too: its slices, made by hand, may be on their way like any others.
        """
        owner = ObjectKey(key.namespace, key.name)
        service = self._services.get(owner)
        return service is not None and (owner in self._slices_of or service.spec.type == "ExternalName")

    def state(self) -> Changes:
        """Everything that was drained and is not gone, as if from one `drain`."""
        return Changes(
            vhosts=dict(self._vhosts),
            tls=dict(self._tls),
            services=dict(self._resolved),
            certificates={key: one for key, one in self._certificates.items() if one is not None},
            empty_certificates=frozenset(key for key, one in self._certificates.items() if one is None),
        )

    def verdict(self, ref: ObjectRef) -> tuple[Condition, ...]:
        """What is wrong with one object, sorted; () is "accepted".

        An Ingress also has what is wrong with the Services and Secrets that it names.
        """
        found = self._verdicts.of(ref)
        if ref.kind != "Ingress":
            return found
        claims = self._claims(ObjectKey(ref.namespace, ref.name))
        named: list[Origin] = [("service", service) for service in claims.services()]
        named += [("certificate", secret) for secret in claims.secrets()]
        shared = {
            replace(condition, object=ref, message=f"{condition.object}: {condition.message}", fatal=False)
            for origin in named
            for condition in self._verdicts.from_origin(origin)
            if condition.object.kind in ("Service", "Secret")
        }
        return tuple(sorted({*found, *shared}))

    def _claims(self, ingress: ObjectKey) -> Claims:
        return self._claimants.claims(ingress) or NO_CLAIMS

    def conditions(self) -> Iterator[Condition]:
        """Everything that is wrong with any object, once, in no order."""
        return iter(set(self._verdicts))

    def verdicts(self) -> Mapping[ObjectRef, tuple[Condition, ...]]:
        """The verdict of every Ingress of ours, and of every other object that has conditions, sorted by object."""
        refs = set(map(ingress_ref, self._claimants))
        refs.update(condition.object for condition in self._verdicts)
        return {ref: self.verdict(ref) for ref in sorted(refs)}

    def explain(self, authority: str, path: str) -> Mapping[str, object]:
        """What becomes of a request and why, as plain values: see `explain.explain`."""
        return explain(self._borrowed(), authority, path, self.verdict)

    def dump(self) -> Mapping[str, object]:
        """Everything that was drained, as plain values, without secrets."""
        return dump(self._borrowed(), self.verdicts())

    def _borrowed(self) -> Changes:
        return Changes(vhosts=self._vhosts, tls=self._tls, services=self._resolved, certificates=self._certificates)

    def certificate_expiry(self) -> Iterable[tuple[ObjectKey, int]]:
        """When each certificate in use expires: Unix time, seconds."""
        return [(key, one.not_after_s) for key, one in sorted(self._certificates.items()) if one is not None]


def _typed(obj: KubeObject | None, item: type[O]) -> O | None:
    if obj is None or isinstance(obj, item):
        return obj
    raise InvariantError(f"{type(obj).__name__} put as {item.__name__}")


def _set(things: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        things.pop(key, None)
    else:
        things[key] = value


def _discard(sets: dict[ObjectKey, dict[ServiceKey, None]], key: ObjectKey, member: ServiceKey) -> None:
    members = sets[key]
    del members[member]
    if not members:
        del sets[key]


def _with_ghosts(ghosts: Mapping[K, V | None], out: dict[K, V | None], state: Mapping[K, object]) -> dict[K, V | None]:
    """`out`, and None for what a reset may have left behind."""
    for key in ghosts:
        if key not in state:
            out[key] = None
    return out


def _objects(services: Iterable[ServiceKey]) -> set[ObjectKey]:
    return {ObjectKey(service.namespace, service.name) for service in services}


def _expired(found: Certificate) -> Condition:
    ref = ObjectRef(kind="Secret", namespace=found.key.namespace, name=found.key.name)
    message = f"the certificate expired at Unix time {found.not_after_s} and is served all the same: renew it"
    return Condition(object=ref, reason=Reason.CERTIFICATE_EXPIRED, message=message)
