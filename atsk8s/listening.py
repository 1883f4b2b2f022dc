"""Which TCP ports this very process listens on.

A taken port is not fatal to Traffic Server: it logs a line and runs on without listening.  So readiness asks the kernel.
"""

import glob
import os
import re
from typing import Final

_LISTEN: Final = "0A"  # TCP_LISTEN in /proc/net/tcp: include/net/tcp_states.h


def ports_of(server_ports: str) -> list[int]:
    """The TCP ports of a `proxy.config.http.server_ports` value: descriptors apart by blanks or commas, options by colons."""
    ports = [field for descriptor in re.split(r"[\s,]+", server_ports) for field in descriptor.split(":") if field.isdigit()]
    return [int(port) for port in ports if 0 < int(port) < 65536]


def listening_ports() -> set[int]:
    """TCP ports on which this very process listens: what /proc/self/net says, kept to sockets that /proc/self/fd holds."""
    inodes: dict[str, int] = {}
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            with open(table, encoding="ascii") as lines:
                for line in lines:
                    words = line.split()
                    if len(words) > 9 and words[3] == _LISTEN:
                        inodes[words[9]] = int(words[1].rpartition(":")[2], 16)
        except OSError:
            continue  # no IPv6 in this kernel
    held: set[int] = set()
    for fd in glob.iglob("/proc/self/fd/*"):
        try:
            target = os.readlink(fd)
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            held |= {inodes[target[8:-1]]} if target[8:-1] in inodes else set()
    return held
