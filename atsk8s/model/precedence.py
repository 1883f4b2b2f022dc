"""Every order and every rule of who wins, as sort keys.  Each is total: no two different things compare equal."""

from __future__ import annotations

from typing import TypeAlias

from atsk8s.api.meta import ObjectKey
from atsk8s.model.ir import Endpoint, PathMatchKind, Rule, ServiceKey

Precedence: TypeAlias = tuple[int, str]


def object_precedence(created_s: int, key: ObjectKey) -> Precedence:
    """Of conflicting objects of one kind the smallest wins: the oldest, then by "namespace/name".

    Ingress has no such rule of its own; this is Gateway API's (HTTPRouteRule.matches, "The oldest Route based on creation
    timestamp", "The Route appearing first in alphabetical order by {namespace}/{name}") and ingress-nginx's.  The name is one
    string: "a-b/x" sorts before "a/x", which a pair of strings would not.  A manifest without creationTimestamp has its place in
    file order for `created_s`.
    """
    return created_s, f"{key.namespace}/{key.name}"


def rule_order(rule: Rule) -> tuple[str, PathMatchKind]:
    """The order of a virtual host's rules; of no meaning for matching, but the same whatever order the objects came in."""
    return rule.path, rule.kind


def match_rank(rule: Rule) -> tuple[int, bool]:
    """Of the rules that match a path the largest wins: the longest path, then Exact (Ingress v1, "Multiple matches").

    Prefixes of one path differ in their number of segments, so that counting those is counting length.
    """
    return len(segments_of(rule)), rule.kind is PathMatchKind.EXACT


def segments_of(rule: Rule) -> list[str]:
    """What must be equal, segment by segment, for the rule to match: all of an EXACT path, the start of a PREFIX one."""
    if rule.kind is PathMatchKind.PREFIX and rule.path == "/":
        return []
    return rule.path[1:].split("/")


def endpoint_order(endpoint: Endpoint) -> tuple[int, bytes, int]:
    """IPv4 before IPv6, then by address, then by port: what plugin_c/endpoints/endpoints.h asks for."""
    return len(endpoint.addr), endpoint.addr, endpoint.port


def service_order(key: ServiceKey) -> tuple[str, str, str, int]:
    """Services by name; ports by name, those that are numbers first (a number and a name do not compare)."""
    by_name = isinstance(key.port, str)
    return key.namespace, key.name, str(key.port) if by_name else "", 0 if isinstance(key.port, str) else key.port
