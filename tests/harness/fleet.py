"""Pods that come, go and fail while they serve: starts fleet_server.py in a Place and drives it."""

from __future__ import annotations

import sys
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness import processes
from tests.harness.backends import fetch

PORT = 8080
_PROGRAM = Path(__file__).with_name("fleet_server.py")


class Fleet:
    """One process that is many pods, all of them on PORT.  Use it as a context manager."""

    def __init__(self, *, directory: Path, place: processes.Place, name: str = "fleet") -> None:
        """Prepare; `directory` exists and gets the log."""
        self._directory, self._place, self._name = directory, place, name

    def __enter__(self) -> Self:
        """Start it, without a pod."""
        self._control_port = processes.free_ports(self._place, "127.0.0.1", 1)[0]
        command = [sys.executable, "-I", str(_PROGRAM), "--control", f"127.0.0.1:{self._control_port}"]
        log_path = self._directory / f"{self._name}.log"
        self.child = processes.start(self._place, command, name=self._name, log_path=log_path)
        self.child.await_ready("it listens", lambda: processes.is_listening(self._place, "127.0.0.1", self._control_port))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it at once."""
        self.child.kill()

    def start(self, app: str, ips: Iterable[str], *, behaviour: str = "") -> None:
        """Let pods listen."""
        self._control("/start", pod=_names(ips), app=app, behaviour=behaviour)

    def refuse(self, ip: str) -> None:
        """Accept no more; connections that are open stay."""
        self._control("/refuse", pod=_names([ip]))

    def listen(self, ip: str) -> None:
        """End refuse() or kill()."""
        self._control("/listen", pod=_names([ip]))

    def kill(self, ip: str) -> None:
        """Reset every connection, and refuse new ones: a container that was killed."""
        self._control("/kill", pod=_names([ip]))

    def terminate(self, ips: Iterable[str], *, accept_s: float) -> None:
        """What pods do at SIGTERM: accept for `accept_s` more (a preStop), then go in order.  Returns at once."""
        self._control("/terminate", pod=_names(ips), accept_ms=str(int(accept_s * 1000)))

    def behave(self, ips: Iterable[str], behaviour: str) -> None:
        """Change what pods do from the next request on; "" is normal."""
        self._control("/behave", pods=_names(ips), behaviour=behaviour)

    def n_requests(self, ip: str) -> int:
        """How many requests a pod has had."""
        return int(self._control("/counts")[_names([ip])]["requests"])

    def pods(self) -> set[str]:
        """The addresses that are not gone yet."""
        return {name.rpartition(":")[0] for name in self._control("/counts")}

    def executions(self) -> tuple[int, int]:
        """How many different POSTs with an id arrived, and how often the most frequent one did."""
        said = self._control("/executions")
        return int(said["ids"]), int(said["most"])

    def _control(self, target: str, **query: str) -> Any:
        answer = fetch(self._place, "127.0.0.1", self._control_port, f"{target}?{urllib.parse.urlencode(query)}")
        if answer.status != 200:
            raise AssertionError(f"{self._name}: {target} {query} answered {answer.status}\n{self.child.log()[-2000:]}")
        return answer.json()


def _names(ips: Iterable[str]) -> str:
    return ",".join(f"[{ip}]:{PORT}" if ":" in ip else f"{ip}:{PORT}" for ip in ips)
