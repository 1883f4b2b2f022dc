"""The container image at work: run read-only and without any privilege, and asked over HTTP and HTTPS."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.harness import podnet
from tests.harness.authority import Authority
from tests.harness.processes import await_condition
from tests.image.containers import HARDENED, RUNS_CONTAINERS, Container, container, fetch
from tests.image.pod import HOST, SNIPPET_HOST, SNIPPET_SAYS, Pod, pod

pytestmark = RUNS_CONTAINERS


@pytest.fixture(scope="module")
def proxy(podman: list[str], image: str, manifests: Path) -> Generator[Container]:
    """The image at work: hardened, over the manifests, with its pod."""
    volume = f"--volume={manifests}:/manifests:ro"
    with (
        podnet.PodNet() as net,
        pod(net),
        container(net, podman, image, "--manifests=/manifests", options=(*HARDENED, volume)) as made,
    ):
        made.await_ready()
        yield made


def test_routes_http(proxy: Container) -> None:
    assert fetch(proxy.net, "/a?b=c") == (200, f"GET /a?b=c {HOST}\n")
    assert fetch(proxy.net, "/a", host="unknown.test")[0] == 404


def test_allows_delete_but_no_trace(proxy: Container) -> None:
    assert fetch(proxy.net, "/a", method="DELETE")[0] == 200
    assert fetch(proxy.net, "/a", method="TRACE")[0] in (403, 405)


def test_routes_https_with_the_certificate_of_the_secret(proxy: Container, authority: Authority) -> None:
    assert fetch(proxy.net, "/secure", tls=authority.client_context()) == (200, f"GET /secure {HOST}\n")


def test_healthcheck_of_the_image_passes(proxy: Container, image: str) -> None:
    assert proxy.shell("/opt/atsk8s/bin/healthcheck").strip() == "http://127.0.0.1:8080/__trafficserver_alive: 200"
    declared = json.loads(proxy.call("image", "inspect", "--format={{json .HealthCheck}}", image).stdout)
    assert declared["Test"] == ["CMD", "/opt/atsk8s/bin/healthcheck"]


def test_every_process_is_unprivileged_and_the_root_read_only(proxy: Container) -> None:
    # The shell that asks is one of them: exec gets the container's own limits.
    statuses = proxy.shell("cat /proc/[0-9]*/status")
    fields = [line.split() for line in statuses.splitlines() if line.strip()]
    n_processes = sum(field[0] == "Pid:" for field in fields)

    assert n_processes >= 2
    for name in ("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"):
        assert {int(field[1], 16) for field in fields if field[0] == name} == {0}, name
    assert {tuple(field[1:]) for field in fields if field[0] == "Uid:"} == {("10001",) * 4}
    assert {field[1] for field in fields if field[0] == "NoNewPrivs:"} == {"1"}
    assert "Read-only" in proxy.shell("touch /etc/atsk8s/x 2>&1 || true")
    assert proxy.shell("find / -xdev -type f -perm /6000 2>/dev/null || true") == ""


def test_image_keeps_nothing_of_the_machine_that_built_it(proxy: Container) -> None:
    assert proxy.shell("ls /etc/pip.conf /run/host-ca.crt /root/.cache /src 2>/dev/null || true") == ""


def test_logs_go_to_stdout_and_stderr(proxy: Container) -> None:
    assert fetch(proxy.net, "/find-me-in-the-log")[0] == 200

    await_condition("the access log names the request", lambda: "/find-me-in-the-log" in proxy.logs()[0], timeout_s=20)
    stdout, stderr = proxy.logs()
    assert "traffic server running" in stderr
    assert "traffic server running" not in stdout


@pytest.mark.parametrize(
    ("variables", "arguments"), [(["--env=SNIPPET=1"], []), ([], ["--snippets"])], ids=["the ancestor's variable", "our argument"]
)
def test_snippets_run_once_they_are_turned_on(
    proxy: Container, podman: list[str], image: str, manifests: Path, variables: list[str], arguments: list[str]
) -> None:
    """tslua.so, which the entry point adds to the rule, works hardened, and without them nothing of it is there."""
    assert fetch(proxy.net, "/", host=SNIPPET_HOST)[0] == 200
    options = (*HARDENED, f"--volume={manifests}:/manifests:ro", *variables)
    with (
        podnet.PodNet() as net,
        pod(net),
        container(net, podman, image, "--manifests=/manifests", *arguments, options=options) as made,
    ):
        made.await_ready()

        status, body = fetch(net, "/", host=SNIPPET_HOST)
        assert (status, body.strip()) == (403, SNIPPET_SAYS), made.logs()[1]
        assert fetch(net, "/")[0] == 200


def test_runs_without_any_mount_or_flag(podman: list[str], image: str, manifests: Path) -> None:
    """`podman run IMAGE --manifests=DIR`: the run directory is under /tmp, the cache volume an anonymous one."""
    options = ("--cap-drop=ALL", f"--volume={manifests}:/manifests:ro")
    with (
        podnet.PodNet() as net,
        pod(net),
        container(net, podman, image, "--manifests=/manifests", options=options) as made,
    ):
        made.await_ready()

        assert fetch(net, "/")[0] == 200
        assert made.shell("stat -c %s /var/lib/trafficserver/cache.db").strip() == str(128 << 20)


def test_cache_outlives_the_container(podman: list[str], image: str, manifests: Path, tmp_path: Path) -> None:
    os.chown(tmp_path, 10001, 0)
    cache_file = tmp_path / "cache.db"
    options = (
        *HARDENED,
        f"--volume={manifests}:/manifests:ro",
        f"--volume={tmp_path}:/var/lib/trafficserver",
        "--env=TS_CACHE_SIZE=32",
        "--env=PROXY_CONFIG_CACHE_DIR_SYNC_FREQUENCY=1",  # [s]; 60 by default
    )
    n_before = Pod.n_cacheable
    with (
        podnet.PodNet() as net,
        pod(net),
        container(net, podman, image, "--manifests=/manifests", "--cache=on", options=options) as made,
    ):
        made.await_ready()
        # Traffic Server writes objects, then its directory of them, once a period: when an object of a later period is
        # in the file, the directory that names the first one is.
        for path in ("/cacheable/1", "/cacheable/2"):
            body = f"GET {path} {HOST}\n"
            assert fetch(net, path) == (200, body)
            is_on_disk = functools.partial(_holds, cache_file, body.encode())
            await_condition(f"{path} is on disk", is_on_disk, timeout_s=30)
        made.call("stop", "--time=20", made.name)
        assert made.exit_status() == 0
    assert cache_file.stat().st_size == 32 << 20

    with (
        podnet.PodNet() as net,
        pod(net),
        container(net, podman, image, "--manifests=/manifests", "--cache=on", options=options) as made,
    ):
        made.await_ready()
        assert fetch(net, "/cacheable/1") == (200, f"GET /cacheable/1 {HOST}\n")
    assert Pod.n_cacheable - n_before == 2


def _holds(file: Path, text: bytes) -> bool:
    return text in file.read_bytes()
