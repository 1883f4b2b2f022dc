"""The pod network does what tests rely on: pod addresses answer, each failure shows as that failure and no other."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.harness import processes
from tests.harness.podnet import NODE_IP, NODE_IP6, PodNet, unavailable_reason

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason())),
]

POD_IPS = {"ipv4": ("10.244.1.5", "10.244.1.6"), "ipv6": ("fd00:10:244:1::5", "fd00:10:244:1::6")}
PORT = 8080


@pytest.fixture(scope="module")
def net() -> Generator[PodNet]:
    """One network for the module; every test heals what it broke."""
    with PodNet() as made:
        yield made


@pytest.fixture(params=sorted(POD_IPS))
def ips(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Two pod addresses of one family."""
    return POD_IPS[request.param]


@pytest.fixture
def listeners(net: PodNet, ips: tuple[str, str]) -> Generator[dict[str, socket.socket]]:
    """A listening socket on each of the two addresses."""
    made = {ip: net.listen(ip, PORT) for ip in ips}
    yield made
    for sock in made.values():
        sock.close()


def exchange(client: socket.socket, server: socket.socket) -> None:
    """Send one byte each way."""
    client.sendall(b"a")
    assert server.recv(1) == b"a"
    server.sendall(b"b")
    assert client.recv(1) == b"b"


def test_pod_addresses_answer_from_the_node(net: PodNet, ips: tuple[str, str], listeners: dict[str, socket.socket]) -> None:
    """Each pod sees the node as its client, unless the client chose a source."""
    node, other = (NODE_IP6 if ":" in ips[0] else NODE_IP), ips[1]
    for source, seen in ((None, node), (other, other)):
        with net.connect(ips[0], PORT, source=source) as client:
            server, peer = listeners[ips[0]].accept()
            with server:
                assert peer[0] == seen
                exchange(client, server)


def test_nobody_listening_is_refused(net: PodNet, ips: tuple[str, str]) -> None:
    """An address without a listener refuses at once."""
    with pytest.raises(ConnectionRefusedError):
        net.connect(ips[0], PORT)


def test_low_ports_can_be_bound(net: PodNet, ips: tuple[str, str]) -> None:
    """Port 80 of a pod is there for every user."""
    net.listen(ips[0], 80).close()


def test_reset_refuses_and_ends_open_connections(net: PodNet, ips: tuple[str, str], listeners: dict[str, socket.socket]) -> None:
    """A reset address refuses new connections and breaks open ones; the other address does not notice."""
    with net.connect(ips[0], PORT) as client:
        net.reset(ips[0])
        try:
            with pytest.raises(ConnectionRefusedError):
                net.connect(ips[0], PORT)
            client.sendall(b"a")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            net.connect(ips[1], PORT).close()
        finally:
            net.heal(ips[0])
    net.connect(ips[0], PORT).close()


def test_blackhole_silences_and_heals(net: PodNet, ips: tuple[str, str], listeners: dict[str, socket.socket]) -> None:
    """A blackholed address times out, an open connection falls silent and goes on once healed."""
    with net.connect(ips[0], PORT) as client:
        server, _ = listeners[ips[0]].accept()
        with server:
            net.blackhole(ips[0])
            try:
                with pytest.raises(TimeoutError):
                    net.connect(ips[0], PORT, timeout_s=0.2)
                client.sendall(b"late")
                server.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    server.recv(1)
                net.connect(ips[1], PORT).close()
            finally:
                net.heal(ips[0])
            server.settimeout(30)
            assert server.recv(4) == b"late"  # TCP sends again


def test_unreachable_fails_at_once(net: PodNet, ips: tuple[str, str]) -> None:
    """No route: the kernel says so without a wait, until healed."""
    net.unreachable(ips[0])
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
            net.connect(ips[0], PORT)
    finally:
        net.heal(ips[0])
    with pytest.raises(ConnectionRefusedError):
        net.connect(ips[0], PORT)


def test_abort_ends_open_connections(net: PodNet, ips: tuple[str, str], listeners: dict[str, socket.socket]) -> None:
    """Connections can be aborted under both ends' hands."""
    with net.connect(ips[0], PORT) as client:
        net.abort_connections(ips[0], PORT)
        with pytest.raises(ConnectionAbortedError):
            client.recv(1)


@pytest.mark.skipif(unavailable_reason(needs_delay=True) is not None, reason=str(unavailable_reason(needs_delay=True)))
def test_delay_holds_packets_of_one_address(net: PodNet, ips: tuple[str, str], listeners: dict[str, socket.socket]) -> None:
    """Every packet to the slow address waits; two delays at once do not mix; it ends with the block."""
    with net.delay(ips[0], 900), net.delay(ips[1], 1):
        began = time.monotonic()
        net.connect(ips[0], PORT).close()
        assert time.monotonic() - began >= 0.9
        net.connect(ips[1], PORT, timeout_s=0.85).close()
    net.connect(ips[0], PORT, timeout_s=0.85).close()


def test_paused_process_accepts_and_says_nothing(net: PodNet, tmp_path: Path) -> None:
    """SIGSTOP reaches the process inside: the handshake completes, no answer comes until SIGCONT."""
    ip = "10.244.4.4"
    command = [sys.executable, "-m", "http.server", "--bind", ip, str(PORT)]
    server = processes.start(net, command, name="server", log_path=tmp_path / "server.log", cwd=tmp_path)
    with processes.running(server):
        server.await_ready("server listens", lambda: processes.is_listening(net, ip, PORT))
        server.pause()
        with net.connect(ip, PORT, timeout_s=0.3) as client:
            client.sendall(b"GET /server.log HTTP/1.0\r\n\r\n")
            with pytest.raises(TimeoutError):
                client.recv(1)
            server.resume()
            client.settimeout(30)
            assert client.recv(15).startswith(b"HTTP/1.0 200")
    assert server.status == -signal.SIGTERM


def test_paused_process_can_be_killed(net: PodNet, tmp_path: Path) -> None:
    """SIGKILL ends what SIGSTOP holds, and its end is seen."""
    child = processes.start(net, ["sleep", "1000"], name="sleeper", log_path=tmp_path / "sleeper.log")
    child.pause()
    state = Path(f"/proc/{child.pid}/stat")
    processes.await_condition("the process is stopped", lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
    assert child.kill() == -signal.SIGKILL


def test_ended_child_is_reported_with_its_log(net: PodNet, tmp_path: Path) -> None:
    """Waiting for a process that fails to start does not take the whole time and shows what it said."""
    child = processes.start(net, ["sh", "-c", "echo no such thing; exit 3"], name="broken", log_path=tmp_path / "broken.log")
    with pytest.raises(processes.ProcessError, match=r"status 3(?s:.)*no such thing"):
        child.await_ready("never", lambda: False)


def test_entered_thread_moves_there_and_back(net: PodNet, listeners: dict[str, socket.socket]) -> None:
    """A library's own sockets are made inside while the thread is; afterwards it is outside again."""
    if os.geteuid() != 0:
        pytest.skip("setns(2) into a network namespace needs root")
    ip = next(iter(listeners))
    inside = net.run(["readlink", "/proc/self/ns/net"]).stdout.strip()
    with net.entered():
        assert str(Path("/proc/thread-self/ns/net").readlink()) == inside
        socket.create_connection((ip, PORT), timeout=5).close()
    assert str(Path("/proc/thread-self/ns/net").readlink()) != inside


def test_sockets_from_many_threads(net: PodNet) -> None:
    """Sockets may be asked for by several threads at once."""
    with net.listen("10.244.5.5", PORT, backlog=256) as listener:
        made: list[socket.socket] = []
        threads = [
            threading.Thread(target=lambda: made.extend(net.connect("10.244.5.5", PORT) for _ in range(8))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({sock.getsockname() for sock in made}) == 64
        for sock in made:
            sock.close()
        assert listener.getsockname() == ("10.244.5.5", PORT)


def namespace_processes(inode: int) -> list[int]:
    """Return the ids of the processes whose network namespace has this inode."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns/net").stat().st_ino == inode:
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended, or is not ours to see
    return found


@pytest.mark.parametrize("kill_owner", [False, True], ids=["exit", "sigkill"])
def test_nothing_survives(kill_owner: bool) -> None:
    """Whether the owner leaves the block or is SIGKILLed in it, every process inside ends."""
    script = (
        "import os, sys, signal\n"
        "from tests.harness.podnet import PodNet\n"
        "with PodNet() as net:\n"
        "    net.popen(['sleep', '1000'])\n"
        "    net.popen(['sh', '-c', 'setsid sleep 1000 & wait'])\n"
        "    child = net.popen(['readlink', '/proc/self/ns/net'])\n"
        "    print(child.stdout.readline().decode().strip(), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    root = Path(__file__).parents[2]
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdin is not None
    with owner, owner.stdin as life_line, owner.stdout as output:
        inode = int(output.readline().decode().removeprefix("net:[").rstrip("]\n"))
        assert namespace_processes(inode)
        if kill_owner:
            owner.kill()
        life_line.close()
        processes.await_condition("nobody is left inside", lambda: not namespace_processes(inode), timeout_s=10)
        owner.wait(10)
