"""The admin endpoint: health with reasons, metrics, explain and dump, over HTTP on an address of its own.  Reads, never changes.

    GET /livez                    200 unless starting the process again would help (liveness.py), else 503 with reasons
    GET /readyz[?wait=S][&version=N]
                                  200 when ready, and at table version N or later, else 503 with reasons; waits up to S seconds
    GET /metrics                  Prometheus text format
    GET /explain?url=URL          what would become of a request, and why, as JSON
    GET /dump                     the table as the controller believes it published, as JSON; no secrets
    GET /conditions               every condition against an object, as JSON

Loopback by default; nothing here is for the traffic ports.  Bounded: requests at a time, request size, time per connection.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from atsk8s.controller import Controller
from atsk8s.errors import SettingsError
from atsk8s.listening import listening_ports, ports_of
from atsk8s.metrics import Counters, Saves
from atsk8s.model.ir import Condition
from atsk8s.source.interface import KindStatus
from atsk8s.threads import Keeper

_log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 32
CONNECTION_TIMEOUT_S: Final = 10.0
WAIT_MAX_S: Final = 60.0
HEARTBEAT_MAX_S: Final = 30.0  # a controller that was not round its loop for this long hangs
POLL_S: Final = 0.02  # of /readyz?wait=


class Core(Counters, Protocol):
    """What admin asks of the C core (bridge/core.py)."""

    def decide(self, authority: str, path: str) -> Mapping[str, object]:
        """What the published table says of a request, as C answers it."""
        ...

    def server_ports(self) -> str:
        """proxy.config.http.server_ports: the traffic ports that Traffic Server was told to open."""
        ...


class Admin:
    """The endpoint's server, on threads of its own."""

    def __init__(
        self,
        address: tuple[str, int],
        controller: Controller,
        core: Core,
        saves: Callable[[], Saves] | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        """Binds at once.

        Raises:
            SettingsError: the address cannot be bound.
        """
        self._controller = controller
        self._core = core
        self._saves = saves
        self._keeper = keeper or Keeper()
        try:
            self._server = _Server(address, self)
        except OSError as error:
            host, port = address
            raise SettingsError(
                f"option --admin: cannot listen on {host} port {port}: {error.strerror}; "
                "choose another ADDRESS:PORT that is free, or --admin=off"
            ) from error

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._keeper.keep(self._server.serve_forever, name="atsk8s-admin", purpose="admin")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- what it answers: (status, content type, body) ------------------------------------------------------------------------

    def answer(self, target: str) -> tuple[int, str, bytes]:
        url = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(url.query, max_num_fields=16).items()}
        match url.path:
            case "/livez":
                age = self._controller.heartbeat_age_s()
                faults = [f"the controller was last seen {age:.0f} s ago"] if age > HEARTBEAT_MAX_S else []
                faults += self._controller.liveness_faults()
                return _text(503 if faults else 200, "\n".join(faults) or "ok")
            case "/readyz":
                return self._readyz(query)
            case "/metrics":
                # Imported when somebody asks: the library costs a start 50 ms.
                from atsk8s import exposition

                return 200, exposition.CONTENT_TYPE, exposition.exposition(self._controller, self._core, self._saves)
            case "/explain":
                return self._explain(query)
            case "/dump":
                return _json(200, self._controller.inspect(lambda model: model.dump()))
            case "/conditions":
                return _json(200, [_condition(c) for c in self._controller.conditions()])
        return _text(404, "there is /livez, /readyz, /metrics, /explain?url=URL, /dump, /conditions")

    def _readyz(self, query: Mapping[str, str]) -> tuple[int, str, bytes]:
        try:
            wait_s = min(float(query.get("wait", "0")), WAIT_MAX_S)
            version = int(query.get("version", "0"))
        except ValueError:
            return _text(400, "wait is seconds, version is a table version")
        deadline = time.monotonic() + wait_s
        while True:
            faults = self._unready(version)
            if not faults or time.monotonic() >= deadline:
                break
            threading.Event().wait(POLL_S)
        lines = [f"not ready: {fault}" for fault in faults] or ["ready"]
        report = self._controller.report
        if report.degraded_s is not None:
            lines.append(f"degraded: serving the last good state, {report.degraded_s:.0f} s old; {report.reason or 'starting'}")
        lines += [_kind_line(kind) for kind in self._controller.kinds()]
        lines.append(f"table version {self._controller.report.version}")
        return _text(503 if faults else 200, "\n".join(lines))

    def _unready(self, version: int) -> list[str]:
        report = self._controller.report
        faults = [] if report.ready else [report.reason]
        faults += [
            f"port {port} (proxy.config.http.server_ports) is not open in this process: is another one using it? "
            "stop that or choose another port, then start again"
            for port in sorted(set(ports_of(self._core.server_ports())) - listening_ports())
        ]
        if report.version < version:
            faults.append(f"table version is {report.version}, asked for {version}")
        return faults

    def _explain(self, query: Mapping[str, str]) -> tuple[int, str, bytes]:
        url = urlsplit(query.get("url", ""))
        if not url.netloc:
            return _text(400, "give the request as /explain?url=http://HOST/PATH")
        decision = dict(self._core.decide(url.netloc, url.path or "/"))
        endpoints = decision.get("endpoints")
        if isinstance(endpoints, list):
            decision["endpoints"] = self._controller.endpoint_health.described(endpoints)
        decision.update(self._controller.inspect(lambda model: model.explain(url.netloc, url.path or "/")))
        return _json(200, decision)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], admin: Admin) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.admin = admin
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)  # too many at a time: this one is closed, the others go on

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        _log.debug("admin connection failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CONNECTION_TIMEOUT_S
    server_version = "atsk8s"
    sys_version = ""

    def do_GET(self) -> None:
        try:
            status, content_type, body = self.server.admin.answer(self.path)
        except Exception:
            _log.exception("admin answer failed", extra={"path": self.path[:200]})
            status, content_type, body = _text(500, "failed; the log says why")
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Probes come every few seconds; they are not worth a line each."""


def _kind_line(kind: KindStatus) -> str:
    return f"{kind.name}: {'synced' if kind.synced else 'not synced'}" + (f" ({kind.reason})" if kind.reason else "")


def _condition(condition: Condition) -> dict[str, object]:
    return {
        "kind": condition.object.kind,
        "namespace": condition.object.namespace,
        "name": condition.object.name,
        "reason": str(condition.reason),
        "message": condition.message,
        "fatal": condition.fatal,
    }


def _text(status: int, text: str) -> tuple[int, str, bytes]:
    return status, "text/plain; charset=utf-8", (text + "\n").encode()


def _json(status: int, value: object) -> tuple[int, str, bytes]:
    return status, "application/json", (json.dumps(value, indent=1) + "\n").encode()
