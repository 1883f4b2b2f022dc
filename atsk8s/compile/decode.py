"""The slow, obvious reader of a blob: oracle of the C reader, and what dumps are made with.

It trusts nothing: every offset, count, index, order and reserved field is looked at, as plugin_c/blob/vhost.c does.
"""

from __future__ import annotations

from itertools import pairwise
from struct import Struct
from typing import Final

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.encode import Blob
from atsk8s.compile.faults import BlobError as BlobError
from atsk8s.compile.faults import require
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
    POLICY,
    RULE,
    BackendRecord,
    EndpointFamily,
    EndpointRecord,
    Header,
    Node,
    PolicyRecord,
    RuleAction,
    RuleRecord,
)
from atsk8s.compile.policy_records import check_row, read_policy
from atsk8s.model.ir import Backend, Endpoint, EndpointFlags, HostKey, PathMatchKind, Rule, VirtualHost
from atsk8s.model.precedence import rule_order


class Sections:
    """A checked blob's records, as they are."""

    def __init__(self, data: bytes) -> None:
        """Raises BlobError."""
        require(len(data) >= HEADER.size, "shorter than a header")
        self.header = header = Header._make(HEADER.unpack_from(data))
        require(header.magic == BLOB_MAGIC and header.version == BLOB_VERSION, "magic or version")
        require(header.header_size == HEADER.size, "header_size")
        require(header.total_size == len(data) and len(data) % ALIGNMENT == 0, "total_size")
        require(len(data) <= BLOB_MAX, "larger than a blob can be")
        self.nodes = [Node._make(r) for r in _records(data, header.nodes_off, header.n_nodes, NODE)]
        self.rules = [RuleRecord._make(r) for r in _records(data, header.rules_off, header.n_rules, RULE)]
        self.backends = [BackendRecord._make(r) for r in _records(data, header.backends_off, header.n_backends, BACKEND)]
        records = [PolicyRecord._make(r) for r in _records(data, header.policies_off, header.n_policies, POLICY)]
        _records(data, header.strings_off, header.strings_size, _BYTE)
        self._strings = data[header.strings_off : header.strings_off + header.strings_size]
        policy_data = range(header.policies_off + header.n_policies * POLICY.size, header.strings_off)
        self.kinds = [record.kind for record in records]
        self.policies = [read_policy(record, data, policy_data, self.text, header.n_routes) for record in records]
        self._check_rules()
        # The segments that lead to each node.
        self.paths = self._walk()

    def text(self, off: int, size: int) -> bytes:
        """A string of the strings section."""
        require(off <= len(self._strings) and size <= len(self._strings) - off, "a string outside its section")
        return self._strings[off : off + size]

    def _check_rules(self) -> None:
        header = self.header
        for rule in self.rules:
            require(rule.first_condition == rule.n_conditions == 0, "reserved fields")
            require(rule.first_policy + rule.n_policies <= header.n_policies, "policies outside their section")
            require(rule.n_policies > 0 or rule.first_policy == 0, "the first of no policies")
            check_row(self.kinds[rule.first_policy : rule.first_policy + rule.n_policies])
            require(rule.action in tuple(RuleAction), "an unknown action")
            require((rule.action == RuleAction.FORWARD) == (rule.n_backends > 0), "an action without, or with, backends")
            require(rule.route < header.n_routes, "a route outside the array")
            require(rule.first_backend + rule.n_backends <= header.n_backends, "backends outside their section")
            self.text(rule.object_off, rule.object_len)
            self.text(rule.path_off, rule.path_len)
        for backend in self.backends:
            require(backend.service < header.n_services and backend.weight > 0, "a backend's service or weight")
        require(header.default_rule == NONE or header.default_rule < header.n_rules, "default_rule")

    def _walk(self) -> list[tuple[bytes, ...]]:
        require(len(self.nodes) > 0 and self.nodes[0].segment_len == 0, "the root")
        paths: list[tuple[bytes, ...]] = [()]
        for i, node in enumerate(self.nodes):
            require(i < len(paths), "a node without a parent")
            require(len(paths[i]) <= DEPTH_MAX, "too deep")
            for first, n in ((node.exact_rule, node.n_exact), (node.prefix_rule, node.n_prefix)):
                require(n == 0 if first == NONE else n > 0 and first + n <= len(self.rules), "a node's rules")
            if node.n_children == 0:
                require(node.first_child == 0, "a childless node's first_child")
                continue
            require(node.first_child == len(paths), "children out of order")
            require(node.n_children <= len(self.nodes) - len(paths), "children outside their section")
            children = self.nodes[node.first_child : node.first_child + node.n_children]
            segments = [self.text(child.segment_off, child.segment_len) for child in children]
            require(all(a < b for a, b in pairwise(segments)), "siblings out of order")
            require(not any(b"/" in segment for segment in segments), "a slash in a segment")
            paths += [(*paths[i], segment) for segment in segments]
        return paths


_BYTE: Final = Struct("B")


def _records(data: bytes, off: int, n: int, record: Struct) -> list[tuple[int, ...]]:
    require(off % ALIGNMENT == 0, "a section's alignment")
    require(off <= len(data) and n * record.size <= len(data) - off, "a section outside the blob")
    require(n == 0 or off >= HEADER.size, "a section in the header")
    return list(record.iter_unpack(data[off : off + n * record.size]))


def decode(blob: Blob, key: HostKey) -> VirtualHost:
    """The virtual host that `encode` made `blob` of.

    Raises:
        BlobError: the bytes are not what `encode` writes.
    """
    sections = Sections(blob.data)
    require(sections.header.n_services == len(blob.services) and sections.header.n_routes == len(blob.routes), "its arrays")

    def rule_at(place: int, kind: PathMatchKind, path: str) -> Rule:
        record = sections.rules[place]
        namespace, slash, name = sections.text(record.object_off, record.object_len).decode().rpartition("/")
        backends = sections.backends[record.first_backend : record.first_backend + record.n_backends]
        return Rule(
            object=ObjectKey(namespace if slash else "", name),
            kind=kind,
            path=path,
            path_as_written=sections.text(record.path_off, record.path_len).decode(),
            backends=tuple(Backend(service=blob.services[b.service], weight=b.weight) for b in backends),
            policies=tuple(sections.policies[record.first_policy : record.first_policy + record.n_policies]),
        )

    rules: list[Rule] = []
    for node, segments in zip(sections.nodes, sections.paths, strict=True):
        path = "/" + b"/".join(segments).decode()
        rules += [rule_at(node.exact_rule + i, PathMatchKind.EXACT, path) for i in range(node.n_exact)]
        rules += [rule_at(node.prefix_rule + i, PathMatchKind.PREFIX, path) for i in range(node.n_prefix)]
    default = sections.header.default_rule
    return VirtualHost(
        key=key,
        rules=tuple(sorted(rules, key=rule_order)),
        default=None if default == NONE else rule_at(default, PathMatchKind.PREFIX, "/"),
    )


def slow_match(data: bytes, path: bytes) -> int | None:
    """The rule's index that a checked blob has for a normalised path, by looking at every one; None for a miss.

    Raises:
        BlobError: the bytes are not a blob.
    """
    sections = Sections(data)
    found: list[tuple[tuple[int, bool], int]] = []
    wanted = tuple(path[1:].split(b"/")) if path.startswith(b"/") else None
    for node, segments in zip(sections.nodes, sections.paths, strict=True):
        if wanted is None:
            break
        if node.n_exact and segments == wanted:
            found.append(((len(segments), True), node.exact_rule))
        if node.n_prefix and segments == wanted[: len(segments)]:
            found.append(((len(segments), False), node.prefix_rule))
    if found:
        return max(found)[1]
    return None if sections.header.default_rule == NONE else sections.header.default_rule


def decode_endpoints(data: bytes) -> tuple[Endpoint, ...]:
    """The endpoints that `encode_endpoints` made `data` of."""
    endpoints: list[Endpoint] = []
    for fields in ENDPOINT.iter_unpack(data):
        record = EndpointRecord._make(fields)
        size = 4 if record.family == EndpointFamily.IPV4 else 16
        flags = EndpointFlags(record.flags)
        endpoints.append(Endpoint(addr=record.addr[:size], port=record.port, weight=record.weight, flags=flags))
    return tuple(endpoints)
