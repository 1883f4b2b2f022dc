"""How a container ends: at any moment, within its time, with exit status 0."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import http.server
import json
import signal
from pathlib import Path

import pytest

from tests.harness import podnet
from tests.harness.processes import await_condition
from tests.image.containers import COMMAND_TIMEOUT_S, HARDENED, RUNS_CONTAINERS, container, fetch
from tests.image.pod import HOST, Pod, pod

pytestmark = RUNS_CONTAINERS


@pytest.mark.parametrize("is_early", [False, True], ids=["when it serves", "at once"])
def test_sigterm_ends_it_with_0(podman: list[str], image: str, manifests: Path, *, is_early: bool) -> None:
    options = (*HARDENED, f"--volume={manifests}:/manifests:ro")
    with (
        podnet.PodNet() as net,
        container(net, podman, image, "--manifests=/manifests", options=options) as made,
    ):
        if not is_early:
            made.await_ready()
        made.call("kill", f"--signal={signal.SIGTERM.name}", made.name)
        made.call("wait", made.name)

        assert made.exit_status() == 0, made.logs()[1]


def test_sigterm_ends_it_while_it_waits_for_an_api_server(podman: list[str], image: str, tmp_path: Path) -> None:
    """The wait for a first table ends with the stop: 60 s of it would outlast every runtime's patience."""
    kubeconfig = tmp_path / "kubeconfig"
    parts = {
        "clusters": [{"name": "c", "cluster": {"server": "http://10.244.77.77:6443"}}],  # refuses: nobody is there
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **parts}))
    options = (*HARDENED, f"--volume={kubeconfig}:/kubeconfig:ro")
    with (
        podnet.PodNet() as net,
        container(net, podman, image, "--kubeconfig=/kubeconfig", "--start-timeout-ms=60000", options=options) as made,
    ):
        await_condition("it waits", lambda: "[atsk8s] not ready" in made.logs()[1])
        made.call("stop", "--time=20", made.name)

        assert made.exit_status() == 0, made.logs()[1]


def test_shutdown_timeout_lets_a_request_finish(podman: list[str], image: str, manifests: Path) -> None:
    options = (*HARDENED, f"--volume={manifests}:/manifests:ro", "--env=PROXY_CONFIG_STOP_SHUTDOWN_TIMEOUT=10")
    Pod.holding.clear()
    Pod.released.clear()
    with (
        podnet.PodNet() as net,
        pod(net),
        container(net, podman, image, "--manifests=/manifests", options=options) as made,
        concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool,
    ):
        made.await_ready()
        try:
            held = pool.submit(fetch, net, "/held")
            assert Pod.holding.wait(COMMAND_TIMEOUT_S)
            made.call("kill", f"--signal={signal.SIGTERM.name}", made.name)
            await_condition("it drains", lambda: _ends_keep_alive(net), timeout_s=8)
        finally:
            Pod.released.set()
        assert held.result(COMMAND_TIMEOUT_S) == (200, f"GET /held {HOST}\n")
        made.call("wait", made.name)

        assert made.exit_status() == 0, made.logs()[1]


def _ends_keep_alive(net: podnet.PodNet) -> bool:
    """Tell whether Traffic Server drains: it then answers a client that would go on with `Connection: close`."""
    connection = http.client.HTTPConnection(HOST)
    connection.sock = net.connect(podnet.NODE_IP, 8080)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().getheader("Connection") == "close"
