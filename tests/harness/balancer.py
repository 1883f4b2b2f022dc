"""A balancer in front of several servers, as Kubernetes is one: starts balancer_server.py in a Place, and asks it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness import processes

_PROGRAM = Path(__file__).with_name("balancer_server.py")


class Balanced:
    """Starts a balancer in a Place, and asks it.  Use it as a context manager."""

    def __init__(
        self,
        instances: Sequence[tuple[str, Sequence[int]]],
        *,
        health_path: str,
        ip: str,
        place: processes.Place,
        directory: Path,
        period_s: float = 0.5,
        delay_s: float = 0.5,
    ) -> None:
        """Prepare.

        Args:
            instances: address and ports of each, the port that answers the health path first; all have the same number of ports.
            health_path: 200 means ready.
            ip: to listen on, one port for each of an instance's.
            place: a processes.Place.
            directory: for the log.
            period_s: between probes.
            delay_s: from a probe's finding to its effect.
        """
        self._place, self._directory, self._ip = place, directory, ip
        self.ports = processes.free_ports(place, ip, len(instances[0][1]))
        (self._control_port,) = processes.free_ports(place, "127.0.0.1", 1)
        self._plan = {
            "listen": [[ip, port, [[address, ports[n]] for address, ports in instances]] for n, port in enumerate(self.ports)],
            "health": [[address, ports[0]] for address, ports in instances],
            "path": health_path,
            "period_s": period_s,
            "delay_s": delay_s,
            "control": ["127.0.0.1", self._control_port],
        }

    def __enter__(self) -> Self:
        """Start it."""
        command = [sys.executable, "-I", str(_PROGRAM), json.dumps(self._plan)]
        self._child = processes.start(self._place, command, name="balancer", log_path=self._directory / "balancer.log")
        self._child.await_ready("it listens", lambda: processes.is_listening(self._place, "127.0.0.1", self._control_port))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it."""
        self._child.kill()

    def which(self) -> list[bool]:
        """Which instances get new connections."""
        with processes.connect(self._place, "127.0.0.1", self._control_port) as sock:
            return [bool(one) for one in json.loads(sock.makefile().readline())]
