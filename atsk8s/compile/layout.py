"""plugin_c/blob/atsk_format.h in Python: the structs, their fields in order, and the constants.  A lint test holds them equal."""

from __future__ import annotations

from enum import IntEnum, unique
from struct import Struct
from typing import Final, NamedTuple

BLOB_MAGIC: Final = 0x48564B41  # "AKVH"
BLOB_VERSION: Final = 2
NONE: Final = 0xFFFFFFFF  # "no index"
BLOB_MAX: Final = 64 << 20  # bytes
DEPTH_MAX: Final = 4096  # path segments from root to leaf
ALIGNMENT: Final = 8  # of every section and of the whole [bytes]


@unique
class RuleAction(IntEnum):
    """enum atsk_rule_action."""

    FORWARD = 0
    NO_BACKEND = 1


@unique
class EndpointFamily(IntEnum):
    """enum atsk_endpoint_family."""

    IPV4 = 4
    IPV6 = 6


class Header(NamedTuple):
    """struct atsk_blob_header."""

    magic: int
    version: int
    header_size: int
    total_size: int
    n_nodes: int
    n_rules: int
    n_backends: int
    n_policies: int
    nodes_off: int
    rules_off: int
    backends_off: int
    policies_off: int
    strings_off: int
    strings_size: int
    default_rule: int
    n_services: int
    n_routes: int


class Node(NamedTuple):
    """struct atsk_blob_node; `segment` is a struct atsk_blob_str."""

    segment_off: int
    segment_len: int
    first_child: int
    n_children: int
    exact_rule: int
    n_exact: int
    prefix_rule: int
    n_prefix: int


class RuleRecord(NamedTuple):
    """struct atsk_blob_rule; `object` and `path` are struct atsk_blob_str."""

    action: int
    route: int
    first_backend: int
    n_backends: int
    first_policy: int
    n_policies: int
    first_condition: int
    n_conditions: int
    object_off: int
    object_len: int
    path_off: int
    path_len: int


class BackendRecord(NamedTuple):
    """struct atsk_blob_backend."""

    service: int
    weight: int


class PolicyRecord(NamedTuple):
    """struct atsk_blob_policy."""

    kind: int
    size: int
    off: int
    reserved: int


class BalanceRecord(NamedTuple):
    """struct atsk_policy_balance; `name` is a struct atsk_blob_str."""

    algorithm: int
    hash_source: int
    name_off: int
    name_len: int
    load_percent: int
    reserved: int


class AffinityRecord(NamedTuple):
    """struct atsk_policy_affinity; `name` and `attributes` are struct atsk_blob_str."""

    name_off: int
    name_len: int
    attributes_off: int
    attributes_len: int
    secure: int
    reserved: int


class RetryRecord(NamedTuple):
    """struct atsk_policy_retry."""

    on: int
    tries: int
    time_ms: int
    n_statuses: int
    statuses_0: int
    statuses_1: int
    statuses_2: int
    statuses_3: int
    statuses_4: int
    statuses_5: int
    statuses_6: int
    statuses_7: int


class TimeoutsRecord(NamedTuple):
    """struct atsk_policy_timeouts."""

    connect_ms: int
    read_ms: int
    send_ms: int
    request_ms: int


class LimitsRecord(NamedTuple):
    """struct atsk_policy_limits; `exempt` is a struct atsk_blob_str."""

    client_rate_milli: int
    client_burst: int
    client_concurrency: int
    total_rate_milli: int
    total_burst: int
    total_concurrency: int
    exempt_off: int
    exempt_len: int
    n_exempt: int
    scope: int


class BodyRecord(NamedTuple):
    """struct atsk_policy_body."""

    max_bytes: int


class SnippetRecord(NamedTuple):
    """struct atsk_policy_snippet; `text` is a struct atsk_blob_str."""

    id: int
    text_off: int
    text_len: int


class EndpointRecord(NamedTuple):
    """struct atsk_endpoint_record."""

    addr: bytes
    port: int
    family: int
    flags: int
    weight: int


HEADER: Final = Struct("<IHH14I")
NODE: Final = Struct("<8I")
RULE: Final = Struct("<12I")
BACKEND: Final = Struct("<2I")
POLICY: Final = Struct("<4I")
BALANCE: Final = Struct("<6I")
AFFINITY: Final = Struct("<6I")
RETRY: Final = Struct("<4I8H")
TIMEOUTS: Final = Struct("<4I")
LIMITS: Final = Struct("<10I")
BODY: Final = Struct("<Q")
SNIPPET: Final = Struct("<QII")
EXEMPT: Final = Struct("<16sBB")  # address (IPv4 in the first 4 bytes, the rest 0), family, bits
ENDPOINT: Final = Struct("<16sHBBI")
