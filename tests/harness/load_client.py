"""The load itself: keeps requests going on a number of connections and accounts for every one of them.

`load_client.py PLAN`, PLAN being the JSON that harness/load.py makes.  Prints a line of JSON every PROGRESS_S, and a last one with
"final": true after SIGTERM: each connection finishes the request under way first, so that stopping loses none.
What is not the expected answer, whole, in time, is a failure; nothing is retried.  Runs by path, isolated; needs h2 for HTTP/2.
"""

from __future__ import annotations

import abc
import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import signal
import ssl
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

PROGRESS_S = 0.1
FAILURES_MAX = 50  # that are told one by one, the first few of them while it runs; all are counted
FAILURES_MEANWHILE_MAX = 3
LATENCIES_MAX = 500_000
RECONNECT_DELAY_S = 0.05  # after a failure: a dead server must not turn the client into a busy loop


class FailureError(Exception):
    """One request went wrong; `what` is its class."""

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(f"{what}: {detail}")
        self.what, self.detail = what, detail


class GoingAwayError(Exception):
    """The other side ended the connection in order before it took the request, which is sent again: a WebSocket by its Close frame
    (RFC 6455 section 7.4.1, 1001), HTTP/2 by GOAWAY (RFC 9113 section 6.8)."""


@dataclasses.dataclass(slots=True)
class Tally:
    """What happened so far."""

    n_ok: int = 0
    n_connections: int = 0
    n_going_away: int = 0
    n_closed_idle: int = 0
    failures: dict[str, int] = dataclasses.field(default_factory=dict)
    told: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    latencies_ms: list[float] = dataclasses.field(default_factory=list)
    started_s: float = dataclasses.field(default_factory=time.monotonic)

    def ok(self, latency_s: float) -> None:
        self.n_ok += 1
        if len(self.latencies_ms) < LATENCIES_MAX:
            self.latencies_ms.append(latency_s * 1e3)

    def failed(self, failure: FailureError, request: dict[str, Any]) -> None:
        self.failures[failure.what] = self.failures.get(failure.what, 0) + 1
        if len(self.told) < FAILURES_MAX:
            at_s = round(time.monotonic() - self.started_s, 3)
            where = f"{request['host']}{request['path']}"
            self.told.append({"at_s": at_s, "what": failure.what, "where": where, "detail": failure.detail[:300]})

    def report(self, *, final: bool) -> dict[str, Any]:
        said: dict[str, Any] = {
            "n_ok": self.n_ok,
            "n_connections": self.n_connections,
            "n_going_away": self.n_going_away,
            "n_closed_idle": self.n_closed_idle,
            "failures": self.failures,
            "told": self.told if final else self.told[:FAILURES_MEANWHILE_MAX],
            "elapsed_s": round(time.monotonic() - self.started_s, 3),
        }
        if final:
            ordered = sorted(self.latencies_ms) or [0.0]
            said["final"] = True
            said["p50_ms"] = round(ordered[len(ordered) // 2], 3)
            said["p99_ms"] = round(ordered[int(len(ordered) * 0.99)], 3)
            said["max_ms"] = round(ordered[-1], 3)
        return said


class Client(abc.ABC):
    """One connection after another to the same place, one request at a time."""

    def __init__(self, plan: dict[str, Any], tally: Tally, stopping: asyncio.Event) -> None:
        self._plan, self._tally, self._stopping = plan, tally, stopping
        self._tls: ssl.SSLContext | None = None
        if plan["tls"]:
            self._tls = ssl.create_default_context(cafile=plan["ca_file"])
            self._tls.set_alpn_protocols(["h2"] if plan["protocol"] == "h2" else ["http/1.1"])
        self._writer: asyncio.StreamWriter | None = None

    async def run(self, first: int) -> None:
        """Send requests, beginning with number `first` of the plan, until told to stop."""
        requests, interval_s = self._plan["requests"], self._plan["interval_s"]
        number, n_on_connection = first, 0
        due_s = time.monotonic() + interval_s * first / self._plan["connections"]
        while not self._stopping.is_set():
            if interval_s:
                await self._pause(due_s - time.monotonic())
                due_s = max(due_s + interval_s, time.monotonic() - 1.0)  # at most a second is caught up on
                if self._stopping.is_set():
                    break
            request = requests[number % len(requests)]
            number += 1
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(self._plan["timeout_s"]):
                    if await self.was_closed_idle():
                        self._tally.n_closed_idle += 1
                        self.close()
                    if self._writer is None or (self._tls is not None and request["host"] != self._host):
                        self.close()
                        await self._connect(request)
                        n_on_connection = 0
                    is_kept = await self.exchange(request)
            except GoingAwayError:
                self._tally.n_going_away += 1
                self.close()
                number -= 1
                continue
            except TimeoutError:
                self._failed(FailureError("timeout", f"no whole answer within {self._plan['timeout_s']} s"), request)
            except FailureError as failure:
                self._failed(failure, request)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                self._failed(FailureError("broken", repr(error)), request)
            else:
                self._tally.ok(time.monotonic() - began_s)
                n_on_connection += 1
                if not is_kept or n_on_connection == self._plan["requests_per_connection"]:
                    self.close()
                continue
            await self._pause(RECONNECT_DELAY_S)
        self.close()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                await self._stopping.wait()

    def _failed(self, failure: FailureError, request: dict[str, Any]) -> None:
        self._tally.failed(failure, request)
        self.close()

    async def _connect(self, request: dict[str, Any]) -> None:
        self._host = request["host"]
        name = self._host.rpartition(":")[0] or self._host
        try:
            self._reader, self._writer = await asyncio.open_connection(
                self._plan["ip"],
                self._plan["port"],
                ssl=self._tls,
                server_hostname=name if self._tls else None,
                limit=1 << 20,
            )
        except ssl.SSLError as error:
            raise FailureError("handshake", str(error)) from None
        except OSError as error:
            raise FailureError("connect", str(error)) from None
        self._tally.n_connections += 1
        await self.opened(request)

    def close(self) -> None:
        """Close the connection; without waiting, as nothing is under way."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def check(self, request: dict[str, Any], status: int, app: str | None, body: bytes) -> None:
        """Compare an answer with what the plan expects."""
        if status != request["status"]:
            raise FailureError(f"status {status}", body[:200].decode("latin-1"))
        if request["app"] is not None and app != request["app"]:
            raise FailureError("wrong app", f"expected {request['app']}, got {app}")

    async def was_closed_idle(self) -> bool:
        """Has the other side closed the connection since the last answer?  It may at any time (RFC 9112 section 9.5), and clients
        look before they send; what it closes after that is a failure."""
        return self._writer is not None and self._reader.at_eof()

    async def opened(self, request: dict[str, Any]) -> None:  # noqa: B027  # HTTP/1.1 has nothing to say first
        """Begin on a new connection."""

    @abc.abstractmethod
    async def exchange(self, request: dict[str, Any]) -> bool:
        """Send a request, take its answer; say whether the connection lives on."""


class Http1Client(Client):
    """HTTP/1.1 with keep-alive (RFC 9112)."""

    async def exchange(self, request: dict[str, Any]) -> bool:
        assert self._writer is not None
        body: bytes = request["body"].encode()
        lines = [f"{request['method']} {request['path']} HTTP/1.1", f"Host: {request['host']}"]
        lines += [f"Content-Length: {len(body)}"] if body or request["method"] != "GET" else []
        self._writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await self._writer.drain()
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise FailureError("closed", f"after {len(error.partial)} bytes of the answer's head") from None
        status_line, *rest = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        received = await self._body(headers)
        self.check(request, int(status_line.split(" ")[1]), headers.get("x-app"), received)
        return headers.get("connection", "").lower() != "close"

    async def _body(self, headers: dict[str, str]) -> bytes:
        try:
            if headers.get("transfer-encoding", "").lower() == "chunked":
                parts = []
                while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                    parts.append((await self._reader.readexactly(size + 2))[:-2])
                await self._reader.readuntil(b"\r\n")
                return b"".join(parts)
            return await self._reader.readexactly(int(headers.get("content-length", "0")))
        except asyncio.IncompleteReadError as error:
            raise FailureError("cut", f"the body ended after {len(error.partial)} bytes") from None


class Http2Client(Client):
    """HTTP/2 over TLS (RFC 9113), one stream at a time."""

    async def opened(self, request: dict[str, Any]) -> None:
        import h2.config
        import h2.connection

        assert self._writer is not None
        if self._writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            raise FailureError("handshake", "h2 was not selected")
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._unparsed = b""
        self._last_stream: int | None = None
        self._writer.write(self._h2.data_to_send())

    async def was_closed_idle(self) -> bool:
        """Frames that nobody has read yet may lie before the end; a GOAWAY with an error among them is a failure."""
        import h2.events

        if self._writer is None or not (self._reader.at_eof() or self._writer.is_closing()):
            return False
        for event in self._events(await self._reader.read()):
            if isinstance(event, h2.events.ConnectionTerminated):
                raise FailureError("malformed", f"GOAWAY with error code {event.error_code}")
        return True

    def _events(self, data: bytes) -> Sequence[object]:
        import h2.exceptions

        try:
            return self._h2.receive_data(self._without_goaway(data))
        except h2.exceptions.ProtocolError as error:
            raise FailureError("malformed", str(error)) from None

    def _without_goaway(self, data: bytes) -> bytes:
        """The whole frames that have come, but GOAWAY: h2 takes it for the end of everything, and RFC 9113 section 6.8 does not."""
        self._unparsed += data
        taken = b""
        while len(self._unparsed) >= 9:
            size = 9 + int.from_bytes(self._unparsed[:3], "big")
            if len(self._unparsed) < size:
                break
            frame, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            if frame[3] == 7 and frame[13:17] == bytes(4):  # NO_ERROR: a server that ends in order
                self._last_stream = int.from_bytes(frame[9:13], "big") & 0x7FFFFFFF
            else:
                taken += frame
        return taken

    async def exchange(self, request: dict[str, Any]) -> bool:
        import h2.events

        assert self._writer is not None
        stream = self._h2.get_next_available_stream_id()
        fields = [(":method", request["method"]), (":scheme", "https"), (":authority", request["host"]), (":path", request["path"])]
        self._h2.send_headers(stream, fields, end_stream=True)
        self._writer.write(self._h2.data_to_send())
        status, app, body, is_done, is_kept = 0, None, b"", False, True
        while not is_done:
            data = await self._reader.read(1 << 16)
            if not data:
                raise FailureError("closed", "in the middle of a stream")
            events = self._events(data)
            if self._last_stream is not None:
                if self._last_stream < stream:  # the server says that it has not seen this stream, and never will
                    raise GoingAwayError
                is_kept = False
            for event in events:
                match event:
                    case h2.events.ResponseReceived():
                        found = {str(name): str(value) for name, value in event.headers}
                        status, app = int(found[":status"]), found.get("x-app")
                    case h2.events.DataReceived():
                        body += event.data
                        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamReset():
                        raise FailureError("reset", f"error code {event.error_code}")
                    case h2.events.ConnectionTerminated():
                        is_kept = False
                    case h2.events.StreamEnded():
                        is_done = True
            self._writer.write(self._h2.data_to_send())
        self.check(request, status, app, body)
        return is_kept


class WebSocketClient(Client):
    """A WebSocket (RFC 6455) that stays open; a request is a frame and its echo."""

    async def was_closed_idle(self) -> bool:
        """Never in order: it ends by a Close frame."""
        return False

    async def opened(self, request: dict[str, Any]) -> None:
        assert self._writer is not None
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {request['path']} HTTP/1.1", f"Host: {request['host']}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self._writer.write("\r\n".join(lines).encode("latin-1"))
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise FailureError("no upgrade", head[:200].decode("latin-1"))

    async def exchange(self, request: dict[str, Any]) -> bool:
        assert self._writer is not None
        payload, mask = os.urandom(32), os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._writer.write(struct.pack("!BB", 0x82, 0x80 | len(payload)) + mask + masked)
        try:
            head = await self._reader.readexactly(2)
            echoed = await self._reader.readexactly(head[1] & 0x7F)
        except asyncio.IncompleteReadError:
            raise FailureError("closed", "the WebSocket ended") from None
        if head[0] & 0x0F == 8 and echoed[:2] == struct.pack("!H", 1001):
            self._writer.write(struct.pack("!BB", 0x88, 0x80 | len(echoed)) + bytes(4) + echoed)  # masked by zeros
            raise GoingAwayError
        if (head[0] & 0x0F, echoed) != (2, payload):
            raise FailureError("malformed", f"opcode {head[0] & 0x0F}, {len(echoed)} bytes")
        return True


CLIENTS = {"http1": Http1Client, "h2": Http2Client, "websocket": WebSocketClient}


async def main(plan: dict[str, Any]) -> None:
    """Run every connection of the plan until SIGTERM."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopping.set)
    tally = Tally()
    clients = [CLIENTS[plan["protocol"]](plan, tally, stopping) for _ in range(plan["connections"])]
    async with asyncio.TaskGroup() as tasks:
        for number, client in enumerate(clients):
            tasks.create_task(client.run(number))
        while not stopping.is_set():
            print(json.dumps(tally.report(final=False)), flush=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROGRESS_S):
                    await stopping.wait()
    print(json.dumps(tally.report(final=True)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
