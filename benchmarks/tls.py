"""Group `tls`: handshakes through kubernetes_ssl.so beside the same certificates in a static ssl_multicert.config."""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from benchmarks import figures, machine, native, objects, rivals, traffic_server
from benchmarks.figures import Row, Target
from benchmarks.request import origin
from benchmarks.run import Effort, Run, part
from benchmarks.traffic_server import Proxy
from deploy.prerequisites import say
from deploy.server import RecordValue

GROUP = "tls"
N_MANY, N_MANY_QUICK = 5_000, 500  # a static server takes minutes to read 5,000
_STATIC_TIMEOUT_S = 600.0
HOT_HOSTS = 200  # of more than that many, so many are asked for, in turn: each needs a session first
OURS, STATIC = "atsk8s", "static"
_TARGET = Target.minimum(0.98)


class HandshakeError(RuntimeError):
    """The client failed, or a handshake that was to be resumed was not; the message says what happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One host's certificate and key, PEM."""

    host: str
    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of handshake."""

    version: str
    resumed: bool

    def __str__(self) -> str:
        return f"TLS {self.version} {'resumed' if self.resumed else 'full'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one turn measured."""

    per_s: float
    cpu_us: float  # of traffic_server, per handshake
    max_ms: float  # the longest one


KINDS = [Kind(version=version, resumed=resumed) for version in ("1.3", "1.2") for resumed in (False, True)]


def run(settings: Run) -> Iterator[Row]:
    """Measure with one certificate and with 5,000, ECDSA and (not `quick`) RSA."""
    for algorithm in ("ECDSA P-256",) if settings.quick else ("ECDSA P-256", "RSA 2048"):
        for n in (1, N_MANY if settings.effort is Effort.FULL else N_MANY_QUICK):
            title = f"{n:,} certificate{'s' if n > 1 else ''}, {algorithm}"
            yield from part(GROUP, title, _beside_static(settings, title, algorithm, n), limit_s=_STATIC_TIMEOUT_S + 300)


def _beside_static(settings: Run, title: str, algorithm: str, n: int) -> Iterator[Row]:
    say(f"bench: tls: making certificates: {title}")
    made = make_certificates(n, algorithm)
    root = settings.scratch / f"{algorithm.split()[0]}-{n}"
    root.mkdir(mode=0o755)
    with contextlib.ExitStack() as stack:
        origin_port = stack.enter_context(origin(root))
        proxies = [
            stack.enter_context(_ours(root / "ours", made, origin_port)),
            stack.enter_context(_static(root / "static", made, origin_port)),
        ]
        ours_s, static_s = (proxy.ready_s - proxy.started_s for proxy in proxies)
        yield figures.compared(GROUP, f"{title}: start", "s", [ours_s], [static_s], STATIC, less_is_better=True)
        yield from _measure(settings, proxies, title, n)


def make_certificates(n: int, algorithm: str) -> list[Certificate]:
    """Return self-signed certificates of hosts 0 to n-1.

    Each has a key of its own if it is ECDSA, all have the same if it is RSA: those take long to make.
    """
    shared = rsa.generate_private_key(public_exponent=65537, key_size=2048) if algorithm.startswith("RSA") else None
    now = datetime.datetime.now(datetime.UTC)
    made = []
    for i in range(n):
        key = shared or ec.generate_private_key(ec.SECP256R1())
        host = objects.host(i)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=90))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        certificate = builder.sign(key, hashes.SHA256()).public_bytes(pem)
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        made.append(Certificate(host=host, certificate=certificate, key=private))
    return made


def tls_objects(certificates: Sequence[Certificate], origin_port: int) -> Iterator[objects.Object]:
    """Yield a Secret and an Ingress for each certificate, and what those need."""
    yield objects.service("origin")
    yield objects.endpoint_slice("origin", [rivals.ORIGIN], origin_port)
    for i, made in enumerate(certificates):
        yield objects.tls_secret(f"tls-{i}", made.certificate, made.key)
        yield objects.ingress(f"tls-{i}", [made.host], "origin", secret=f"tls-{i}")


def _ours(root: Path, certificates: Sequence[Certificate], origin_port: int) -> contextlib.AbstractContextManager[Proxy]:
    objects.write_manifests(_made(root) / "manifests", tls_objects(certificates, origin_port))
    remap, plugins = traffic_server.plugin_lines([f"--manifests={root}/manifests", "--admin=off"], tls=True)
    say(f"bench: tls: starting {OURS} with {len(certificates):,} certificates")
    return traffic_server.running(OURS, root / "ats", remap=remap, plugins=plugins, tls=True)


def _static(root: Path, certificates: Sequence[Certificate], origin_port: int) -> contextlib.AbstractContextManager[Proxy]:
    directory = _made(root) / "certificates"
    directory.mkdir(mode=0o755)
    for i, made in enumerate(certificates):
        for suffix, content in (("crt", made.certificate), ("key", made.key)):
            path = directory / f"{i}.{suffix}"
            path.write_bytes(content)
            path.chmod(0o644)  # Traffic Server's user reads it; it is worth nothing
    lines = "".join(f"ssl_cert_name={i}.crt ssl_key_name={i}.key\n" for i in range(len(certificates)))
    records: dict[str, RecordValue] = {f"proxy.config.ssl.server.{what}.path": str(directory) for what in ("cert", "private_key")}
    say(f"bench: tls: starting {STATIC} with {len(certificates):,} certificates")
    return traffic_server.running(
        STATIC,
        root / "ats",
        remap=[f"map / http://{rivals.ORIGIN}:{origin_port}/"],
        records=records,
        files={"ssl_multicert.config": lines},
        # Traffic Server reads the system's 140 authorities again for each line, which takes most of a start of minutes; nobody
        # here shows a client certificate that they would verify.
        environment={"SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": "/nonexistent"},
        tls=True,
        timeout_s=_STATIC_TIMEOUT_S,
    )


def _made(root: Path) -> Path:
    root.mkdir(mode=0o755)
    return root


def _measure(settings: Run, proxies: Sequence[Proxy], title: str, n: int) -> Iterator[Row]:
    for kind in KINDS:
        turns: dict[str, list[Turn]] = {proxy.name: [] for proxy in proxies}
        for number in range(settings.n_runs):
            for proxy in proxies if number % 2 == 0 else reversed(proxies):
                turns[proxy.name].append(turn(proxy, kind, n, settings.shot_s))
        for what, unit, less_is_better in (("handshakes/s", "/s", False), ("CPU", "µs", True)):
            ours, theirs = ([one.cpu_us if less_is_better else one.per_s for one in turns[name]] for name in (OURS, STATIC))
            name = f"{title}: {kind}: {what}"
            yield figures.compared(GROUP, name, unit, ours, theirs, STATIC, less_is_better=less_is_better, target=_TARGET)


def turn(proxy: Proxy, kind: Kind, n: int, seconds: float) -> Turn:
    """Shake hands for `seconds`, as a client of `n` hosts.  Raises HandshakeError."""
    asked = min(n, HOT_HOSTS)
    program = native.program("handshakes", libraries=["-lssl", "-lcrypto"])
    mode = "resumed" if kind.resumed else "full"
    command = [str(program), "127.0.0.1", str(proxy.port), kind.version, mode, str(seconds), str(asked), str(n // asked)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        is_ready = client.stdout.readline().strip() == "ready"
        before = machine.cpu_s(proxy.pids)
        out, err = client.communicate("\n" if is_ready else None)
        cpu_s = machine.cpu_s(proxy.pids) - before
    if client.returncode != 0:
        raise HandshakeError(f"{proxy.name}, {kind}: {err.strip()[-500:]}")
    said = json.loads(out)
    wanted = said["handshakes"] if kind.resumed else 0
    if said["resumed"] != wanted:
        raise HandshakeError(f"{proxy.name}, {kind}: {said['resumed']} of {said['handshakes']} were resumed, not {wanted}")
    return Turn(per_s=said["handshakes"] / said["seconds"], cpu_us=cpu_s / said["handshakes"] * 1e6, max_ms=said["max_ms"])
