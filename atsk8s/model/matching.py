"""Which rule serves a path, asked of the intermediate representation: slow, and obvious enough to be the C matcher's oracle."""

from __future__ import annotations

from atsk8s.model.ir import PathMatchKind, Rule, VirtualHost
from atsk8s.model.precedence import match_rank, segments_of


def matches(rule: Rule, path: str) -> bool:
    """Whether `rule` matches the normalised `path` (Ingress v1, HTTPIngressPath.pathType)."""
    if not path.startswith("/"):
        return False
    if rule.kind is PathMatchKind.EXACT:
        return path == rule.path
    wanted = segments_of(rule)
    return path[1:].split("/")[: len(wanted)] == wanted


def match_rule(vhost: VirtualHost, path: str) -> Rule | None:
    """The rule for a normalised path, else the default one, else None."""
    found = [rule for rule in vhost.rules if matches(rule, path)]
    return max(found, key=match_rank) if found else vhost.default
