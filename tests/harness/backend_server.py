"""The backends behind an ingress under test: one process that is many pods, answers what it was asked, and misbehaves.

`backend_server.py --control ADDR:PORT --listen APP=ADDR:PORT[?BEHAVIOUR] …` prints "ready" once every address is bound;
SIGTERM lets requests in flight end and exits 0.  Plain HTTP/1.1 (RFC 9112) and WebSocket echo (RFC 6455).

A request's query says how to answer it; a pod's own BEHAVIOUR, same words, is what a request does not say itself:
  (nothing)             JSON: app, pod, peer, method, target, version, headers as received, body_bytes, connection
  format=text           one line instead: APP POD METHOD TARGET
  echo=1                the request's body, with its content type
  size=N                N bytes of a fixed pattern
  chunked=1             without Content-Length
  status=N              that status code
  slow_ms=N             wait before the answer;  drip_ms=N wait in the middle of its body
  reset=before|mid      TCP reset instead of the answer, or after half its body;  close=before|mid the same by FIN
  close=after           end the connection after the answer
  cache_control=V       that Cache-Control header;  header=NAME:VALUE any header, repeatable
The control address answers /counts, /requests (the last ones, oldest first), /clear and /behave?pod=POD&behaviour=QUERY.
Only the standard library: it is run by path, isolated.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import contextlib
import dataclasses
import hashlib
import http
import itertools
import json
import signal
import socket
import struct
import sys
import urllib.parse
from collections.abc import Callable, Coroutine, Iterator

MAX_HEAD_BYTES = 256 << 10
MAX_BODY_BYTES = 256 << 20
MAX_FRAME_BYTES = 16 << 20
MAX_REMEMBERED_REQUESTS = 10_000
DRAIN_TIMEOUT_S = 10.0
PART_BYTES = 64 << 10
PATTERN = bytes(range(32, 127)) * (PART_BYTES // 95 + 2)
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
BACKLOG = 4096

Behaviour = dict[str, list[str]]


@dataclasses.dataclass(slots=True, kw_only=True)
class Pod:
    """One listening address and what happened there."""

    app: str
    name: str  # ADDR:PORT, IPv6 in brackets
    behaviour: Behaviour
    n_requests: int = 0
    n_connections: int = 0
    n_open: int = 0
    connections: set[Connection] = dataclasses.field(default_factory=set)

    def counts(self) -> dict[str, str | int]:
        """Return the counters as the control address shows them."""
        return {
            "app": self.app,
            "requests": self.n_requests,
            "connections": self.n_connections,
            "open": self.n_open,
        }


@dataclasses.dataclass(slots=True, kw_only=True)
class Request:
    """One request head, its body, and what its query and its pod ask for."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    behaviour: Behaviour
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def wants(self, name: str, default: str = "") -> str:
        """Return the last value of a behaviour."""
        return self.behaviour.get(name, [default])[-1]

    def wants_number(self, name: str, default: int = 0) -> int:
        """Return a behaviour as a number; nonsense is the default."""
        text = self.wants(name)
        return int(text) if text.isascii() and text.isdigit() else default


class BadRequestError(Exception):
    """What came is not HTTP/1.1; the connection is answered 400 and closed."""


def parsed_head(head: bytes, defaults: Behaviour) -> Request:
    """Parse a request line and header fields.  Raises BadRequestError."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequestError(f"request line {lines[0][:100]!r}")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequestError(f"header line {line[:100]!r}")
        headers.append((name, value.strip(" \t")))
    behaviour = defaults
    if "?" in parts[1]:
        query = urllib.parse.parse_qs(parts[1].split("?", 1)[1], keep_blank_values=True, max_num_fields=1000)
        behaviour = defaults | query
    return Request(method=parts[0], target=parts[1], version=parts[2], headers=headers, behaviour=behaviour)


def decoded_chunks(data: bytearray) -> Iterator[bytes | None]:
    """Take a chunked body off the front of `data`: yields its parts, and None whenever more bytes are needed.

    Ends after the last chunk and the trailer section (RFC 9112 section 7.1).  Raises BadRequestError.
    """

    def line() -> Iterator[None]:
        while (end := data.find(b"\r\n")) < 0:
            if len(data) > MAX_HEAD_BYTES:
                raise BadRequestError("chunk line too long")
            yield None
        lines.append(bytes(data[:end]))
        del data[: end + 2]

    lines: list[bytes] = []
    while True:
        yield from line()
        try:
            size = int(lines[-1].split(b";")[0], 16)
        except ValueError:
            raise BadRequestError(f"chunk size {lines[-1][:40]!r}") from None
        if size == 0:
            break
        while size > 0:
            if not data:
                yield None
                continue
            part = bytes(data[:size])
            del data[: len(part)]
            size -= len(part)
            yield part
        yield from line()
    yield from line()
    while lines[-1]:
        yield from line()


def counted_body(data: bytearray, size: int) -> Iterator[bytes | None]:
    """Take `size` bytes off the front of `data`, as decoded_chunks does."""
    while size > 0:
        if not data:
            yield None
            continue
        part = bytes(data[:size])
        del data[: len(part)]
        size -= len(part)
        yield part


def pattern(size: int) -> Iterator[bytes]:
    """Yield `size` bytes of the fixed pattern: byte i is chr(32 + i % 95)."""
    for start in range(0, size, PART_BYTES):
        yield PATTERN[start % 95 :][: min(PART_BYTES, size - start)]


class Backend:
    """Every pod of this process."""

    def __init__(self) -> None:
        """Start without pods."""
        self.pods: dict[str, Pod] = {}
        self.requests: collections.deque[dict[str, object]] = collections.deque(maxlen=MAX_REMEMBERED_REQUESTS)
        self.connection_ids = itertools.count(1)
        self.is_stopping = False

    def control(self, request: Request) -> object:
        """Answer a request to the control address; None is an unknown path."""
        match request.target.split("?")[0]:
            case "/counts":
                return {name: pod.counts() for name, pod in self.pods.items()}
            case "/requests":
                return list(self.requests)
            case "/clear":
                self.requests.clear()
                for pod in self.pods.values():
                    pod.n_requests = pod.n_connections = 0
                return {}
            case "/behave" if request.wants("pod") in self.pods:
                behaviour = urllib.parse.parse_qs(request.wants("behaviour"), keep_blank_values=True)
                self.pods[request.wants("pod")].behaviour = behaviour
                return {}
        return None


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
        end = self._reset if request.wants("reset") else self._transport.close
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

    def _reset(self) -> None:
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

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
        accept = base64.b64encode(hashlib.sha1(key.encode("latin-1") + WEBSOCKET_GUID).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accept}", f"X-App: {self._pod.app}", f"X-Pod: {self._pod.name}"]
        if protocol := request.header("sec-websocket-protocol"):
            lines.append(f"Sec-WebSocket-Protocol: {protocol.split(',')[0].strip()}")
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self._is_websocket = True

    def _echo_frame(self) -> bool:
        """Answer one frame of the client, if it is there whole; every frame of a message goes back as it came."""
        if len(self._data) < 2:
            return False
        first, second = self._data[0], self._data[1]
        size, at = second & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(self._data) < 2 + width:
                return False
            size, at = int.from_bytes(self._data[2 : 2 + width], "big"), 2 + width
        opcode = first & 0x0F
        if not second & 0x80 or first & 0x70 or size > MAX_FRAME_BYTES or (opcode >= 8 and size > 125):
            self._transport.write(websocket_frame(0x88, struct.pack("!H", 1002)))  # protocol error
            self._transport.close()
            return False
        if len(self._data) < at + 4 + size:
            return False
        mask = bytes(self._data[at : at + 4])
        masked = int.from_bytes(self._data[at + 4 : at + 4 + size], "big")
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        payload = (masked ^ key).to_bytes(size, "big")
        del self._data[: at + 4 + size]
        if opcode == 0x9:
            self._transport.write(websocket_frame(0x8A, payload))
        elif opcode == 0x8:
            self._transport.write(websocket_frame(0x88, payload))
            self._transport.close()
        elif opcode != 0xA:
            self._transport.write(websocket_frame(first, payload))
        return True


def websocket_frame(first: int, payload: bytes) -> bytes:
    """Return an unmasked frame; `first` is its first byte, FIN and opcode."""
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    if len(payload) < 1 << 16:
        return bytes((first, 126)) + struct.pack("!H", len(payload)) + payload
    return bytes((first, 127)) + struct.pack("!Q", len(payload)) + payload


def address_name(host: str, port: int) -> str:
    """Return ADDR:PORT, with IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ADDR:PORT.  Raises ValueError."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


async def serve(listens: list[str], control: str) -> None:
    """Bind everything, say so, and serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    backend = Backend()
    servers = []

    def factory(pod: Pod, *, is_control: bool) -> Callable[[], Connection]:
        return lambda: Connection(backend, pod, is_control=is_control)

    for listen in listens:
        app, _, rest = listen.partition("=")
        address, _, behaviour = rest.partition("?")
        host, port = split_address(address)
        pod = Pod(app=app, name=address_name(host, port), behaviour=urllib.parse.parse_qs(behaviour))
        backend.pods[pod.name] = pod
        servers.append(await loop.create_server(factory(pod, is_control=False), host, port, backlog=BACKLOG))
    control_pod = Pod(app="control", name=control, behaviour={})
    servers.append(await loop.create_server(factory(control_pod, is_control=True), *split_address(control)))

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print("ready", flush=True)
    await stop.wait()
    backend.is_stopping = True
    for server in servers:
        server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            while connections := [c for pod in (*backend.pods.values(), control_pod) for c in pod.connections]:
                for connection in connections:
                    if connection.is_idle:
                        connection.close()
                await asyncio.sleep(0.01)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="backends of an ingress under test")
    parser.add_argument("--listen", action="append", required=True, metavar="APP=ADDR:PORT[?BEHAVIOUR]")
    parser.add_argument("--control", required=True, metavar="ADDR:PORT")
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.listen, arguments.control))
    except (OSError, ValueError) as failure:
        sys.exit(f"backend_server: {failure}")
