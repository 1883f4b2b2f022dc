"""One client connection of a pod: what it asks for, the answer, and every way in which the answer goes wrong."""

from __future__ import annotations

import asyncio
import http
import json
import socket
import struct
from collections.abc import Coroutine, Iterator

from tests.harness import websocket_frames
from tests.harness.backend_pods import Backend, Pod, address_name
from tests.harness.backend_request import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    BadRequestError,
    Request,
    counted_body,
    decoded_chunks,
    parsed_head,
)

PART_BYTES = 64 << 10
PATTERN = bytes(range(32, 127)) * (PART_BYTES // 95 + 2)


def pattern(size: int) -> Iterator[bytes]:
    """Yield `size` bytes of the fixed pattern: byte i is chr(32 + i % 95)."""
    for start in range(0, size, PART_BYTES):
        yield PATTERN[start % 95 :][: min(PART_BYTES, size - start)]


class Connection(asyncio.Protocol):
    """One client connection: requests one after the other, later a WebSocket."""

    def __init__(self, backend: Backend, pod: Pod, *, is_control: bool) -> None:
        """Belong to `pod`; `is_control` serves the control paths instead."""
        self._backend, self._pod, self._is_control = backend, pod, is_control
        self._data = bytearray()
        self._request: Request | None = None
        self._body: Iterator[bytes | None] = iter(())
        self._body_parts: list[bytes] = []
        self._n_body_bytes = 0
        self._is_busy = False
        self._is_websocket = False
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._id = next(backend.connection_ids)
        self._peer = ""

    # --- what asyncio calls -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        self._peer = address_name(host, port)
        self._pod.n_connections += 1
        self._pod.n_open += 1
        self._pod.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and what it was still writing."""
        self._pod.n_open -= 1
        self._pod.connections.discard(self)
        self._can_write.set()
        for task in self._tasks:
            task.cancel()

    def pause_writing(self) -> None:
        """Wait for a slow reader."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """Go on writing."""
        self._can_write.set()

    def eof_received(self) -> bool:
        """End with the client: nobody waits for an answer under way.  Half-closing clients are not served."""
        return False

    def data_received(self, data: bytes) -> None:
        """Take what came, and answer every request that is complete."""
        self._data += data
        try:
            self._advance()
        except BadRequestError as error:
            text = f"{error}\n".encode()
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(text), text)
            )
            self._transport.close()

    # --- requests ---------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by closing it."""
        return not self._is_busy and self._request is None

    def close(self) -> None:
        """Close it after what is written."""
        self._transport.close()

    def go_away(self, *, timeout_s: float) -> None:
        """End as a well-behaved server does at SIGTERM; a WebSocket's client has `timeout_s` to answer the Close frame."""
        if self._is_websocket:
            self._transport.write(websocket_frames.close_frame(websocket_frames.GOING_AWAY))
            asyncio.get_running_loop().call_later(timeout_s, self._transport.close)
        elif self.is_idle:
            self._transport.close()

    def abort(self) -> None:
        """Reset it."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _advance(self) -> None:
        while not self._is_busy and not self._transport.is_closing():
            if self._is_websocket:
                if not self._echo_frame():
                    return
                continue
            if self._request is None and not self._take_head():
                return
            for part in self._body:
                if part is None:
                    return
                self._body_parts.append(part)
                self._n_body_bytes += len(part)
                if self._n_body_bytes > MAX_BODY_BYTES:
                    raise BadRequestError("body too large")
            request, self._request = self._request, None
            assert request is not None
            request.body = b"".join(self._body_parts)
            self._body_parts, self._n_body_bytes = [], 0
            self._answer(request)

    def _take_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if len(self._data) > MAX_HEAD_BYTES:
                raise BadRequestError("head too large")
            return False
        request = parsed_head(bytes(self._data[:end]), self._pod.behaviour)
        del self._data[: end + 4]
        size = request.header("content-length") or "0"
        if not (size.isascii() and size.isdigit()) or int(size) > MAX_BODY_BYTES:
            raise BadRequestError(f"Content-Length {size[:40]!r}")
        is_chunked = (request.header("transfer-encoding") or "").lower() == "chunked"
        self._body = decoded_chunks(self._data) if is_chunked else counted_body(self._data, int(size))
        self._request = request
        if (request.header("expect") or "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _answer(self, request: Request) -> None:
        if self._is_control:
            found = self._backend.control(request)
            self._write_whole(request, 404 if found is None else 200, json.dumps(found).encode(), "application/json")
            return
        self._pod.n_requests += 1
        self._backend.requests.append({"pod": self._pod.name, "method": request.method, "target": request.target})
        if (request.header("upgrade") or "").lower() == "websocket":
            self._upgrade(request)
            return
        if request.behaviour.keys() & {"slow_ms", "drip_ms", "reset", "close", "size", "chunked"}:
            self._is_busy = True
            self._spawn(self._answer_slowly(request))
            return
        self._write_whole(request, request.wants_number("status", 200), *self._content(request))

    def _content(self, request: Request) -> tuple[bytes, str]:
        if request.wants("echo"):
            return request.body, request.header("content-type") or "application/octet-stream"
        if request.wants("format") == "text":
            line = f"{self._pod.app} {self._pod.name} {request.method} {request.target}\n"
            return line.encode("latin-1"), "text/plain; charset=iso-8859-1"
        said = {
            "app": self._pod.app,
            "pod": self._pod.name,
            "peer": self._peer,
            "method": request.method,
            "target": request.target,
            "version": request.version,
            "headers": request.headers,
            "body_bytes": len(request.body),
            "connection": self._id,
        }
        return json.dumps(said).encode() + b"\n", "application/json"

    def _head(self, request: Request, status: int, content_type: str, framing: str, *, keep: bool) -> bytes:
        try:
            phrase = http.HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {status} {phrase}", f"X-App: {self._pod.app}", f"X-Pod: {self._pod.name}"]
        lines += [f"Content-Type: {content_type}"]
        lines += [framing] if framing else []
        lines += [f"Cache-Control: {value}" for value in request.behaviour.get("cache_control", [])]
        lines += [value.replace(":", ": ", 1) for value in request.behaviour.get("header", [])]
        lines += [] if keep else ["Connection: close"]
        clean = [line.replace("\r", " ").replace("\n", " ") for line in lines]
        return "\r\n".join([*clean, "", ""]).encode("latin-1", "replace")

    def _keeps(self, request: Request) -> bool:
        connection = (request.header("connection") or "").lower()
        if self._backend.is_stopping or request.wants("close") == "after":
            return False
        return "keep-alive" in connection if request.version == "HTTP/1.0" else "close" not in connection

    def _write_whole(self, request: Request, status: int, content: bytes, content_type: str) -> None:
        keep = self._keeps(request)
        is_bodiless = status in (204, 304)
        framing = "" if is_bodiless else f"Content-Length: {len(content)}"
        head = self._head(request, status, content_type, framing, keep=keep)
        self._transport.write(head if request.method == "HEAD" or is_bodiless else head + content)
        if not keep:
            self._transport.close()

    async def _answer_slowly(self, request: Request) -> None:
        await asyncio.sleep(request.wants_number("slow_ms") / 1000)
        broken = request.wants("reset") or request.wants("close")
        end = self.abort if request.wants("reset") else self._transport.close
        if broken == "before":
            end()
            return
        await self._write_parts(request, is_half=broken == "mid", drip_s=request.wants_number("drip_ms") / 1000)
        if broken == "mid":
            # The bytes before the end must not be overtaken by it, in particular not by a reset.
            await asyncio.sleep(0.05)
            end()
            return
        if not self._keeps(request):
            self._transport.close()
        self._is_busy = False
        self.data_received(b"")  # what the client sent meanwhile

    async def _write_parts(self, request: Request, *, is_half: bool, drip_s: float) -> None:
        size = request.wants_number("size")
        if request.wants("size"):
            parts, content_type = pattern(size), "text/plain"
        else:
            content, content_type = self._content(request)
            size, parts = len(content), iter((content[: len(content) // 2], content[len(content) // 2 :]))
        status = request.wants_number("status", 200)
        is_bodiless = status in (204, 304)
        is_chunked = bool(request.wants("chunked")) and request.version != "HTTP/1.0"
        framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
        keep = self._keeps(request)
        self._transport.write(self._head(request, status, content_type, "" if is_bodiless else framing, keep=keep))
        if request.method == "HEAD" or is_bodiless:
            return
        n_written = 0
        has_dripped = not drip_s
        for part in parts:
            taken = part[: size // 2 - n_written] if is_half else part
            if taken:
                self._transport.write(b"%x\r\n%b\r\n" % (len(taken), taken) if is_chunked else taken)
            n_written += len(taken)
            if is_half and n_written >= size // 2:
                return
            if not has_dripped and n_written >= size // 2:
                has_dripped = True
                await asyncio.sleep(drip_s)
            await self._can_write.wait()
        if is_chunked:
            self._transport.write(b"0\r\n\r\n")

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- WebSocket, RFC 6455 ------------------------------------------------------------------------------

    def _upgrade(self, request: Request) -> None:
        key = request.header("sec-websocket-key")
        if request.method != "GET" or key is None or request.header("sec-websocket-version") != "13":
            self._write_whole(request, 400, b"not a WebSocket handshake\n", "text/plain")
            return
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [
            f"Sec-WebSocket-Accept: {websocket_frames.accept_key(key)}",
            f"X-App: {self._pod.app}",
            f"X-Pod: {self._pod.name}",
        ]
        if protocol := request.header("sec-websocket-protocol"):
            lines.append(f"Sec-WebSocket-Protocol: {protocol.split(',')[0].strip()}")
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._is_websocket = True

    def _echo_frame(self) -> bool:
        """Answer one frame of the client, if it is there whole; every frame of a message goes back as it came."""
        try:
            frame = websocket_frames.taken_frame(self._data)
        except websocket_frames.FrameError:
            self._transport.write(websocket_frames.close_frame(websocket_frames.PROTOCOL_ERROR))
            self._transport.close()
            return False
        if frame is None:
            return False
        first, payload = frame
        match first & 0x0F:
            case websocket_frames.PING:
                self._transport.write(websocket_frames.unmasked_frame(0x80 | websocket_frames.PONG, payload))
            case websocket_frames.CLOSE:
                self._transport.write(websocket_frames.close_frame(payload))
                self._transport.close()
            case websocket_frames.PONG:
                pass
            case _:
                self._transport.write(websocket_frames.unmasked_frame(first, payload))
        return True
