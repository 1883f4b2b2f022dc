#!/opt/atsk8s/venv/bin/python3 -IS
"""Keeps one program running: starts it, passes signals on, starts it again at once when it was killed or has crashed.

`supervisor.py PROGRAM ARGUMENT…` ends with the program's own status when that ended by itself or was told to.  A program that
crashes again and again is given up, so that whoever supervises us sees it: after CRASHES_MAX deaths by signal within
CRASHES_WINDOW_S the status is 128 and the signal's number.  A status other than 0 is a start that was refused, or a decision of
the program: it is passed up, and not tried again.

The ports of PROXY_CONFIG_HTTP_SERVER_PORTS are opened here and handed down (`fd=`, as traffic_manager does), so that clients who
connect while there is no server wait for the next one in the kernel's queue, and are not refused.

Only the standard library, and little of it: it lives as long as the container, beside a server that wants the memory.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

CRASHES_MAX = 5
CRASHES_WINDOW_S = 60.0
PORTS = "PROXY_CONFIG_HTTP_SERVER_PORTS"
BACKLOG = 1024
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def say(text: str) -> None:
    """One line on stderr, where a container's log is."""
    print(f"atsk8s: {text}", file=sys.stderr, flush=True)


def with_ports(environment: Mapping[str, str]) -> tuple[dict[str, str], list[socket.socket]]:
    """Open the ports that the environment names, and name their descriptors in it; keep the sockets as long as they are to live.

    A port that cannot be opened is left to the program, which says why.
    """
    held: list[socket.socket] = []
    descriptors = []
    for descriptor in re.split(r"[\s,]+", environment.get(PORTS, "").strip()):
        opened = open_port(descriptor) if descriptor else None
        if opened is not None:
            held.append(opened)
            descriptor += f":fd={opened.fileno()}"
        descriptors.append(descriptor)
    return {**environment, **({PORTS: " ".join(descriptors)} if held else {})}, held


def open_port(descriptor: str) -> socket.socket | None:
    """A listening socket for one port of proxy.config.http.server_ports, None for what is none, or is not to be had."""
    number = re.search(r"(?:^|:)([0-9]{1,5})(?::|$)", descriptor)
    if number is None or re.search(r"(^|:)(fd=|quic|tr-|plugin)", descriptor):
        return None
    bound = re.search(r"(?:^|:)ip-in=(\[[^]]*\]|[^:]*)", descriptor)
    address = bound.group(1).strip("[]") if bound else ""
    is_six = ":" in address or re.search(r"(?:^|:)ipv6(?::|$)", descriptor) is not None
    try:
        opened = socket.socket(socket.AF_INET6 if is_six else socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_six:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, int(number.group(1))))
        opened.listen(BACKLOG)
    except (OSError, OverflowError):
        opened.close()
        return None
    opened.set_inheritable(True)
    return opened


def supervise(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command` until it ends by itself, was told to end, or crashes too often; return the status to end with."""
    signals = {*FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # nothing is lost between two looks
    crashes: list[float] = []
    is_ending = False
    pid = start(command, environment, before)
    while True:
        number = signal.sigwaitinfo(signals).si_signo
        if number != signal.SIGCHLD:
            is_ending = is_ending or number in ENDING
            os.kill(pid, number)
            continue
        status = None
        while True:  # several children may have ended and share one signal; those that are not ours were left to us
            try:
                ended, found = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if ended == 0:
                break
            if ended == pid:
                status = os.waitstatus_to_exitcode(found)
        if status is None:
            continue
        if is_ending or status >= 0:
            return status if status >= 0 else 128 - status
        now = time.monotonic()
        crashes = [at for at in crashes if now - at < CRASHES_WINDOW_S] + [now]
        if len(crashes) > CRASHES_MAX:
            say(f"{command[0]} died of signal {-status}, {len(crashes)} times within {CRASHES_WINDOW_S:g} s: given up")
            return 128 - status
        say(f"{command[0]} died of signal {-status}: starting it again")
        pid = start(command, environment, before)


def start(command: Sequence[str], environment: Mapping[str, str], mask: Iterable[int]) -> int:
    """Start the program with the signal mask that we were started with; return its id."""
    return os.posix_spawn(command[0], list(command), environment, setsigmask=mask)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        say("usage: supervisor.py PROGRAM [ARGUMENT...]")
        sys.exit(2)
    try:
        environment, sockets = with_ports(os.environ)
        sys.exit(supervise(sys.argv[1:], environment))
    except OSError as error:
        say(f"cannot start {sys.argv[1]}: {error.strerror}")
        sys.exit(2)
