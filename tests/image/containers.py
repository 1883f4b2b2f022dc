"""Containers of the image, each in the network, PID and mount namespaces of a PodNet: nothing of it is left when the test run ends,
however it ends.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import podnet
from tests.harness.processes import await_condition
from tests.image.pod import HOST

# The first run makes a base and downloads packages; the limit of one test has to cover it.
RUNS_CONTAINERS = [pytest.mark.integration, pytest.mark.timeout(1800)]

CLIENT_IP = "10.244.9.9"  # a pod, so that nothing is allowed for being loopback
COMMAND_TIMEOUT_S = 60.0

# What a hardened Pod asks for: read-only root, no capability, no way to gain one, and a noexec tmpfs.
HARDENED = (
    "--user=10001:0",
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/run/ats:rw,nosuid,nodev,noexec,mode=1777,size=64m",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container that was started, and the network it is in."""

    net: podnet.PodNet
    podman: list[str]
    name: str

    def call(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman where the container is."""
        return self.net.run([*self.podman, *arguments], check=check, timeout_s=COMMAND_TIMEOUT_S)

    def shell(self, script: str) -> str:
        """Return what a shell script prints inside the container."""
        return self.call("exec", self.name, "sh", "-c", script).stdout

    def logs(self) -> tuple[str, str]:
        """Return what was written to stdout and stderr so far."""
        done = self.call("logs", self.name)
        return done.stdout, done.stderr

    def exit_status(self) -> int:
        """Return the exit status of the stopped container."""
        state = json.loads(self.call("inspect", "--format={{json .State}}", self.name).stdout)
        assert state["Status"] in ("exited", "stopped"), state
        return int(state["ExitCode"])

    def await_ready(self) -> None:
        """Wait until the health path answers 200."""

        def probe() -> bool:
            state = self.call("inspect", "--format={{.State.Status}}", self.name).stdout.strip()
            if state not in ("running", "created", "initialized"):
                pytest.fail(f"the container is {state}; it said:\n{''.join(self.logs())}")
            return fetch(self.net, "/__trafficserver_alive")[0] == 200

        await_condition("the container's health path answers 200", probe, timeout_s=60)


@contextlib.contextmanager
def container(
    net: podnet.PodNet, podman: list[str], image: str, *arguments: str, options: Sequence[str] = HARDENED
) -> Generator[Container]:
    """Run the image with `arguments` while the block runs; `options` are podman's."""
    name = f"atsk8s-test-{os.getpid()}-{next(_numbers)}"
    made = Container(net=net, podman=podman, name=name)
    # No timer for HEALTHCHECK: podman makes it with systemd, which is not everywhere.
    fixed = ["--detach", f"--name={name}", "--pull=never", "--network=host", "--log-driver=k8s-file"]
    try:
        made.call("run", *fixed, *options, image, *arguments)
        yield made
    finally:
        made.call("rm", "--force", "--volumes", "--time=1", "--ignore", name, check=False)


def run_to_its_end(podman: list[str], image: str, *arguments: str, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a container that ends by itself, and return what it said."""
    with podnet.PodNet() as net:
        name = f"atsk8s-test-{os.getpid()}-{next(_numbers)}"
        fixed = ["--rm", f"--name={name}", "--pull=never", "--network=host", "--no-healthcheck"]
        command = [*podman, "run", *fixed, *options, image, *arguments]
        return net.run(command, check=False, timeout_s=COMMAND_TIMEOUT_S)


def remove_abandoned(podman: Sequence[str]) -> None:
    """Remove the containers of test runs that were killed."""
    listed = subprocess.run(
        [*podman, "ps", "-a", "--filter=name=^atsk8s-test-", "--format={{.Names}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    for name in listed.stdout.split():
        if not Path(f"/proc/{name.split('-')[2]}").exists():
            subprocess.run([*podman, "rm", "-f", "-v", "--time=0", name], capture_output=True, check=False)


def fetch(
    net: podnet.PodNet, path: str, *, host: str = HOST, method: str = "GET", tls: ssl.SSLContext | None = None
) -> tuple[int, str]:
    """Send one request from CLIENT_IP to the node and return status and body."""
    sock: socket.socket = net.connect(podnet.NODE_IP, 8443 if tls else 8080, source=CLIENT_IP)
    if tls is not None:
        sock = tls.wrap_socket(sock, server_hostname=host)
    connection = http.client.HTTPConnection(host)
    connection.sock = sock
    try:
        connection.request(method, path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error  # "not yet", for those who wait
    finally:
        connection.close()
