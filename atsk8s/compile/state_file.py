"""The slow, obvious reader of the last good state: for the offline tools, which ask what a server would serve from it.

It reads hostile bytes, as plugin_c/controller/state.c does, and by the same layout (plugin_c/controller/state_format.h).  Services
and certificates have numbers there and no names, which is all that a table needs; they are shown by their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from struct import Struct
from typing import Final

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.decode import decode, decode_endpoints
from atsk8s.compile.encode import Blob
from atsk8s.compile.faults import BlobError
from atsk8s.compile.layout import BLOB_VERSION, ENDPOINT, NONE, EndpointFamily
from atsk8s.model.changes import Changes
from atsk8s.model.ir import HostKey, Place, Service, ServiceKey, TlsPolicy, VirtualHost

MAGIC: Final = 0x54534B41  # ATSK_STATE_MAGIC
VERSION: Final = 3  # ATSK_STATE_VERSION
SIZE_MAX: Final = 1 << 30  # ATSK_STATE_MAX
FILE_NAME: Final = "table.state"  # ATSK_STATE_NAME
HOST_BYTES_MAX: Final = 253

STATE_HEADER: Final = Struct("<IHHQQIIQQ32s")
STATE_SETTINGS: Final = Struct("<4IQ14I")
STATE_NETWORK: Final = Struct("<16sBB6x")
STATE_RECORD: Final = Struct("<II")
STATE_SERVICE: Final = Struct("<QI4x")
STATE_NAME: Final = Struct("<QHHI")
STATE_CERTIFICATE: Final = Struct("<QII")
STATE_VHOST: Final = Struct("<HBBIII")
STATE_POLICY: Final = Struct("<HBBI")
ID: Final = Struct("<Q")
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """What a file holds."""

    written_s: int  # Unix time
    table_version: int  # of the process that wrote it
    table: Changes


def read_state(data: bytes) -> SavedState:
    """What `data` holds.

    Raises:
        BlobError: it is no last good state of this version, or is damaged.
    """
    cursor = _Cursor(data)
    header = cursor.unpack(STATE_HEADER)
    magic, version, header_size, total_size, checksum, blob_version, n_records, written_s, table_version, _ = header
    _require(magic == MAGIC, "it does not begin as one does")
    _require(version == VERSION and blob_version == BLOB_VERSION, f"it is of format {version}, and this reads {VERSION}")
    _require(header_size == STATE_HEADER.size and total_size == len(data), "its size is not what it says")
    _require(checksum == siphash_1_3(memoryview(data)[24:], MAGIC, VERSION), "its checksum is wrong")
    settings = cursor.unpack(STATE_SETTINGS)
    cursor.take(settings[1] * STATE_NETWORK.size)
    cursor.take(settings[2])
    reader = _Records()
    for _ in range(n_records):
        kind, size = cursor.unpack(STATE_RECORD)
        _require(size % 8 == 0, "a record's size")
        reader.read(kind, _Cursor(cursor.take(size)))
    _require(cursor.left == 0, "there is more behind its end")
    table = Changes(
        vhosts=reader.vhosts, tls=reader.tls, services=reader.services, empty_certificates=frozenset(reader.certificates)
    )
    return SavedState(written_s=written_s, table_version=table_version, table=table)


class _Records:
    """What the records so far have brought."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, Service | None] = {}
        self.certificates: dict[ObjectKey, None] = {}
        self.vhosts: dict[HostKey, VirtualHost | None] = {}
        self.tls: dict[HostKey, TlsPolicy | None] = {}

    def read(self, kind: int, body: _Cursor) -> None:
        match kind:  # enum atsk_state_kind
            case 1:
                number, max_failures = body.unpack(STATE_SERVICE)
                records = bytes(body.take(body.left))
                _require(len(records) % ENDPOINT.size == 0, "endpoints cut short")
                _require(
                    all(fields[2] in tuple(EndpointFamily) for fields in ENDPOINT.iter_unpack(records)), "an endpoint's family"
                )
                key = _service(number)
                self.services[key] = Service(key=key, endpoints=decode_endpoints(records), max_failures=_said(max_failures))
            case 2:
                number, port, size, max_failures = body.unpack(STATE_NAME)
                key = _service(number)
                name = _text(body.take(size))
                self.services[key] = Service(key=key, external_name=name, external_port=port, max_failures=_said(max_failures))
            case 3:
                number, chain_len, key_len = body.unpack(STATE_CERTIFICATE)
                body.take(chain_len)
                body.take(key_len)
                self.certificates[_certificate(number)] = None
            case 4:
                self._read_vhost(body)
            case 5:
                local_port, place, host_len, n_certificates = body.unpack(STATE_POLICY)
                host = _host(local_port, place, body.take(host_len))
                certificates = tuple(_certificate(number) for number in body.ids(n_certificates))
                _require(all(found in self.certificates for found in certificates), "a certificate that is not there")
                self.tls[host] = TlsPolicy(key=host, certificates=certificates)
            case _:
                raise BlobError(f"no last good state: a record of the unknown kind {kind}")
        _require(body.left == 0, "a record with more behind its end")

    def _read_vhost(self, body: _Cursor) -> None:
        local_port, place, host_len, blob_len, n_services, n_routes = body.unpack(STATE_VHOST)
        host = _host(local_port, place, body.take(host_len))
        services = tuple(_service(number) for number in body.ids(n_services))
        _require(all(found in self.services for found in services), "a service that is not there")
        routes = tuple(str(number) for number in body.ids(n_routes))
        try:
            self.vhosts[host] = decode(Blob(data=bytes(body.take(blob_len)), services=services, routes=routes), host)
        except ValueError:  # text that is not UTF-8
            raise BlobError("no last good state: a virtual host's text") from None


class _Cursor:
    """Bytes, and how far they were read."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> memoryview:
        """`size` bytes; what fills them up to a multiple of 8 is passed over."""
        filled = -(-size // 8) * 8
        _require(filled <= self.left, "it is cut short")
        taken = self._data[self._at : self._at + size]
        self._at += filled
        return taken

    def unpack(self, layout: Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def ids(self, n: int) -> list[int]:
        return [number for (number,) in ID.iter_unpack(self.take(n * ID.size))]


def _service(number: int) -> ServiceKey:
    return ServiceKey(namespace="", name=f"service {number}", port="")


def _said(max_failures: int) -> int | None:
    return None if max_failures == NONE else max_failures


def _certificate(number: int) -> ObjectKey:
    return ObjectKey("", f"certificate {number}")


def _host(local_port: int, place: int, host: memoryview) -> HostKey:
    _require(place in tuple(Place) and len(host) <= HOST_BYTES_MAX, "a host")
    return HostKey(local_port=local_port, place=Place(place), host=_text(host))


def _text(data: memoryview) -> str:
    text = bytes(data).decode("ascii", "replace")
    _require(text.isascii() and (not text or text.isprintable()), "a name")
    return text


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise BlobError(f"no last good state: {what}")


def siphash_1_3(data: bytes | memoryview, k0: int, k1: int) -> int:
    """plugin_c/base/siphash.h.  Some 5 MB/s here, which is enough for a tool."""
    v0, v1, v2, v3 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    whole = len(data) // 8 * 8
    last = (len(data) & 0xFF) << 56 | int.from_bytes(data[whole:], "little")
    # A word is mixed in before its round and after it; the last three rounds have none.
    for n, word in chain(((1, word) for (word,) in ID.iter_unpack(data[:whole])), ((1, last), (2, 0), (1, 0), (1, 0))):
        if n == 2:
            v2 ^= 0xFF
        v3 ^= word
        v0 = (v0 + v1) & _MASK
        v1 = ((v1 << 13 | v1 >> 51) & _MASK) ^ v0
        v0 = (v0 << 32 | v0 >> 32) & _MASK
        v2 = (v2 + v3) & _MASK
        v3 = ((v3 << 16 | v3 >> 48) & _MASK) ^ v2
        v0 = (v0 + v3) & _MASK
        v3 = ((v3 << 21 | v3 >> 43) & _MASK) ^ v0
        v2 = (v2 + v1) & _MASK
        v1 = ((v1 << 17 | v1 >> 47) & _MASK) ^ v2
        v2 = (v2 << 32 | v2 >> 32) & _MASK
        v0 ^= word
    return v0 ^ v1 ^ v2 ^ v3
