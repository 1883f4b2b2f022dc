"""One virtual host to a blob, and one service to endpoint records.  Deterministic: the same value gives the same bytes.

Indexes in a blob mean places in the arrays that go with it: services, and routes by their identity, a string that stays the
same as long as the route is the same to its author, whatever else of the virtual host changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from atsk8s.compile.layout import (
    ALIGNMENT,
    BACKEND,
    BLOB_MAGIC,
    BLOB_MAX,
    BLOB_VERSION,
    DEPTH_MAX,
    ENDPOINT,
    HEADER,
    NODE,
    NONE,
    RULE,
    EndpointFamily,
    RuleAction,
)
from atsk8s.compile.policy_records import PolicyWriter
from atsk8s.errors import InvariantError
from atsk8s.model.ir import HostKey, PathMatchKind, Rule, Service, ServiceKey, VirtualHost
from atsk8s.model.names import host_text
from atsk8s.model.precedence import rule_order, segments_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What a virtual host is published as.  `services` and `routes` are what the bytes' indexes mean."""

    data: bytes
    services: tuple[ServiceKey, ...]
    routes: tuple[str, ...]


class _TrieNode:
    """A path's segment while the trie is built."""

    __slots__ = ("children", "exact", "prefix")

    def __init__(self) -> None:
        self.children: dict[bytes, _TrieNode] = {}
        self.exact = NONE
        self.prefix = NONE


class _Strings:
    """The strings section: each string once."""

    __slots__ = ("_places", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[bytes, tuple[int, int]] = {b"": (0, 0)}

    def add(self, text: bytes) -> tuple[int, int]:
        """Offset in the section, and length [bytes]."""
        place = self._places.get(text)
        if place is None:
            place = self._places[text] = (len(self.data), len(text))
            self.data += text
        return place


def route_identity(key: HostKey, rule: Rule, *, is_default: bool = False) -> str:
    """What names a route across commits: "namespace/name host path kind", and "*" for its path if it is its host's default."""
    return _identity(_where(key), rule, is_default=is_default)


def _where(key: HostKey) -> str:
    port = f":{key.local_port}" if key.local_port else ""
    return f"{key.place.name} {host_text(key)}{port}"


def _identity(where: str, rule: Rule, *, is_default: bool) -> str:
    if is_default:
        return f"{rule.object} {where} * DEFAULT"
    kind = "EXACT" if rule.kind is PathMatchKind.EXACT else "PREFIX"
    return f"{rule.object} {where} {rule.path} {kind}"


def route_identities(vhost: VirtualHost) -> list[str]:
    """`Blob.routes` of a virtual host, without encoding it."""
    where = _where(vhost.key)
    identities = [_identity(where, rule, is_default=False) for rule in sorted(vhost.rules, key=rule_order)]
    if vhost.default is not None:
        identities.append(_identity(where, vhost.default, is_default=True))
    return identities


def services_in_order(vhost: VirtualHost) -> tuple[ServiceKey, ...]:
    """`Blob.services` of a virtual host, without encoding it."""
    rules = vhost.rules if len(vhost.rules) < 2 else sorted(vhost.rules, key=rule_order)
    if vhost.default is not None:
        rules = (*rules, vhost.default)
    if len(rules) == 1 and len(rules[0].backends) == 1:
        return (rules[0].backends[0].service,)
    return tuple(dict.fromkeys(backend.service for rule in rules for backend in rule.backends))


def encode(vhost: VirtualHost) -> Blob:
    """The blob of `vhost`; the order of its rules does not matter.

    Raises:
        InvariantError: two rules with the same path and kind, or more than a blob can hold (`assemble` bounds both).
    """
    strings = _Strings()
    policies = PolicyWriter(strings.add)
    services: dict[ServiceKey, int] = {}
    root = _TrieNode()
    rules = bytearray()
    backends = bytearray()
    routes: list[str] = []
    n_backends = 0
    where = _where(vhost.key)

    def add(rule: Rule, *, is_default: bool) -> int:
        nonlocal n_backends
        place = len(routes)
        first = n_backends if rule.backends else 0
        for backend in rule.backends:
            backends.extend(BACKEND.pack(services.setdefault(backend.service, len(services)), backend.weight))
            n_backends += 1
        rules.extend(
            RULE.pack(
                RuleAction.FORWARD if rule.backends else RuleAction.NO_BACKEND,
                place,
                first,
                len(rule.backends),
                *(policies.add(rule.policies, rule.object, place) if rule.policies else (0, 0)),
                0,
                0,
                *strings.add(str(rule.object).encode("utf-8", "replace")),
                *strings.add(rule.path_as_written.encode("utf-8", "replace")),
            )
        )
        routes.append(_identity(where, rule, is_default=is_default))
        return place

    for rule in sorted(vhost.rules, key=rule_order):
        _insert(root, rule, add(rule, is_default=False))
    default = NONE if vhost.default is None else add(vhost.default, is_default=True)
    n_nodes, nodes = _layout(root, strings)
    padding = -len(strings.data) % ALIGNMENT
    nodes_off = HEADER.size
    rules_off = nodes_off + len(nodes)
    backends_off = rules_off + len(rules)
    policies_off = backends_off + len(backends)
    policy_sections = policies.sections(policies_off)
    strings_off = policies_off + len(policy_sections)
    total = strings_off + len(strings.data) + padding
    if total > BLOB_MAX:
        raise InvariantError(f"host {host_text(vhost.key)}: its blob has {total} bytes, at most {BLOB_MAX} are possible")
    header = HEADER.pack(
        BLOB_MAGIC,
        BLOB_VERSION,
        HEADER.size,
        total,
        n_nodes,
        len(routes),
        n_backends,
        policies.n,
        nodes_off,
        rules_off,
        backends_off,
        policies_off,
        strings_off,
        len(strings.data),
        default,
        len(services),
        len(routes),
    )
    data = b"".join((header, nodes, rules, backends, policy_sections, strings.data, bytes(padding)))
    return Blob(data=data, services=tuple(services), routes=tuple(routes))


def _insert(root: _TrieNode, rule: Rule, place: int) -> None:
    node = root
    segments = segments_of(rule)
    if len(segments) > DEPTH_MAX:
        raise InvariantError(f"a path of {rule.object} has {len(segments)} segments, at most {DEPTH_MAX} are possible")
    for segment in segments:
        raw = segment.encode("utf-8", "replace")
        child = node.children.get(raw)
        if child is None:
            child = node.children[raw] = _TrieNode()
        node = child
    if (node.exact if rule.kind is PathMatchKind.EXACT else node.prefix) != NONE:
        raise InvariantError(f"{rule.object} has a second {rule.kind.name} rule for one path")
    if rule.kind is PathMatchKind.EXACT:
        node.exact = place
    else:
        node.prefix = place


def _layout(root: _TrieNode, strings: _Strings) -> tuple[int, bytes]:
    """How many nodes there are, and their records, breadth first: a node's children are consecutive, and sorted."""
    nodes: list[tuple[bytes, _TrieNode]] = [(b"", root)]
    records = bytearray()
    for segment, node in nodes:  # grows as it is walked
        first = len(nodes) if node.children else 0
        nodes.extend(sorted(node.children.items()) if len(node.children) > 1 else node.children.items())
        records += NODE.pack(
            *strings.add(segment),
            first,
            len(node.children),
            node.exact,
            node.exact != NONE,
            node.prefix,
            node.prefix != NONE,
        )
    return len(nodes), bytes(records)


def encode_endpoints(service: Service) -> bytes:
    """The endpoint records of `service`, which has them sorted and without duplicates; b"" for none."""
    pack = ENDPOINT.pack
    return b"".join(
        [
            pack(
                e.addr,  # padded with zeros
                e.port,
                EndpointFamily.IPV4 if len(e.addr) == 4 else EndpointFamily.IPV6,
                e.flags,
                e.weight,
            )
            for e in service.endpoints
        ]
    )
