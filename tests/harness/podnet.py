"""A throw-away pod network in one network namespace: any pod address can be bound, and each can be made to fail.

Everything lives in a net, PID and mount namespace (and, without root, a user namespace) whose first process ends with
this one: when the test run ends, even by SIGKILL, every process inside dies and the namespaces are freed.  Nothing is
written to /run/netns; no interface, route or firewall rule is made outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import ipaddress
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness import processes

POD_CIDRS = ("10.244.0.0/16", "fd00:10:244::/56")
SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")

# The first address of each prefix is "the node": the source of local clients.
NODE_IP = "10.244.0.1"
NODE_IP6 = "fd00:10:244::1"

_PROGRAMS = ("ip", "nft", "nsenter", "unshare", "setpriv", "mount", "ss")
_CLONE_NEWNET = 0x40000000
_HARNESS = Path(__file__).parent

# A command here configures the kernel and takes milliseconds; what takes longer hangs.
_COMMAND_TIMEOUT_S = 30.0

_SOCKET_REQUESTS = {
    (socket.AF_INET, socket.SOCK_STREAM): b"4",
    (socket.AF_INET6, socket.SOCK_STREAM): b"6",
    (socket.AF_INET, socket.SOCK_DGRAM): b"u",
    (socket.AF_INET6, socket.SOCK_DGRAM): b"v",
}

# dead: dropped without a word, so that connect() times out and open connections fall silent.  At prerouting, priority
# raw: before anything else could answer.  rst: every segment is answered by a reset.
_NFTABLES = """
table inet podnet {
  set dead4 { type ipv4_addr; flags interval; }
  set dead6 { type ipv6_addr; flags interval; }
  set rst4 { type ipv4_addr; flags interval; }
  set rst6 { type ipv6_addr; flags interval; }
  chain drop_dead { type filter hook prerouting priority -300; policy accept;
    ip daddr @dead4 counter drop
    ip saddr @dead4 counter drop
    ip6 daddr @dead6 counter drop
    ip6 saddr @dead6 counter drop
  }
  chain answer_reset { type filter hook input priority 0; policy accept;
    ip daddr @rst4 tcp flags & rst == 0 counter reject with tcp reset
    ip6 daddr @rst6 tcp flags & rst == 0 counter reject with tcp reset
  }
}
"""


class PodNetError(Exception):
    """The namespaces could not be made or configured; the text says which step failed and what the kernel said."""


@functools.cache
def unavailable_reason(*, needs_delay: bool = False) -> str | None:
    """Say why this machine cannot make a PodNet, or None when it can; found out by making one.

    Args:
        needs_delay: also require what PodNet.delay needs.
    """
    programs = (*_PROGRAMS, "iptables", "ip6tables") if needs_delay else _PROGRAMS
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt packages iproute2, nftables, iptables, util-linux, mount)"
    try:
        with PodNet() as net:
            if needs_delay:
                with net.delay("10.244.255.254", 0):
                    pass
    except (PodNetError, OSError) as error:
        return f"no private network namespace: {error}"
    return None


class PodNet:
    """One pod network; a processes.Place.  Use it as a context manager.

    Every method may be called from any thread.  Works as root, and as any user where unprivileged user namespaces are
    allowed.  `entered` alone needs root.
    """

    def __init__(self, cidrs: Sequence[str] = (*POD_CIDRS, *SERVICE_CIDRS)) -> None:
        """Prepare a network in which every address of `cidrs` (IPv4 and IPv6 prefixes) can be bound."""
        self._cidrs = tuple(cidrs)
        self._is_root = os.geteuid() == 0
        self._queue_numbers = itertools.count(1)
        self._socket_lock = threading.Lock()

    def __enter__(self) -> Self:
        """Make the namespaces.  Raises PodNetError."""
        ours, theirs = socket.socketpair()
        become_root = [] if self._is_root else ["--user", "--map-root-user"]
        # A namespace without DNS still finds the machine's resolv.conf; an empty one lets look-ups fail at once.
        script = 'mount --bind /dev/null /etc/resolv.conf 2>/dev/null; exec "$@"'
        init = [sys.executable, "-I", "-S", str(_HARNESS / "podnet_init.py"), str(theirs.fileno())]
        namespaces = ["--net", "--pid", "--mount", "--fork", "--kill-child=KILL", "--mount-proc"]
        with theirs:
            self._holder = subprocess.Popen(
                ["unshare", *become_root, *namespaces, "--propagation=private", "sh", "-c", script, "sh", *init],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C on the test run must not end the network before its tests do
            )
        self._control = ours
        try:
            ours.settimeout(_COMMAND_TIMEOUT_S)
            if ours.recv(1) != b"+":
                assert self._holder.stderr is not None
                raise PodNetError(f"unshare: {self._holder.stderr.read().decode(errors='replace').strip()}")
            self._init_pid = _only_child(self._holder.pid)
            self._net_fd = os.open(f"/proc/{self._init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._configure()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Kill everything inside and free the namespaces."""
        self._control.close()
        self._holder.kill()
        self._holder.wait()
        if self._holder.stderr is not None:
            self._holder.stderr.close()
        if hasattr(self, "_net_fd"):
            os.close(self._net_fd)
            del self._net_fd

    def _configure(self) -> None:
        self._configured(["ip", "link", "set", "lo", "up"])
        # IPv4 lets a socket bind any address of a local route; IPv6 wants ip_nonlocal_bind for it.  Low ports are for
        # everybody: the test process binds its sockets without privilege in the namespace.
        for name, value in (("ipv6/ip_nonlocal_bind", 1), ("ipv4/ip_unprivileged_port_start", 0)):
            self._configured(["sh", "-c", f"echo {value} > /proc/sys/net/{name}"])
        for cidr in self._cidrs:
            node = next(ipaddress.ip_network(cidr).hosts())
            family, *no_dad = ("-6", "nodad") if node.version == 6 else ("-4",)
            self._configured(["ip", family, "addr", "add", str(node), "dev", "lo", *no_dad])
            # Without src the kernel takes the destination as the source too, and a rule about a pod's address would hit
            # both directions of its connections.
            self._configured(["ip", family, "route", "add", "local", cidr, "dev", "lo", "src", str(node)])
        self._configured(["nft", "-f", "-"], text=_NFTABLES)

    def _configured(self, command: Sequence[str], *, text: str = "") -> None:
        done = self.run(command, check=False, text=text)
        if done.returncode != 0:
            raise PodNetError(f"{' '.join(command)}: {done.stderr.strip() or f'status {done.returncode}'}")

    # --- processes ------------------------------------------------------------------------------

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` inside; it dies with the command that entered for it."""
        user = [] if self._is_root else ["--user", "--preserve-credentials"]
        enter = ["nsenter", "--target", str(self._init_pid), *user, "--net", "--pid", "--mount", "--"]
        return [*enter, "setpriv", "--pdeathsig", "KILL", "--", *command]

    def process_id(self, popen: subprocess.Popen[bytes]) -> int:
        """Return the id of the command itself: nsenter forks to enter the PID namespace and passes no signal on."""

        def forked_id() -> int:
            if popen.poll() is not None:
                raise processes.ProcessError(f"the command has ended with status {popen.returncode}")
            return _only_child(popen.pid)

        return processes.await_condition("nsenter has forked", forked_id, timeout_s=5)

    def run(
        self, command: Sequence[str], *, check: bool = True, text: str = "", timeout_s: float = _COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` inside to its end, with `text` as its stdin, and return its status and output.

        Raises:
            subprocess.CalledProcessError: `check` and a status other than 0.
            subprocess.TimeoutExpired: killed after `timeout_s` seconds.
        """
        return subprocess.run(self.argv(command), check=check, capture_output=True, text=True, input=text, timeout=timeout_s)

    def popen(self, command: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start `command` inside with stdout and stderr as one pipe, for talking to it; else use processes.start."""
        return subprocess.Popen(self.argv(command), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def signal(self, popen: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Send a signal to what `popen` runs; nothing happens when it has ended."""
        _child(self, popen).signal(number)

    def stop(self, popen: subprocess.Popen[bytes], *, timeout_s: float = 5.0) -> int:
        """End what `popen` runs: SIGTERM, after `timeout_s` SIGKILL; close its pipes and return its status."""
        self.signal(popen, signal.SIGTERM)
        try:
            popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _child(self, popen).kill()
        for pipe in (popen.stdin, popen.stdout):
            if pipe is not None:
                pipe.close()
        return popen.returncode

    # --- sockets --------------------------------------------------------------------------------

    def open_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """Return a new socket that belongs to the namespace, for good.  Raises OSError."""
        with self._socket_lock:
            self._control.sendall(_SOCKET_REQUESTS[family, kind])
            answer, fds, _, _ = socket.recv_fds(self._control, 16, 1)
        if not fds:
            number = int(answer or b"0")
            raise OSError(number, os.strerror(number) if number else "the pod network is gone")
        return socket.socket(fileno=fds[0])

    def listen(self, ip: str, port: int, *, backlog: int = 64) -> socket.socket:
        """Return a listening TCP socket inside; port 0 takes a free one."""
        return processes.listen(self, ip, port, backlog=backlog)

    def connect(self, ip: str, port: int, *, timeout_s: float = 15.0, source: str | None = None) -> socket.socket:
        """Return a TCP connection made inside, from the address `source` or the node's.  Raises OSError."""
        return processes.connect(self, ip, port, timeout_s=timeout_s, source=source)

    @contextlib.contextmanager
    def entered(self) -> Generator[None]:
        """Move the calling thread into the network namespace: for libraries that make their own sockets.

        Threads and processes started inside the block stay in.  Needs root (setns(2)); everything else here does not.

        Raises:
            OSError: refused.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(self._net_fd, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns into the pod network")
            try:
                yield
            finally:
                if libc.setns(outside, _CLONE_NEWNET) != 0:
                    os.abort()  # this thread would go on in the wrong network
        finally:
            os.close(outside)

    # --- failures, each of one address or prefix, until healed ------------------------------------

    def blackhole(self, ip: str) -> None:
        """Drop everything to and from `ip`: connects time out, open connections fall silent."""
        self._configured(["nft", "add", "element", "inet", "podnet", _set_name("dead", ip), f"{{ {ip} }}"])

    def reset(self, ip: str) -> None:
        """Answer every segment to `ip` by a reset: connects are refused, open connections end with an error."""
        self._configured(["nft", "add", "element", "inet", "podnet", _set_name("rst", ip), f"{{ {ip} }}"])

    def unreachable(self, ip: str) -> None:
        """Make connects to `ip` fail at once: EHOSTUNREACH for IPv4 and IPv6."""
        self._configured(["ip", *_ip_family(ip), "route", "add", "unreachable", ip, "table", "local"])

    def heal(self, ip: str) -> None:
        """End every failure of `ip` but a delay; legal when it has none."""
        for kind in ("dead", "rst"):
            self.run(["nft", "delete", "element", "inet", "podnet", _set_name(kind, ip), f"{{ {ip} }}"], check=False)
        self.run(["ip", *_ip_family(ip), "route", "del", "unreachable", ip, "table", "local"], check=False)

    def abort_connections(self, ip: str, port: int) -> None:
        """Abort the open connections to ip:port on both sides, whoever holds them (SOCK_DESTROY, `ss -K`)."""
        literal = f"[{ip}]" if ":" in ip else ip
        for end, port_end in (("dst", "dport"), ("src", "sport")):
            self._configured(["ss", "-K", "state", "connected", end, literal, port_end, "=", str(port)])

    @contextlib.contextmanager
    def delay(self, ip: str, delay_ms: float, *, loss: float = 0.0, seed: int = 0) -> Generator[None]:
        """Hold each packet to `ip` for `delay_ms` and drop the share `loss` (0 to 1), while the block runs.

        By iptables' NFQUEUE target and nfdelay.py: not every kernel has netem, nor nft's queue statement.

        Raises:
            PodNetError: the kernel or iptables cannot.
        """
        queue = str(next(self._queue_numbers))
        holder = self.popen([sys.executable, "-I", "-S", str(_HARNESS / "nfdelay.py"), queue, str(delay_ms), str(loss), str(seed)])
        try:
            assert holder.stdout is not None
            if holder.stdout.readline().strip() != b"ready":
                raise PodNetError("nfdelay did not get its netfilter queue")
            iptables = "ip6tables" if ":" in ip else "iptables"
            rule = ["PREROUTING", "-d", ip, "-j", "NFQUEUE", "--queue-num", queue, "--queue-bypass"]
            self._configured([iptables, "-w", "-t", "mangle", "-A", *rule])
            try:
                yield
            finally:
                self._configured([iptables, "-w", "-t", "mangle", "-D", *rule])
        finally:
            self.stop(holder)


def _child(net: PodNet, popen: subprocess.Popen[bytes]) -> processes.Child:
    return processes.Child(name="command", place=net, log_path=Path(os.devnull), popen=popen)


def _only_child(pid: int) -> int:
    """Return the id of the first child of `pid`, 0 if it has none (yet)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


def _set_name(kind: str, ip: str) -> str:
    return kind + ("6" if ":" in ip else "4")


def _ip_family(ip: str) -> list[str]:
    return ["-6"] if ":" in ip else ["-4"]
