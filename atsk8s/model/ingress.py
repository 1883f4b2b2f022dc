"""One Ingress v1 object to claims: what it wants of which host.  Who gets what is `assemble`'s business.

What the API server would refuse (an invalid host, an unknown pathType) can come from a manifest alone and rejects the object.
What it accepts and we cannot serve (a resource backend, a path that no request can have) costs that path, with a condition.  A
fault in `tls` costs that entry of `tls`: routes do not depend on certificates.  An annotation that cannot be costs itself alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from atsk8s.api.meta import ObjectKey
from atsk8s.api.networking import HTTPIngressPath, Ingress, IngressBackend, IngressServiceBackend
from atsk8s.errors import Reason, RejectError
from atsk8s.model.annotated import Fault, ingress_annotations, policies_of
from atsk8s.model.cookies import CookieDomain
from atsk8s.model.ir import Backend, Condition, HostKey, PathMatchKind, Rule, ServiceKey, ingress_ref
from atsk8s.model.names import FALLBACK, NO_HOST, host_key, is_subdomain, shown
from atsk8s.model.paths import match_kind, match_path
from atsk8s.model.policies import Policy
from atsk8s.model.precedence import Precedence, object_precedence, rule_order
from atsk8s.model.snippets import NO_SNIPPETS, SnippetRules

CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"  # before spec.ingressClassName existed; still in wide use
PATHS_MAX: Final = 10_000  # of one Ingress; etcd's object size allows about as many
HOSTS_MAX: Final = 10_000  # of one Ingress, in rules and again in tls; etcd's object size allows a lot more
CONDITIONS_MAX: Final = 64  # of one Ingress by itself; what else is wrong with it is counted


class Shared:
    """Values that many Ingresses have in common, each once: thousands of routes lead to a few services, with a few policies."""

    __slots__ = ("backends", "policies")

    def __init__(self) -> None:
        # The one backend of a rule, by namespace, Service and port.
        self.backends: dict[tuple[str, str, int | str], tuple[Backend, ...]] = {}
        self.policies: dict[tuple[Policy, ...], tuple[Policy, ...]] = {}

    def __len__(self) -> int:
        return len(self.backends) + len(self.policies)

    def clear(self) -> None:
        """Forget all: what is in use stays, and what comes shares with it no more."""
        self.backends.clear()
        self.policies.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteClaim:
    """What one Ingress wants of one host: rules (sorted, unique by path and kind), and the rule for paths that none matches."""

    object: ObjectKey
    created_s: int
    rules: tuple[Rule, ...]
    default: Rule | None

    @property
    def precedence(self) -> Precedence:
        """See `object_precedence`."""
        return object_precedence(self.created_s, self.object)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsClaim:
    """The Secrets that one Ingress has for one host, in its order."""

    object: ObjectKey
    created_s: int
    secrets: tuple[ObjectKey, ...]

    @property
    def precedence(self) -> Precedence:
        """See `object_precedence`."""
        return object_precedence(self.created_s, self.object)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """All that one Ingress wants, at most one claim a host, and what is wrong with it.

    An Ingress without rules claims `FALLBACK`: all traffic that nothing else matches.
    """

    routes: tuple[tuple[HostKey, RouteClaim], ...] = ()
    tls: tuple[tuple[HostKey, TlsClaim], ...] = ()
    conditions: tuple[Condition, ...] = ()

    def services(self) -> list[ServiceKey]:
        """Every service that it names; one may be there more than once."""
        shared: dict[int, tuple[Backend, ...]] = {}  # most rules of an Ingress lead to the same few
        for _, claim in self.routes:
            for rule in claim.rules if claim.default is None else (*claim.rules, claim.default):
                shared[id(rule.backends)] = rule.backends
        return [backend.service for backends in shared.values() for backend in backends]

    def secrets(self) -> set[ObjectKey]:
        """Every Secret that it names."""
        return {secret for _, claim in self.tls for secret in claim.secrets}


def class_of(ingress: Ingress) -> str | None:
    """The class that an Ingress names; None: none, so that the cluster's default class decides.

    The field wins over the annotation, and "" is a class that nobody has (API: only an absent class is defaulted).  An empty
    annotation is an absent one, as ingress-nginx has it.
    """
    named = ingress.spec.ingress_class_name
    return named if named is not None else ingress.metadata.annotations.get(CLASS_ANNOTATION) or None


def translate(
    key: ObjectKey,
    ingress: Ingress,
    shared: Shared | None = None,
    *,
    is_isolated: bool = False,
    snippets: SnippetRules = NO_SNIPPETS,
) -> Claims:
    """The claims of an Ingress that is ours.

    A rejected one claims nothing and has one fatal condition: half of an object that the API would refuse is a surprise.

    Args:
        key: its own.
        ingress: the object.
        shared: values that other Ingresses' rules have already; those made here are added.
        is_isolated: namespaces must not reach each other's hosts by way of a browser either: see `cookies.domain_fault`.
        snippets: whose Lua is run.
    """
    try:
        shared = Shared() if shared is None else shared
        return _Translation(key, ingress, shared, is_isolated=is_isolated, snippets=snippets).claims()
    except RejectError as rejection:
        return Claims(
            conditions=(
                Condition(object=ingress_ref(key), reason=rejection.reason, message=f"rejected: {rejection.message}", fatal=True),
            )
        )


def _check_count(n_hosts: int, field: str) -> None:
    if n_hosts > HOSTS_MAX:
        raise RejectError(Reason.TOO_LARGE, f"{field} have more than {HOSTS_MAX} hosts: split the Ingress")


class _Translation:
    """The state of one call of `translate`."""

    def __init__(self, key: ObjectKey, ingress: Ingress, shared: Shared, *, is_isolated: bool, snippets: SnippetRules) -> None:
        self._key = key
        self._spec = ingress.spec
        self._created_s = ingress.metadata.created_s
        self._conditions: list[Condition] = []
        self._n_untold = 0
        self._backends = shared.backends
        said, faults = ingress_annotations(ingress.metadata.annotations)
        said, not_run = snippets.applied(key.namespace, said)
        policies, useless = policies_of(said)
        self._policies = shared.policies.setdefault(policies, policies) if policies else ()
        self._cookies = CookieDomain(said, shared.policies, is_isolated=is_isolated) if said.session_cookie_domain else None
        self._weights = dict(said.service_weights or ())
        self._split: dict[int | str, tuple[Backend, ...]] = {}  # by port: what a path is split over
        self._faults: tuple[Fault, ...] = (*faults, *not_run, *useless)

    def claims(self) -> Claims:
        for fault in self._faults:
            self._complain(fault.reason, fault.message)
        default = self._default()
        hosts = self._hosts()
        if self._spec.rules:
            routes = tuple((host, self._claim(host, rules, default)) for host, rules in hosts.items())
        elif default is not None:
            routes = ((FALLBACK, self._claim(FALLBACK, {}, default)),)
        else:
            if self._spec.default_backend is None:
                raise RejectError(Reason.MALFORMED, "spec has neither rules nor defaultBackend: give it one of them")
            routes = ()
        tls = self._tls(hosts)
        if self._cookies is not None and self._cookies.faults:
            self._complain(Reason.INVALID_ANNOTATION, self._cookies.message())
        if self._n_untold:
            message = f"{self._n_untold} more parts of it are left out"
            self._conditions.append(Condition(object=ingress_ref(self._key), reason=Reason.MALFORMED, message=message))
        return Claims(routes=routes, tls=tls, conditions=tuple(self._conditions))

    def _complain(self, reason: Reason, message: str) -> None:
        if len(self._conditions) < CONDITIONS_MAX:
            self._conditions.append(Condition(object=ingress_ref(self._key), reason=reason, message=message))
        else:
            self._n_untold += 1

    def _claim(self, host: HostKey, rules: dict[tuple[str, PathMatchKind], Rule], default: Rule | None) -> RouteClaim:
        in_order = tuple(sorted(rules.values(), key=rule_order)) if len(rules) > 1 else tuple(rules.values())
        policies = self._cookies.policies(host, self._policies) if self._cookies is not None else self._policies
        if policies is not self._policies:
            in_order = tuple(replace(rule, policies=policies) for rule in in_order)
            default = replace(default, policies=policies) if default is not None else None
        return RouteClaim(object=self._key, created_s=self._created_s, rules=in_order, default=default)

    def _default(self) -> Rule | None:
        backend = self._spec.default_backend
        if backend is None:
            return None
        try:
            backends = self._target(backend, "spec.defaultBackend")
        except RejectError as rejection:
            self._complain(rejection.reason, f"{rejection.message}; spec.defaultBackend is left out")
            return None
        return Rule(
            object=self._key, kind=PathMatchKind.PREFIX, path="/", path_as_written="", backends=backends, policies=self._policies
        )

    def _hosts(self) -> dict[HostKey, dict[tuple[str, PathMatchKind], Rule]]:
        hosts: dict[HostKey, dict[tuple[str, PathMatchKind], Rule]] = {}
        n_paths = 0
        for i, rule in enumerate(self._spec.rules):
            host = host_key(rule.host, f"spec.rules[{i}].host") if rule.host else NO_HOST
            rules = hosts.setdefault(host, {})
            _check_count(len(hosts), "spec.rules")
            # Without `http`, or with null paths: all of the host's traffic is the default backend's.
            paths = rule.http.paths if rule.http is not None else ()
            n_paths += len(paths)
            if n_paths > PATHS_MAX:
                raise RejectError(Reason.TOO_LARGE, f"spec.rules have more than {PATHS_MAX} paths: split the Ingress")
            for j, path in enumerate(paths):
                self._add_path(rules, path, f"spec.rules[{i}].http.paths[{j}]")
        return hosts

    def _add_path(self, rules: dict[tuple[str, PathMatchKind], Rule], item: HTTPIngressPath, field: str) -> None:
        kind = match_kind(item.path_type, field)
        try:
            path = match_path(kind, item.path, field)
            backends = self._target(item.backend, f"{field}.backend")
        except RejectError as rejection:
            self._complain(rejection.reason, f"{rejection.message}; the path is left out")
            return
        rule = Rule(object=self._key, kind=kind, path=path, path_as_written=item.path, backends=backends, policies=self._policies)
        first = rules.setdefault((path, kind), rule)
        if first.backends != backends:
            self._complain(
                Reason.DUPLICATE,
                f"{field}.path {shown(item.path)} is compared as {kind.name} {shown(path)}, which the Ingress has already; "
                "the first one counts: remove one of them",
            )

    def _target(self, backend: IngressBackend, field: str) -> tuple[Backend, ...]:
        target = backend.target
        if not isinstance(target, IngressServiceBackend):
            if target is None:
                raise RejectError(Reason.INVALID_BACKEND, f"{field} needs exactly one of service and resource: name a Service")
            raise RejectError(
                Reason.UNSUPPORTED, f"{field}.resource {shown(target.kind)} {shown(target.name)} is not supported: name a Service"
            )
        port = target.port.ref
        if port is None:
            raise RejectError(Reason.INVALID_BACKEND, f"{field}.service.port needs exactly one of name and number: set one")
        place = (self._key.namespace, target.name, port)
        is_split = target.name in self._weights
        found = self._split.get(port) if is_split else self._backends.get(place)
        if found is not None:
            return found
        if not is_subdomain(target.name):
            raise RejectError(
                Reason.INVALID_BACKEND, f"{field}.service.name {shown(target.name)} is not a Service's name: correct it"
            )
        if isinstance(port, int) and not 0 < port < 65536:
            raise RejectError(Reason.INVALID_BACKEND, f"{field}.service.port.number {port} is outside 1..65535: correct it")
        if is_split:
            return self._split.setdefault(port, self._split_over(port))
        backends = (Backend(service=ServiceKey(namespace=self._key.namespace, name=target.name, port=port)),)
        self._backends[place] = backends
        return backends

    def _split_over(self, port: int | str) -> tuple[Backend, ...]:
        return tuple(
            Backend(service=ServiceKey(namespace=self._key.namespace, name=name, port=port), weight=weight)
            for name, weight in self._weights.items()  # by name
            if weight
        )

    def _tls(self, hosts: dict[HostKey, dict[tuple[str, PathMatchKind], Rule]]) -> tuple[tuple[HostKey, TlsClaim], ...]:
        if not self._spec.tls:
            return ()
        secrets: dict[HostKey, dict[ObjectKey, None]] = {}
        for i, entry in enumerate(self._spec.tls):
            if not entry.secret_name:
                continue  # the default certificate: nothing to claim
            field = f"spec.tls[{i}]"
            if not is_subdomain(entry.secret_name):
                self._complain(
                    Reason.INVALID_CERTIFICATE,
                    f"{field}.secretName {shown(entry.secret_name)} is not the name of a Secret here; the entry is left out",
                )
                continue
            secret = ObjectKey(self._key.namespace, entry.secret_name)
            for host in self._tls_hosts(entry.hosts, field) if entry.hosts else tuple(hosts):
                if host != NO_HOST:
                    secrets.setdefault(host, {})[secret] = None
            _check_count(len(secrets), "spec.tls")
            if not entry.hosts and all(host == NO_HOST for host in hosts):
                self._complain(
                    Reason.UNSUPPORTED,
                    f"{field} and the rules name no host: the option --default-certificate has the one for every host",
                )
        return tuple(
            (host, TlsClaim(object=self._key, created_s=self._created_s, secrets=tuple(named))) for host, named in secrets.items()
        )

    def _tls_hosts(self, hosts: tuple[str, ...], field: str) -> list[HostKey]:
        keys: list[HostKey] = []
        for j, host in enumerate(hosts):
            try:
                keys.append(host_key(host, f"{field}.hosts[{j}]"))
            except RejectError as rejection:
                self._complain(rejection.reason, f"{rejection.message}; that host gets no certificate from here")
        return keys
