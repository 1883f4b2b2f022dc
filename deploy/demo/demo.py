"""The walk-through: starts backends and Traffic Server with both plugins over a copy of manifests/, asks, edits, asks again.

Runs in the virtual environment that the plugins embed (it has `cryptography` and PyYAML), from the build directory that
ATSK8S_BUILD names.  The copy lies where Traffic Server's user can read it, so the checkout may be anywhere.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime as dt
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy import server
from deploy.compile import Build

HERE = Path(__file__).resolve().parent
MANIFESTS = HERE / "manifests"
POD_PORT = 30880  # as manifests/endpoints.yaml says
TLS_HOST = "test.edge.com"
TLS_NAMESPACE, TLS_SECRET = "trafficserver-test-2", "test-edge-com"
CHANGE_TIMEOUT_S = 10.0


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One backend process."""

    address: str
    namespace: str
    app: str
    name: str


PODS = (
    Pod(address="127.44.1.1", namespace="trafficserver-test", app="app1", name="app1-a"),
    Pod(address="127.44.1.2", namespace="trafficserver-test", app="app1", name="app1-b"),
    Pod(address="127.44.2.1", namespace="trafficserver-test", app="app2", name="app2-a"),
    Pod(address="127.44.2.2", namespace="trafficserver-test", app="app2", name="app2-b"),
    Pod(address="127.44.3.1", namespace="trafficserver-test-2", app="app2", name="app2-c"),
    Pod(address="127.44.3.2", namespace="trafficserver-test-2", app="app2", name="app2-d"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request of the walk-through and who must answer it."""

    scheme: str
    host: str
    path: str
    app: str
    namespace: str


STEPS = (
    Step(scheme="http", host="test.media.com", path="/app1", app="app1", namespace="trafficserver-test"),
    Step(scheme="http", host="test.media.com", path="/app2", app="app2", namespace="trafficserver-test"),
    Step(scheme="http", host="test.edge.com", path="/app1", app="app1", namespace="trafficserver-test"),
    Step(scheme="http", host="test.edge.com", path="/app2", app="app2", namespace="trafficserver-test-2"),
    Step(scheme="https", host="test.edge.com", path="/app2", app="app2", namespace="trafficserver-test-2"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports on 127.0.0.1."""

    http: int
    https: int
    admin: int


class Conversation:
    """Asks as a user would, with curl, and prints both sides."""

    def __init__(self, *, ports: Ports, ca_file: Path) -> None:
        self._ports, self._ca_file = ports, ca_file

    def command(self, step: Step) -> list[str]:
        """Return the curl command of one step."""
        if step.scheme == "http":
            return ["curl", "-H", f"Host: {step.host}", f"http://127.0.0.1:{self._ports.http}{step.path}"]
        port = self._ports.https
        resolve = f"{step.host}:{port}:127.0.0.1"
        return ["curl", "--cacert", str(self._ca_file), "--resolve", resolve, f"https://{step.host}:{port}{step.path}"]

    def ask(self, step: Step) -> tuple[int, str]:
        """Send one request; return status and body, status 0 if there was no answer."""
        command = self.command(step)
        extra = ["-q", "--noproxy", "*", "-sS", "-m", "10", "-w", "\n%{http_code}"]
        done = subprocess.run([command[0], *extra, *command[1:]], capture_output=True, text=True, check=False)
        body, _, status = done.stdout.rpartition("\n")
        if done.returncode != 0:
            return 0, done.stderr.strip()
        return int(status), body.strip()

    def show(self, step: Step) -> bool:
        """Send one request, print it with its answer, and say whether the right app answered."""
        status, body = self.ask(step)
        is_right = status == 200 and body.startswith(f"{step.app} (namespace {step.namespace},")
        print(f"  $ {shlex.join(self.command(step))}")
        print(f"    {status} {body}")
        if not is_right:
            print(f"    WRONG: expected 200 from {step.app} of namespace {step.namespace}")
        return is_right


def main(arguments: Sequence[str]) -> int:
    """Run the demo; return 0 when everything shown was right."""
    options = _parse(arguments)
    built = Build(directory=Path(os.environ["ATSK8S_BUILD"]))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: _interrupt(stop))
    try:
        with contextlib.ExitStack() as held:
            return _run(options, built, stop, held)
    except KeyboardInterrupt:
        print("\ndemo: stopped", flush=True)
        return 1 if options.once else 0
    except (DemoError, server.ServerError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _interrupt(stop: threading.Event) -> None:
    # The first one ends whatever is going on; further ones must not cut the clean-up short.
    if not stop.is_set():
        stop.set()
        raise KeyboardInterrupt


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="build.py demo", description="Traffic Server as an ingress, on this machine alone.")
    parser.add_argument("--once", action="store_true", help="check the answers and one live change, then end with 0 or 1")
    parser.add_argument("--http-port", type=_port, metavar="N", help="default 8080, or a free one if that is taken")
    parser.add_argument("--https-port", type=_port, metavar="N", help="default 8443, or a free one if that is taken")
    parser.add_argument("--admin-port", type=_port, metavar="N", help="default 9464, or a free one if that is taken")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="keep manifests and logs there; default: a temporary one")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a port, 1 to 65535")
    return int(text)


def _run(options: argparse.Namespace, built: Build, stop: threading.Event, held: contextlib.ExitStack) -> int:
    ports = Ports(
        http=_choose_port(options.http_port, 8080, "--http-port"),
        https=_choose_port(options.https_port, 8443, "--https-port"),
        admin=_choose_port(options.admin_port, 9464, "--admin-port"),
    )
    server.check_reachable(built.directory)
    directory = _work_directory(options.directory, held)
    manifests = directory / "manifests"
    pod_port = _choose_pod_port()
    _copy_manifests(manifests, pod_port)
    ca_file = directory / "ca.crt"
    _write_certificate(manifests, ca_file)
    for pod in PODS:
        held.enter_context(_backend(pod, pod_port))
    print(f"demo: {len(PODS)} backend processes on 127.44.x.y:{pod_port}")
    arguments = [f"--manifests={manifests}", f"--admin=127.0.0.1:{ports.admin}"]
    tree = server.make_tree(
        directory / "trafficserver",
        server_ports=f"{ports.http}:ip-in=127.0.0.1 {ports.https}:ssl:ip-in=127.0.0.1",
        remap=["map / http://localhost " + " ".join([f"@plugin={built.remap_plugin}", *(f"@pparam={one}" for one in arguments)])],
        plugins=[" ".join([str(built.ssl_plugin), *arguments])],
    )
    traffic_server = server.Server(tree)
    held.callback(_stop_server, traffic_server)
    traffic_server.await_listening([("127.0.0.1", ports.http), ("127.0.0.1", ports.https)])
    _introduce(ports, manifests, tree)

    conversation = Conversation(ports=ports, ca_file=ca_file)
    print("\nThe walk-through:")
    answers = [conversation.show(step) for step in STEPS]
    answers.append(_show_change(conversation, manifests, undo=not options.once))
    is_right = all(answers)
    if options.once:
        held.close()
        is_right = traffic_server.status == 0 and is_right
        print(f"\ndemo: {'every answer was right' if is_right else 'FAILED: see above'}; everything is stopped")
        if not is_right:
            print(traffic_server.log_tail())
        return 0 if is_right else 1
    print(f"\nYour turn: edit the files in {manifests} and ask again. Ctrl-C ends.", flush=True)
    while not stop.wait(0.5):
        if traffic_server.status is not None:
            raise DemoError(f"traffic_server ended with status {traffic_server.status}\n{traffic_server.log_tail()}")
    return 0


def _introduce(ports: Ports, manifests: Path, tree: server.Tree) -> None:
    print(
        f"""demo: Traffic Server is up, with both plugins
  HTTP       http://127.0.0.1:{ports.http}    curl -H 'Host: test.media.com' http://127.0.0.1:{ports.http}/app1
  HTTPS      https://127.0.0.1:{ports.https}   curl -k --resolve {TLS_HOST}:{ports.https}:127.0.0.1 https://{TLS_HOST}:{ports.https}/app2
  admin      http://127.0.0.1:{ports.admin}    /readyz /metrics /dump /explain?url=http://test.media.com/app1
  manifests  {manifests}    (watched: edit, add or delete files)
  logs       {tree.logs}/diags.log""",
        flush=True,
    )


def _show_change(conversation: Conversation, manifests: Path, *, undo: bool) -> bool:
    """Point test.media.com/app1 at the other Service by editing a file, and show who answers before and after."""
    path = manifests / "trafficserver-test.yaml"
    before, after = STEPS[0], Step(**{**_fields(STEPS[0]), "app": "app2"})
    original = path.read_text(encoding="utf-8")
    if original.count("name: appsvc1\n") < 2:
        raise DemoError(f"{path}: the line to change is gone; was the file edited meanwhile?")
    print(f"\nA live change: in {path.name} {before.host}{before.path} goes to appsvc2 instead of appsvc1.")
    is_right = _change(conversation, path, original.replace("name: appsvc1\n", "name: appsvc2\n", 1), after)
    if undo:
        print("And back.")
        is_right = _change(conversation, path, original, before) and is_right
    return is_right


def _fields(step: Step) -> dict[str, str]:
    return {"scheme": step.scheme, "host": step.host, "path": step.path, "app": step.app, "namespace": step.namespace}


def _change(conversation: Conversation, path: Path, text: str, expected: Step) -> bool:
    _write(path, text)
    changed_s = time.monotonic()
    never = threading.Event()
    while not conversation.ask(expected)[1].startswith(f"{expected.app} "):
        if time.monotonic() - changed_s > CHANGE_TIMEOUT_S:
            print(f"    WRONG: not answered by {expected.app} within {CHANGE_TIMEOUT_S:g} s")
            conversation.show(expected)
            return False
        never.wait(0.01)
    print(f"  seen by curl {1000 * (time.monotonic() - changed_s):.0f} ms after the file was written")
    return conversation.show(expected)


def _write(path: Path, text: str) -> None:
    """Write a manifest in one step, as editors do: nobody reads half a file."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    aside.chmod(0o644)
    aside.replace(path)


def _work_directory(named: Path | None, held: contextlib.ExitStack) -> Path:
    if named is None:
        return held.enter_context(server.scratch_directory("atsk8s-demo-"))
    directory = named.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DemoError(f"--directory={named}: exists and is not an empty directory")
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"--directory={named}: {error.strerror}") from error
    server.check_reachable(directory)
    return directory


def _copy_manifests(manifests: Path, pod_port: int) -> None:
    manifests.mkdir(mode=0o755)
    manifests.chmod(0o755)
    for source in sorted(MANIFESTS.glob("*.yaml")):
        text = source.read_text(encoding="utf-8")
        if pod_port != POD_PORT and source.name == "endpoints.yaml":
            text = text.replace(f"port: {POD_PORT}\n", f"port: {pod_port}\n")
        _write(manifests / source.name, text)


def _write_certificate(manifests: Path, ca_file: Path) -> None:
    """Make a self-signed certificate for TLS_HOST: its Secret among the manifests, itself for curl's --cacert."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, TLS_HOST)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain_pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": TLS_SECRET, "namespace": TLS_NAMESPACE},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": base64.b64encode(chain_pem).decode(), "tls.key": base64.b64encode(key_pem).decode()},
    }
    ca_file.write_bytes(chain_pem)
    ca_file.chmod(0o644)
    path = manifests / f"{TLS_SECRET}.yaml"
    # Readable to us and to Traffic Server's group alone, from the first byte on.
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        yaml.safe_dump(secret, file)
    if os.geteuid() == 0:
        os.chown(path, 0, server.ats_user().pw_gid)
        path.chmod(0o640)


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)  # SO_REUSEADDR lets two bind; only one may listen
        except OSError:
            return False
    return True


def _choose_port(named: int | None, usual: int, option: str) -> int:
    """Return the port to use.  Raises DemoError if the user named one that cannot be had."""
    if named is not None:
        if not _is_free("127.0.0.1", named):
            raise DemoError(f"{option}={named}: taken, or not for this user; choose another one")
        return named
    if _is_free("127.0.0.1", usual):
        return usual
    port = _any_port("127.0.0.1")
    print(f"demo: port {usual} is taken; using {port} ({option} chooses)")
    return port


def _any_port(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _choose_pod_port() -> int:
    for port in (POD_PORT, *(_any_port(PODS[0].address) for _ in range(20))):
        if all(_is_free(pod.address, port) for pod in PODS):
            return port
    raise DemoError(f"no port is free on all of {', '.join(pod.address for pod in PODS)}; is 127.0.0.0/8 on lo?")


@contextlib.contextmanager
def _backend(pod: Pod, port: int) -> Iterator[None]:
    """Run one backend process while the block runs; it also ends when the demo is killed."""
    setpriv = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    command = [*setpriv, sys.executable, "-I", str(HERE / "backend.py"), pod.address, str(port), pod.namespace, pod.app, pod.name]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise DemoError(f"backend {pod.name} did not start on {pod.address}:{port} (status {process.wait(5)})")
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _stop_server(traffic_server: server.Server) -> None:
    has_ended = traffic_server.status is not None  # by itself: whoever noticed reports it
    status = traffic_server.stop()
    if status != 0 and not has_ended:
        print(f"demo: traffic_server ended with status {status}\n{traffic_server.log_tail()}", file=sys.stderr)
