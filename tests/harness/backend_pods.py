"""The pods of one process of backends: how each behaves, what happened at it, and what the control address says of them."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import TYPE_CHECKING

from tests.harness.backend_request import Behaviour, Request, parsed_behaviour

if TYPE_CHECKING:
    from tests.harness.backend_connection import Connection

MAX_REMEMBERED_REQUESTS = 10_000
BACKLOG = 4096


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
                self.pods[request.wants("pod")].behaviour = parsed_behaviour(request.wants("behaviour"))
                return {}
        return None


def address_name(host: str, port: int) -> str:
    """Return ADDR:PORT, with IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ADDR:PORT.  Raises ValueError."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
