"""Constant load on a server under test, of which every request is accounted for: a process in a Place, in its own words.

with Load([Request(host="app.test")], ip=..., port=..., place=net, directory=tmp_path) as load:
    ... break things ...
load.result.expect_no_failure(at_least=1000)
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from tests.harness import processes

Protocol: TypeAlias = Literal["http1", "h2", "websocket"]

_PROGRAM = Path(__file__).with_name("load_client.py")
_STARTED_TIMEOUT_S = 20.0
_LAST_LINES_BYTES = 1 << 16  # of the log: more than the longest line, and cheap to read fifty times a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request and the answer that it must get."""

    host: str
    path: str = "/"
    method: str = "GET"
    body: str = ""
    status: int = 200
    app: str | None = None  # X-App of the answer; None does not look


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of the requests up to one moment; latencies are known at the end alone."""

    n_ok: int
    n_connections: int
    failures: Mapping[str, int]  # by class: "connect", "closed", "timeout", "status 502", ...
    told: Sequence[Mapping[str, Any]] = field(repr=False)  # the first failures, one by one
    elapsed_s: float
    final: bool = False
    n_going_away: int = 0  # connections that the other side ended in order while a request was on its way
    n_closed_idle: int = 0  # connections that the other side closed between two requests
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0

    @property
    def n_failed(self) -> int:
        """How many requests did not get the expected answer."""
        return sum(self.failures.values())

    def expect_no_failure(self, *, at_least: int = 1) -> None:
        """Fail unless there were `at_least` requests, and each got its answer."""
        shown = "\n".join(str(dict(one)) for one in self.told[:10])
        assert not self.failures, f"{self.n_failed} of {self.n_ok + self.n_failed} requests failed: {dict(self.failures)}\n{shown}"
        assert self.n_ok >= at_least, f"only {self.n_ok} requests in {self.elapsed_s} s: the load did not run"


class Load:
    """Constant load while the block runs.  `result` afterwards; `now()` meanwhile."""

    def __init__(
        self,
        requests: Sequence[Request],
        *,
        ip: str,
        port: int,
        directory: Path,
        place: processes.Place = processes.LOOPBACK,
        protocol: Protocol = "http1",
        ca_file: Path | None = None,
        connections: int = 4,
        requests_per_s: float = 200.0,
        requests_per_connection: int = 0,
        timeout_s: float = 10.0,
        name: str = "load",
    ) -> None:
        """Prepare.

        Args:
            requests: sent in turn by every connection, each beginning with another one.
            ip: of the server.
            port: of the server.
            directory: exists; gets the log, `name`.log.
            place: where to run.
            protocol: http1 is keep-alive; a request of websocket is one frame and its echo.
            ca_file: PEM of who signed the server's certificate; speaks TLS with it (h2 always needs it).
            connections: how many at a time.
            requests_per_s: of all connections together; 0 is as fast as answers come.
            requests_per_connection: then a new one is made; 0 keeps it.  Over TLS another host needs another connection, too.
            timeout_s: of one request, connect and handshake included.
            name: what errors call it.
        """
        self._plan = {
            "requests": [dataclasses.asdict(request) for request in requests],
            "ip": ip,
            "port": port,
            "protocol": protocol,
            "tls": ca_file is not None,
            "ca_file": str(ca_file) if ca_file is not None else None,
            "connections": connections,
            "interval_s": connections / requests_per_s if requests_per_s else 0.0,
            "requests_per_connection": requests_per_connection,
            "timeout_s": timeout_s,
        }
        self._place, self._name, self._connections = place, name, connections
        self._log_path = directory / f"{name}.log"
        self._timeout_s = timeout_s
        self.result: Result | None = None

    def __enter__(self) -> Self:
        """Start, and wait until every connection's first request was answered, or one failed.  Raises processes.ProcessError."""
        self._log_path.unlink(missing_ok=True)
        command = [sys.executable, "-I", str(_PROGRAM), json.dumps(self._plan)]
        self._child = processes.start(self._place, command, name=self._name, log_path=self._log_path)
        try:
            self._child.await_ready(
                "the load runs",
                lambda: (now := self.now()).n_ok >= self._connections or now.failures,
                timeout_s=_STARTED_TIMEOUT_S,
            )
        except BaseException:
            self._child.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let requests under way end, and take the result; at once when the block failed."""
        if error is not None:
            self._child.kill()
            return
        self._child.stop(timeout_s=self._timeout_s + 5)
        self.result = self.now()
        if not self.result.final:
            raise processes.ProcessError(f"{self._name} ended without a result:\n{self._child.log()[-4000:]}")

    def now(self) -> Result:
        """Return what happened so far."""
        if self._child.status not in (None, 0):
            raise processes.ProcessError(f"{self._name} ended with {self._child.status}:\n{self._child.log()[-4000:]}")
        with self._log_path.open("rb") as log:
            log.seek(max(0, self._log_path.stat().st_size - _LAST_LINES_BYTES))
            lines = [line for line in log.read().splitlines() if line.startswith(b"{") and line.endswith(b"}")]
        if not lines:
            return Result(n_ok=0, n_connections=0, failures={}, told=(), elapsed_s=0.0)
        return Result(**json.loads(lines[-1]))

    def await_more(self, n_requests: int, *, timeout_s: float = 30.0) -> Result:
        """Wait for `n_requests` further good answers, or the first failure; return what happened so far."""
        goal = self.now().n_ok + n_requests

        def reached() -> Result | None:
            now = self.now()
            return now if now.n_ok >= goal or now.failures else None

        return processes.await_condition(f"{self._name}: {goal} requests answered", reached, timeout_s=timeout_s)

    @property
    def finished(self) -> Result:
        """The result, once the block has ended.  Raises AssertionError before."""
        assert self.result is not None, "the load still runs"
        return self.result
