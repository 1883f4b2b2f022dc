"""Ports for the servers that are measured, from where nobody takes one by chance."""

from __future__ import annotations

import itertools
import os

from tests.harness import processes

# Below what Linux gives to connections and to servers that ask for any port (ip_local_port_range, from 32768): a port that is
# free here a moment ago is taken meanwhile by nobody but a server that was told to.
_FIRST, _N = 20_000, 12_000
_numbers = itertools.count(os.getpid() * 101)  # processes begin apart; within one, no port is given twice in 12,000


class PortError(RuntimeError):
    """Every port of the range is taken."""


def free(place: processes.Place) -> int:
    """Return a port of `place` at which nobody listens, on whatever address.  Raises PortError."""
    for number in itertools.islice(_numbers, _N):
        port = _FIRST + number % _N
        try:
            processes.listen(place, "0.0.0.0", port).close()  # for a moment, to see that nobody else does
        except OSError:
            continue
        return port
    raise PortError(f"no port from {_FIRST} to {_FIRST + _N - 1} is free")
