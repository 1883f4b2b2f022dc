"""The server's side of a WebSocket (RFC 6455): the handshake's answer, and frames."""

from __future__ import annotations

import base64
import hashlib
import struct

MAX_FRAME_BYTES = 16 << 20
CLOSE, PING, PONG = 0x8, 0x9, 0xA  # opcodes; in an unmasked frame's first byte with FIN: 0x80
PROTOCOL_ERROR, GOING_AWAY = struct.pack("!H", 1002), struct.pack("!H", 1001)  # section 7.4.1: what a Close frame says
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3


class FrameError(Exception):
    """What came is no frame that a client may send."""


def accept_key(key: str) -> str:
    """Return Sec-WebSocket-Accept for a Sec-WebSocket-Key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID).digest()).decode()


def unmasked_frame(first: int, payload: bytes) -> bytes:
    """Return a server's frame; `first` is its first byte, FIN and opcode."""
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    if len(payload) < 1 << 16:
        return bytes((first, 126)) + struct.pack("!H", len(payload)) + payload
    return bytes((first, 127)) + struct.pack("!Q", len(payload)) + payload


def close_frame(payload: bytes) -> bytes:
    """Return a Close frame with a status, or the client's own payload."""
    return unmasked_frame(0x80 | CLOSE, payload)


def taken_frame(data: bytearray) -> tuple[int, bytes] | None:
    """Take a client's frame off the front of `data`: its first byte and its payload, unmasked; None while it is not there whole.

    Raises:
        FrameError: it is not masked, uses an extension, or is too large.
    """
    if len(data) < 2:
        return None
    first, second = data[0], data[1]
    size, at = second & 0x7F, 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if len(data) < 2 + width:
            return None
        size, at = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
    if not second & 0x80 or first & 0x70 or size > MAX_FRAME_BYTES or (first & 0x0F >= CLOSE and size > 125):
        raise FrameError
    if len(data) < at + 4 + size:
        return None
    mask = bytes(data[at : at + 4])
    masked = int.from_bytes(data[at + 4 : at + 4 + size], "big")
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    del data[: at + 4 + size]
    return first, (masked ^ key).to_bytes(size, "big")
