"""The container image: built by docker/image.py, run read-only and without any privilege, and asked over HTTP and HTTPS.

Each container runs in the network, PID and mount namespaces of a PodNet: nothing of it is left when the test run ends,
however it ends.  The image is built once; its layers stay in the cache directory.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import datetime as dt
import functools
import http.client
import http.server
import importlib.util
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.harness import podnet
from tests.harness.processes import await_condition

# The first run makes a base and downloads packages; the limit of one test has to cover it.
pytestmark = [pytest.mark.integration, pytest.mark.image, pytest.mark.timeout(1800)]

CHECKOUT = Path(__file__).resolve().parents[2]
TAG = "localhost/atsk8s:test"
HOST = "shop.test"
POD_IP, POD_PORT = "10.244.1.5", 9001
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


def load_image_verb() -> ModuleType:
    """Return docker/image.py as a module; it is no package, because `build.py` loads it by its path."""
    spec = importlib.util.spec_from_file_location("image_verb", CHECKOUT / "docker/image.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


image_verb = load_image_verb()


# --- the image, its volume and its backend --------------------------------------------------------


@pytest.fixture(scope="module")
def podman() -> Generator[list[str]]:
    """The command line of podman with a store of its own, which survives and makes the next build quick."""
    if os.geteuid() != 0:
        pytest.skip("needs root: debootstrap and podman in a namespace without users of its own")
    if reason := podnet.unavailable_reason():
        pytest.skip(reason)
    try:
        tool = image_verb.choose_tool(wanted="podman", store="private")
    except image_verb.ImageError as error:
        pytest.skip(f"no podman, which alone can run containers in a namespace of the test's own: {error}")
    command = ["env", *(f"{name}={value}" for name, value in tool.env.items()), "podman"]
    _remove_abandoned(command)
    yield command
    image_verb.remove_residue()


@pytest.fixture(scope="module")
def image(podman: list[str]) -> str:
    """The name of the image, built from this checkout."""
    command = [sys.executable, str(CHECKOUT / "docker/image.py"), "--tag", TAG, "--tool=podman", "--store=private"]
    built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert built.returncode == 0, built.stdout[-6000:]
    return TAG


@pytest.fixture(scope="module")
def certificate() -> tuple[bytes, bytes]:
    """A self-signed certificate for HOST and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded_key = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signed.public_bytes(serialization.Encoding.PEM), encoded_key


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[bytes, bytes]) -> Path:
    """A directory for --manifests: one host with a certificate, whose only pod is at POD_IP."""
    directory = tmp_path_factory.mktemp("manifests")
    chain, key = (base64.b64encode(part).decode() for part in certificate)
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"namespace": "web", "name": "shop"},
            "spec": {
                "tls": [{"hosts": [HOST], "secretName": "shop"}],
                "rules": [
                    {
                        "host": HOST,
                        "http": {
                            "paths": [
                                {
                                    "path": "/",
                                    "pathType": "Prefix",
                                    "backend": {"service": {"name": "shop", "port": {"number": 80}}},
                                }
                            ]
                        },
                    }
                ],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "web", "name": "shop"},
            "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": POD_PORT}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"namespace": "web", "name": "shop-1", "labels": {"kubernetes.io/service-name": "shop"}},
            "addressType": "IPv4",
            "ports": [{"port": POD_PORT}],
            "endpoints": [{"addresses": [POD_IP], "conditions": {"ready": True}}],
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": "web", "name": "shop"},
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": chain, "tls.key": key},
        },
    ]
    for document in objects:  # JSON is YAML
        (directory / f"{document['kind'].lower()}.yaml").write_text(json.dumps(document))
    directory.chmod(0o755)  # pytest makes it 0700; uid 10001 reads it
    return directory


class Pod(http.server.BaseHTTPRequestHandler):
    """The backend: says what it was asked; /cacheable may be kept, /held is answered when `released` is set."""

    protocol_version = "HTTP/1.1"
    n_cacheable = 0
    holding = threading.Event()
    released = threading.Event()

    def do_GET(self) -> None:
        """Answer with method, path and Host."""
        if self.path.startswith("/cacheable"):
            Pod.n_cacheable += 1
        if self.path == "/held":
            Pod.holding.set()
            Pod.released.wait(COMMAND_TIMEOUT_S)
        body = f"{self.command} {self.path} {self.headers['Host']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600" if self.path.startswith("/cacheable") else "no-store")
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Keep the test's output clean."""


@contextlib.contextmanager
def pod(net: podnet.PodNet) -> Generator[None]:
    """Serve POD_IP inside the network while the block runs."""
    server = http.server.ThreadingHTTPServer((POD_IP, POD_PORT), Pod, bind_and_activate=False)
    server.socket.close()
    server.socket = net.listen(POD_IP, POD_PORT)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- a container --------------------------------------------------------------------------------


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


def _remove_abandoned(podman: Sequence[str]) -> None:
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


# --- tests --------------------------------------------------------------------------------------


def test_routes_http(proxy: Container) -> None:
    assert fetch(proxy.net, "/a?b=c") == (200, f"GET /a?b=c {HOST}\n")
    assert fetch(proxy.net, "/a", host="unknown.test")[0] == 404


def test_allows_delete_but_no_trace(proxy: Container) -> None:
    assert fetch(proxy.net, "/a", method="DELETE")[0] == 200
    assert fetch(proxy.net, "/a", method="TRACE")[0] in (403, 405)


def test_routes_https_with_the_certificate_of_the_secret(proxy: Container, certificate: tuple[bytes, bytes]) -> None:
    context = ssl.create_default_context(cadata=certificate[0].decode())

    assert fetch(proxy.net, "/secure", tls=context) == (200, f"GET /secure {HOST}\n")


def test_healthcheck_of_the_image_passes(proxy: Container) -> None:
    assert proxy.shell("/opt/atsk8s/bin/healthcheck").strip() == "http://127.0.0.1:8080/__trafficserver_alive: 200"
    declared = json.loads(proxy.call("image", "inspect", "--format={{json .HealthCheck}}", TAG).stdout)
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


BAD_SETTINGS = {
    "size is no number": (["--env=TS_CACHE_SIZE=abc"], ["--manifests=/etc"], ["TS_CACHE_SIZE='abc'", "whole number"]),
    "size is negative": (["--env=TS_CACHE_SIZE=-1"], ["--manifests=/etc"], ["TS_CACHE_SIZE='-1'"]),
    "size crashes Traffic Server": (["--env=TS_CACHE_SIZE=1"], ["--manifests=/etc"], ["TS_CACHE_SIZE=1", "16 to"]),
    "size exceeds the volume": (
        ["--env=TS_CACHE_SIZE=64", "--tmpfs=/var/lib/trafficserver:mode=1777,size=8m"],
        ["--manifests=/etc"],
        ["TS_CACHE_SIZE=64", "room for 8 MB"],
    ),
    "volume is not writable": (["--volume=/proc/sys:/var/lib/trafficserver:ro"], ["--manifests=/etc"], ["cannot write"]),
    "manifests are missing": ([], ["--manifests=/absent"], ["--manifests=/absent", "no such directory"]),
    "manifests are a file": ([], ["--manifests=/etc/passwd"], ["--manifests=/etc/passwd", "not a directory"]),
    "manifests are private": ([], ["--manifests=/root"], ["--manifests=/root", "may not read it"]),
    "kubeconfig is missing": (["--env=ATSK8S_KUBECONFIG=/absent"], [], ["--kubeconfig=/absent", "no such file"]),
    "kubeconfig is private": ([], ["--kubeconfig=/etc/shadow"], ["--kubeconfig=/etc/shadow", "may not read it"]),
    "two sources": (["--env=ATSK8S_KUBECONFIG=/etc/passwd"], ["--manifests=/etc"], ["exclude each other"]),
    "no source": ([], [], ["no cluster and no manifests"]),
    "unknown option": ([], ["--manifest=/etc"], ["unknown option '--manifest'"]),
    "a secret as a flag": ([], ["--token=s3cret"], ["ATSK8S_TOKEN"]),
    "value over two lines": ([], ["--manifests=/a\nb"], ["--manifests=/a?b"]),
}


@pytest.mark.parametrize(("options", "arguments", "fragments"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_end_in_one_line_and_2(
    podman: list[str], image: str, options: list[str], arguments: list[str], fragments: list[str]
) -> None:
    done = _run_to_its_end(podman, image, *arguments, options=(*HARDENED, *options))

    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if "level=" not in line]  # podman's own
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("atsk8s: ")
    for fragment in fragments:
        assert fragment in lines[0]
    assert "s3cret" not in done.stderr


def test_missing_run_directory_is_named(podman: list[str], image: str) -> None:
    done = _run_to_its_end(podman, image, "--manifests=/etc", options=("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL"))

    assert done.returncode == 2
    assert "--tmpfs /run/ats:mode=1777" in done.stderr


def _run_to_its_end(podman: list[str], image: str, *arguments: str, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    with podnet.PodNet() as net:
        name = f"atsk8s-test-{os.getpid()}-{next(_numbers)}"
        fixed = ["--rm", f"--name={name}", "--pull=never", "--network=host", "--no-healthcheck"]
        command = [*podman, "run", *fixed, *options, image, *arguments]
        return net.run(command, check=False, timeout_s=COMMAND_TIMEOUT_S)


# --- what needs no container ----------------------------------------------------------------------


def test_pip_settings_come_in_pips_own_order(tmp_path: Path) -> None:
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip/pip.conf").write_text("[global]\nproxy = http://one.test:1\ntimeout = 7\nno-input = true\ntarget = /x\n")
    named = tmp_path / "named.conf"
    named.write_text("[install]\ntrusted-host = files.test\n[global]\nproxy = http://two.test:2\n")
    env = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(named), "PIP_TIMEOUT": "9"}

    found = image_verb.pip_settings(env)

    assert found["proxy"] == "http://two.test:2"
    assert found["trusted-host"] == "files.test"
    assert found["timeout"] == "9"
    assert found["no-input"] == "true", "whatever it is called"
    assert "target" not in found, "a place on this machine"


def test_mirror_is_the_first_of_the_machines_sources() -> None:
    assert image_verb.base.mirror_of("# x\nTypes: deb\nURIs: http://one.test/debian http://b/\nURIs: http://c/\n") == (
        "http://one.test/debian"
    )
    assert image_verb.base.mirror_of("") == image_verb.base.DEFAULT_MIRROR


def test_private_store_leaves_the_users_alone(tmp_path: Path) -> None:
    env = image_verb.private_store(tmp_path / "image")

    assert set(env) == {"CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "TMPDIR"}
    for path in env.values():
        assert Path(path).is_relative_to(tmp_path)
        assert Path(path).exists()
    assert f'graphroot = "{tmp_path}/image/store"' in Path(env["CONTAINERS_STORAGE_CONF"]).read_text()
