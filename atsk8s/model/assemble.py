"""The claims on one host to one virtual host and one TLS policy, with a condition for every claim that loses.

The rule is stateless, so that every replica and every rebuild agrees: of two claims the older Ingress's counts.  Its price is
that an old Ingress which is edited later keeps its age; `--tenancy=strict` is for tenants who would use that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from atsk8s.api.meta import ObjectKey
from atsk8s.errors import Reason
from atsk8s.model.ingress import RouteClaim, TlsClaim
from atsk8s.model.ir import Backend, Condition, HostKey, PathMatchKind, Rule, ServiceKey, TlsPolicy, VirtualHost, ingress_ref
from atsk8s.model.names import FALLBACK, host_text, shown
from atsk8s.model.policies import Limits
from atsk8s.model.precedence import rule_order

Conditions: TypeAlias = tuple[Condition, ...]

NAMED_MAX: Final = 3  # paths that one condition names; it counts the others
DEFAULT_BACKEND_OPTION: Final = ObjectKey("", "--default-backend")

# Room of one virtual host's rules in its blob [bytes]: below ATSK_BLOB_MAX, so that a full one still encodes.
BLOB_ROOM: Final = 48 << 20
_RULE_ROOM_MAX: Final = 96 * 1024  # no rule takes more, its path and its policies being bounded (paths.RULE_PATH_BYTES_MAX)
_POLICIES_ROOM: Final = 4096  # records and strings of all kinds, but for exempt ranges; policies.py bounds the strings
_EXEMPT_ROOM: Final = 18  # of one exempt range


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who a host belongs to under strict tenancy.  `namespace` None: nobody, and `why` says what stands in the way."""

    namespace: str | None
    why: str


def admitted(key: HostKey, claims: Sequence[RouteClaim], owner: Owner | None) -> tuple[Sequence[RouteClaim], list[Condition]]:
    """The claims that may take part, oldest first; the others get a condition.

    What grants (`domain-access-list`) or limits refuse is not among `claims`: claimants.py has decided that before.
    """
    if owner is None:
        return claims, []
    message = f"host {host_text(key)} is not served from this Ingress: {owner.why}"
    conditions = [_conflict(claim.object, message) for claim in claims if claim.object.namespace != owner.namespace]
    return [claim for claim in claims if claim.object.namespace == owner.namespace] if conditions else claims, conditions


def assemble_vhost(
    key: HostKey, claims: Sequence[RouteClaim], *, owner: Owner | None = None
) -> tuple[VirtualHost | None, Conditions]:
    """What `key` serves; None if nobody who may claims it.

    A host and path belongs to the namespace of the oldest Ingress that claims it; within a namespace the oldest Ingress's rule
    counts.  Paths that no rule matches are served by the host's owner: the oldest Ingress that claims the host, and if it has no
    defaultBackend the oldest of its namespace that has one.

    Args:
        key: a host, or NO_HOST.
        claims: on that host, by precedence.
        owner: under strict tenancy, the one namespace that may claim the host.
    """
    claims, conditions = admitted(key, claims, owner)
    if not claims:
        return None, tuple(conditions)
    if len(claims) == 1:
        rules: Sequence[Rule] = claims[0].rules
    else:
        rules = _merge(key, claims, conditions)
    default = _default(key, claims, conditions)
    if len(rules) * _RULE_ROOM_MAX > BLOB_ROOM:
        rules = _within_room(key, claims, rules, conditions)
    return VirtualHost(key=key, rules=tuple(rules), default=default), tuple(conditions)


def assemble_fallback(claims: Sequence[RouteClaim], option: ServiceKey | None) -> tuple[VirtualHost | None, Conditions]:
    """The global default backend: `--default-backend`, else the oldest Ingress without rules, else None."""
    if option is not None:
        rule = Rule(
            object=DEFAULT_BACKEND_OPTION,
            kind=PathMatchKind.PREFIX,
            path="/",
            path_as_written="",
            backends=(Backend(service=option),),
        )
        losers, winner = claims, f"the option --default-backend={option} wins"
    elif claims and claims[0].default is not None:
        rule, losers, winner = claims[0].default, claims[1:], f"Ingress {claims[0].object} comes first"
    else:
        return None, ()
    conditions = tuple(
        _conflict(
            loser.object, f"spec.defaultBackend of an Ingress without rules is for all traffic that nothing matches: {winner}"
        )
        for loser in losers
    )
    return VirtualHost(key=FALLBACK, default=rule), conditions


def assemble_tls(
    key: HostKey, claims: Sequence[TlsClaim], *, routes_namespace: str | None = None, owner: Owner | None = None
) -> tuple[TlsPolicy | None, Conditions]:
    """The certificates of `key`: all that the winning namespace has for it, oldest Ingress first.

    The namespace that owns the host's routes wins; without one, the namespace of the oldest Ingress that names the host in `tls`.

    Args:
        key: a host; no certificate is claimed for every host.
        claims: on that host, by precedence.
        routes_namespace: the namespace of the oldest Ingress that claims the host's routes, if any does.
        owner: under strict tenancy, the one namespace that may have certificates for the host.
    """
    if owner is not None:
        winner, why = owner.namespace, owner.why
    else:
        namespaces = [claim.object.namespace for claim in claims]
        winner = routes_namespace if routes_namespace in namespaces else namespaces[0] if namespaces else None
        why = (
            f"namespace {winner} owns the host's routes"
            if winner == routes_namespace
            else f"namespace {winner} has an older Ingress"
        )
    secrets: dict[ObjectKey, None] = {}
    conditions: list[Condition] = []
    for claim in claims:
        if claim.object.namespace == winner:
            secrets.update(dict.fromkeys(claim.secrets))
        else:
            conditions.append(_conflict(claim.object, f"spec.tls for host {host_text(key)} is not used: {why}"))
    return (TlsPolicy(key=key, certificates=tuple(secrets)) if secrets else None), tuple(conditions)


def services_of(vhost: VirtualHost | None) -> frozenset[ServiceKey]:
    """Every service that some rule of `vhost` leads to."""
    return frozenset() if vhost is None else vhost.services()


def _conflict(loser: ObjectKey, message: str) -> Condition:
    return Condition(object=ingress_ref(loser), reason=Reason.CONFLICT, message=message)


def _merge(key: HostKey, claims: Sequence[RouteClaim], conditions: list[Condition]) -> list[Rule]:
    """One rule for each path and kind.  `claims` are oldest first, so the first to come is the winner."""
    owners: dict[str, ObjectKey] = {}  # the oldest Ingress that claims a path, with either kind
    rules: dict[tuple[str, PathMatchKind], Rule] = {}
    lost: dict[tuple[ObjectKey, ObjectKey], list[Rule]] = {}  # by loser and winner
    for claim in claims:
        ingress = claim.object
        for rule in claim.rules:
            owner = owners.setdefault(rule.path, ingress)
            if owner.namespace != ingress.namespace:
                lost.setdefault((ingress, owner), []).append(rule)
                continue
            winner = rules.setdefault((rule.path, rule.kind), rule)
            if winner is not rule:
                lost.setdefault((ingress, winner.object), []).append(rule)
    for (loser, winner_key), refused in lost.items():
        paths = ", ".join(f"{rule.kind.name} {shown(rule.path_as_written)}" for rule in refused[:NAMED_MAX])
        more = f" and {len(refused) - NAMED_MAX} more" if len(refused) > NAMED_MAX else ""
        belong = "belongs" if len(refused) == 1 else "belong"
        conditions.append(
            _conflict(loser, f"host {host_text(key)}: {paths}{more} {belong} to Ingress {winner_key}, which comes first")
        )
    return sorted(rules.values(), key=rule_order)


def _default(key: HostKey, claims: Sequence[RouteClaim], conditions: list[Condition]) -> Rule | None:
    owner = claims[0].object
    default: Rule | None = None
    for claim in claims:
        if claim.default is None:
            continue
        if claim.object.namespace != owner.namespace:
            why = f"Ingress {owner}, which comes first, owns the host"
        elif default is None:
            default = claim.default
            continue
        elif (default.backends, default.policies) == (claim.default.backends, claim.default.policies):
            continue
        else:
            why = f"that of Ingress {default.object}, which comes first, is used"
        what = "spec.defaultBackend is not used for other paths of host"
        conditions.append(_conflict(claim.object, f"{what} {host_text(key)}: {why}"))
    return default


def _within_room(key: HostKey, claims: Sequence[RouteClaim], rules: Sequence[Rule], conditions: list[Condition]) -> Sequence[Rule]:
    """`rules` without those of the youngest Ingresses that a blob has no room for."""
    shared = {rule.object: _policies_room(rule) for rule in rules}
    if sum(map(_rule_room, rules)) + sum(shared.values()) <= BLOB_ROOM:
        return rules
    age = {claim.object: place for place, claim in enumerate(claims)}
    kept: list[Rule] = []
    dropped: dict[ObjectKey, int] = {}
    room = BLOB_ROOM
    for rule in sorted(rules, key=lambda rule: (age[rule.object], rule_order(rule))):
        room -= _rule_room(rule) + shared.pop(rule.object, 0)
        if room >= 0:
            kept.append(rule)
        else:
            dropped[rule.object] = dropped.get(rule.object, 0) + 1
    for ingress, n in dropped.items():
        message = (
            f"host {host_text(key)}: {n} paths are left out, because the host's rules exceed {BLOB_ROOM} bytes: use more hosts"
        )
        conditions.append(Condition(object=ingress_ref(ingress), reason=Reason.TOO_LARGE, message=message))
    return sorted(kept, key=rule_order)


def _rule_room(rule: Rule) -> int:
    """At least the bytes that a rule takes in a blob when it shares nothing: nodes, rule, backends, strings."""
    nodes = 32 * (rule.path.count("/") + 1)
    strings = len(rule.path) + 4 * len(rule.path_as_written) + len(rule.object.namespace) + len(rule.object.name) + 1
    return nodes + 48 + 8 * len(rule.backends) + strings


def _policies_room(rule: Rule) -> int:
    """At least the bytes of what all rules of one object share: records of policies, and their strings."""
    if not rule.policies:
        return 0
    n_exempt = sum(len(policy.exempt) for policy in rule.policies if isinstance(policy, Limits))
    return _POLICIES_ROOM + n_exempt * _EXEMPT_ROOM
