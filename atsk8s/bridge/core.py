"""What Python asks of the running core and its host, besides commits: sleep, health, counters, decisions, ports."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from _atsk8s import ffi, lib

from atsk8s.bridge.saver import Outcome
from atsk8s.controller import LoadedState
from atsk8s.errors import InvariantError
from atsk8s.model.policies import Algorithm
from atsk8s.settings import Settings

_MATCH_KINDS: Final = {0: "rule", 1: "no_host", 2: "no_path", 101: "bad_host", 102: "bad_path", 103: "long_path"}
_ENDPOINTS_MAX: Final = 256  # that explain shows
_PORTS_BYTES_MAX: Final = 4096  # of proxy.config.http.server_ports; more are not looked at


class CoreBell:
    """The controller's sleep: a wait in C, with the GIL released, that shutdown ends, too."""

    def wait(self, timeout_s: float) -> bool:
        return bool(lib.atsk_py_wait(max(0, int(timeout_s * 1000 + 0.999))))

    def ring(self) -> None:
        lib.atsk_py_wake()


class Core:
    """See admin.Core, whose every question it answers."""

    def counters(self) -> Iterator[tuple[str, str, int]]:
        name, label = ffi.new("char const **"), ffi.new("char const **")
        for counter in range(lib.atsk_py_counters()):
            count = lib.atsk_py_counter(counter, name, label)
            yield ffi.string(name[0]).decode(), ffi.string(label[0]).decode(), int(count)

    def decide(self, authority: str, path: str) -> Mapping[str, object]:
        host, target = authority.encode("utf-8", "surrogateescape"), path.encode("utf-8", "surrogateescape")
        out = ffi.new("struct atsk_py_decision *")
        lib.atsk_py_decide(0, host, len(host), target, len(target), out)
        decision: dict[str, object] = {"decision": _MATCH_KINDS.get(out.kind, str(out.kind)), "table_version": int(out.version)}
        if out.kind == 0:
            decision["object"] = ffi.string(out.object).decode("utf-8", "replace")
            decision["path"] = ffi.string(out.path).decode("utf-8", "replace")
            decision["endpoints"] = _endpoints(host, target)
        return decision

    def server_ports(self) -> str:
        room = ffi.new("char[]", _PORTS_BYTES_MAX)
        size = min(lib.atsk_py_server_ports(room, _PORTS_BYTES_MAX), _PORTS_BYTES_MAX)
        return bytes(ffi.buffer(room, size)).decode("ascii", "replace")


def _endpoints(host: bytes, target: bytes) -> list[Mapping[str, object]]:
    """The endpoints that a request's rule leads to, as the request path has them now; at most `_ENDPOINTS_MAX`."""
    room = ffi.new("struct atsk_py_endpoint[]", _ENDPOINTS_MAX)
    n = min(lib.atsk_py_endpoints(0, host, len(host), target, len(target), room, _ENDPOINTS_MAX), _ENDPOINTS_MAX)
    return [_endpoint(room[i]) for i in range(n)]


def _endpoint(one: Any) -> Mapping[str, object]:
    address = "by name"
    if one.family == 4:
        address = str(IPv4Address(bytes(one.addr[0:4])))
    elif one.family == 6:
        address = f"[{IPv6Address(bytes(one.addr))}]"
    plain: dict[str, object] = {
        "service_id": int(one.service_id),
        "address": f"{address}:{one.port}",
        "state": "eligible" if one.is_eligible else "draining",
        "in_flight": int(one.in_flight),
        "failures": int(one.failures),
    }
    if one.failures_in_row:
        plain["failures_in_row"] = int(one.failures_in_row)
    if one.ejected_ms:
        plain["state"], plain["ejected_ms"] = "ejected", int(one.ejected_ms)
    if one.probed_ms:
        plain["state"], plain["left_out_by_checks_ms"] = "ejected", int(one.probed_ms)
    return plain


def loaded_state() -> LoadedState | None:
    """What the process serves since before Python ran; None: there was no last good state."""
    version, written_s = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    if not lib.atsk_py_state_loaded(version, written_s):
        return None
    return LoadedState(version=int(version[0]), written_s=int(written_s[0]))


def save_state(directory: str, *, with_certificates: bool) -> Outcome:
    """Write the published table to `directory`; see saver.Saver."""
    out = ffi.new("struct atsk_py_saved *")
    status = lib.atsk_py_state_save(os.fsencode(directory), with_certificates, max(0, int(time.time())), out)
    if status != 0:
        return Outcome(failure=ffi.string(out.why).decode("utf-8", "replace") or f"status {status}")
    return Outcome(version=int(out.version), size_bytes=int(out.size_bytes))


def set_health_path(path: str) -> None:
    """Answer this path with whether the proxy is ready, from now on.  The controller's thread.

    Raises:
        InvariantError: the core refused what the parser had accepted.
    """
    raw = path.encode()
    status = lib.atsk_py_health_path(raw, len(raw))
    if status != 0:
        raise InvariantError(f"the core refused the health path: status {status}")


def push_settings(settings: Settings) -> None:
    """Hand the request path the options that it needs, once, before the first commit.

    Raises:
        InvariantError: the core refused what the parser of options had accepted.
    """
    health_path = ffi.from_buffer("char[]", settings.health_path.encode())
    trusted = ffi.new("struct atsk_py_network[]", len(settings.trusted_proxies))
    for place, network in zip(trusted, settings.trusted_proxies, strict=True):
        place.addr = network.network_address.packed.ljust(16, b"\0")
        place.family = network.version
        place.bits = network.prefixlen
    out = ffi.new("struct atsk_py_settings *")
    out.health_path, out.health_path_len = health_path, len(health_path)
    out.trusted, out.n_trusted = trusted, len(settings.trusted_proxies)
    out.start_timeout_ms = settings.start_timeout_ms
    out.connect_timeout_ms = settings.connect_timeout_ms
    out.load_balance = Algorithm[settings.load_balance.name]
    out.retry_tries = settings.retry_tries
    out.retry_timeout_ms = settings.retry_timeout_ms
    out.retry_budget_percent = settings.retry_budget_percent
    out.read_timeout_ms = settings.read_timeout_ms
    out.send_timeout_ms = settings.send_timeout_ms
    out.request_timeout_ms = settings.request_timeout_ms
    out.health_max_failures = settings.health_max_failures
    out.health_ejection_ms = settings.health_ejection_ms
    out.health_panic_percent = settings.health_panic_percent
    out.body_size = settings.body_size
    out.cache = settings.cache
    out.reject_encoded_slash = settings.reject_encoded_slash
    out.allow_loopback_names = settings.allow_loopback_endpoints
    out.log_fields = settings.access_log_fields
    status = lib.atsk_py_settings(out)
    if status != 0:
        raise InvariantError(f"the core refused the settings: status {status}")
