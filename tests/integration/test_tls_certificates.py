"""TLS handshakes with a real Traffic Server: the certificate by server name, sessions that stay with their host, HTTP/2, and
Secrets that change or break while it runs."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import Generator, Iterator, Sequence

import pytest

from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.authority import Authority, Pair, served_serial
from tests.harness.backends import Backends, Pod, exchange, http_connection
from tests.harness.manifests import Json, app, ingress, path, tls_secret
from tests.harness.processes import LOOPBACK

SHOP = Pod(app="shop", ip="127.45.1.1", port=28080)
HOSTS = ("shop.test", "a.wild.test", "exact.wild.test", "both.test", "broken.test", "rotates.test", "plain.test")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs everything here."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca.pem")


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> dict[str, Pair]:
    """The certificates by the name of their Secret."""
    return {
        "shop": authority.pair(["shop.test"]),
        "wild": authority.pair(["*.wild.test"]),
        "exact": authority.pair(["exact.wild.test"]),
        "both-ecdsa": authority.pair(["both.test"]),
        "both-rsa": authority.pair(["both.test"], kind="rsa"),
        "rotates": authority.pair(["rotates.test"]),
        "default": authority.pair(["default.test", "plain.test", "unknown.test"]),
    }


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    """One pod."""
    with Backends([SHOP], directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


def client(
    authority: Authority, *, alpn: Sequence[str] = (), version: ssl.TLSVersion | None = None, ciphers: str = ""
) -> ssl.SSLContext:
    """Return a TLS client that trusts the authority alone."""
    made = authority.client_context()
    if alpn:
        made.set_alpn_protocols(list(alpn))
    if version is not None:
        made.minimum_version = made.maximum_version = version
    if ciphers:
        made.set_ciphers(ciphers)
    return made


def site(pairs: dict[str, Pair]) -> list[Json]:
    """Every host over HTTPS; broken.test's Secret has a key of somebody else, plain.test has none."""
    rules = {host: [path("shop")] for host in HOSTS if host != "a.wild.test"} | {"*.wild.test": [path("shop")]}
    tls = {
        "shop": ["shop.test"],
        "wild": ["*.wild.test"],
        "exact": ["exact.wild.test"],
        "broken": ["broken.test"],
        "both-ecdsa": ["both.test"],
        "both-rsa": ["both.test"],
    }
    objects = [ingress("site", rules, tls=tls), *app("shop", [SHOP.ip], port=SHOP.port)]
    objects += [tls_secret(name, pair.certificate, pair.key) for name, pair in pairs.items() if name != "rotates"]
    objects.append(tls_secret("broken", pairs["shop"].certificate, pairs["wild"].key))
    return objects


def rotating(pair: Pair) -> list[Json]:
    """The Ingress and Secret that a test changes."""
    return [
        ingress("rotates", {"rotates.test": [path("shop", "/rotates")]}, tls={"rotates": ["rotates.test"]}),
        tls_secret("rotates", pair.certificate, pair.key),
    ]


@contextlib.contextmanager
def server(build: Build, pairs: dict[str, Pair], options: Options) -> Iterator[Ats]:
    """A server over the site."""
    with ats_directory() as directory:
        made = Ats(build, directory, options=options)
        made.write("site.yaml", site(pairs))
        made.write("rotates.yaml", rotating(pairs["rotates"]))
        with made:
            yield made


@pytest.fixture(scope="module")
def running(build: Build, backends: Backends, pairs: dict[str, Pair]) -> Generator[Ats]:
    """With a default certificate."""
    with server(build, pairs, Options(plugin_options=["--default-certificate=test/default"])) as made:
        made.allow(r"\[atsk8s\] .*broken")
        yield made
        made.allow(r"\[atsk8s\] .*broken|SSL|handshake")


@pytest.fixture(scope="module")
def bare(build: Build, backends: Backends, pairs: dict[str, Pair]) -> Generator[Ats]:
    """Without one."""
    with server(build, pairs, Options()) as made:
        yield made
        made.allow(r"\[atsk8s\] .*broken|SSL|handshake")


def handshake(ats: Ats, context: ssl.SSLContext, name: str | None, *, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """Return a connection after its handshake.  Raises ssl.SSLError."""
    sock = processes.connect(LOOPBACK, "127.0.0.1", ats.https_port)
    try:
        return context.wrap_socket(sock, server_hostname=name, session=session)
    except BaseException:
        sock.close()
        raise


def serial(ats: Ats, context: ssl.SSLContext, name: str) -> int:
    """The serial number of the certificate that `name` gets; verified."""
    with handshake(ats, context, name) as sock:
        return served_serial(sock)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("shop.test", "shop"),
        ("SHOP.Test", "shop"),
        ("a.wild.test", "wild"),
        ("exact.wild.test", "exact"),
        ("unknown.test", "default"),
        ("plain.test", "default"),
    ],
)
def test_certificate_is_chosen_by_server_name(
    running: Ats, authority: Authority, pairs: dict[str, Pair], name: str, secret: str, version: ssl.TLSVersion
) -> None:
    assert serial(running, client(authority, version=version), name) == pairs[secret].serial


def test_client_without_server_name_gets_the_default(running: Ats, authority: Authority, pairs: dict[str, Pair]) -> None:
    context = client(authority)
    context.check_hostname = False
    with handshake(running, context, None) as sock:
        assert served_serial(sock) == pairs["default"].serial


@pytest.mark.parametrize("name", ["unknown.test", "plain.test", "broken.test", "two.levels.wild.test", None])
def test_without_a_certificate_the_handshake_is_refused(bare: Ats, authority: Authority, name: str | None) -> None:
    context = client(authority)
    context.check_hostname = False
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(bare, context, name)
    assert bare.get("/", host="plain.test").status == 200


def test_rsa_and_ecdsa_are_both_served(running: Ats, authority: Authority, pairs: dict[str, Pair]) -> None:
    for cipher, secret in (("ECDHE-RSA-AES128-GCM-SHA256", "both-rsa"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "both-ecdsa")):
        context = client(authority, version=ssl.TLSVersion.TLSv1_2, ciphers=cipher)
        assert serial(running, context, "both.test") == pairs[secret].serial


def test_broken_secret_costs_only_its_host(running: Ats, bare: Ats, authority: Authority, pairs: dict[str, Pair]) -> None:
    """Its host falls back to the default certificate, which is not for it; the other hosts of the same Ingress have theirs."""
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(running, client(authority), "broken.test")
    for ats in (running, bare):
        assert serial(ats, client(authority), "shop.test") == pairs["shop"].serial
        assert ats.get("/", host="broken.test").status == 200


def resumed(ats: Ats, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
    """Handshake with a session of before, and a request, so that TLS 1.3's ticket arrives; was it resumed, and what came."""
    with handshake(ats, context, name, session=session) as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        return bool(sock.session_reused), sock.session


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_session_resumes_with_its_own_host_alone(running: Ats, authority: Authority, version: ssl.TLSVersion) -> None:
    """A ticket of one host must not open another: it would skip what that one demands of clients."""
    context = client(authority, version=version)
    context.check_hostname = False
    _, session = resumed(running, context, "shop.test", None)
    assert session is not None
    again, newer = resumed(running, context, "shop.test", session)
    assert again, "the same host resumes"
    for other in ("a.wild.test", "exact.wild.test", "both.test"):
        across, _ = resumed(running, context, other, newer)
        assert not across, f"a session of shop.test was good for {other}"


def test_alpn_offers_http2(running: Ats, authority: Authority) -> None:
    with handshake(running, client(authority, alpn=["h2", "http/1.1"]), "shop.test") as sock:
        assert sock.selected_alpn_protocol() == "h2"
    with handshake(running, client(authority, alpn=["http/1.1"]), "shop.test") as sock:
        assert sock.selected_alpn_protocol() in ("http/1.1", None)


def test_http2_request_reaches_the_pod(running: Ats, authority: Authority) -> None:
    url = f"https://shop.test:{running.https_port}"
    base = ["curl", "-s", "--http2", "--cacert", str(authority.path), "--resolve", f"shop.test:{running.https_port}:127.0.0.1"]
    done = subprocess.run(
        [*base, "-w", "\n%{http_version} %{http_code}", f"{url}/x?y=1"], capture_output=True, text=True, check=True
    )
    body, _, said = done.stdout.rpartition("\n")
    assert said == "2 200"
    assert '"/x?y=1"' in body and f"shop.test:{running.https_port}" in body and "X-Forwarded-Proto" in body and '"https"' in body
    posted = subprocess.run([*base, "-d", "x" * 100_000, f"{url}/"], capture_output=True, text=True, check=True)
    assert "100000" in posted.stdout
    missed = subprocess.run([*base, "-i", f"{url}/", "-H", "Host: never.test"], capture_output=True, text=True, check=True)
    assert missed.stdout.startswith("HTTP/2 404") and "x-request-id: " in missed.stdout


def test_pod_is_told_of_https(running: Ats, authority: Authority) -> None:
    answer = running.get_tls("/", tls=client(authority), host="shop.test")
    headers = {name.lower(): value for name, value in answer.json()["headers"]}
    assert (headers["x-forwarded-proto"], headers["x-forwarded-port"]) == ("https", "443")


def test_secret_changes_without_a_dropped_connection(running: Ats, authority: Authority, pairs: dict[str, Pair]) -> None:
    context = client(authority)
    assert serial(running, context, "rotates.test") == pairs["rotates"].serial
    host = [("Host", "rotates.test")]
    open_before = http_connection(LOOPBACK, "127.0.0.1", running.https_port, tls=context, server_name="rotates.test")
    try:
        assert exchange(open_before, "/rotates", headers=host).status == 200
        newer = authority.pair(["rotates.test"])
        running.write("rotates.yaml", rotating(newer))
        processes.await_condition("the new certificate is served", lambda: serial(running, context, "rotates.test") == newer.serial)
        assert exchange(open_before, "/rotates", headers=host).status == 200
    finally:
        open_before.close()


def test_handshakes_are_counted(running: Ats, authority: Authority) -> None:
    def counts() -> dict[str, float]:
        return {name: running.counter("atsk8s_tls_handshakes_total", result=name) for name in ("matched", "default")}

    before = counts()
    serial(running, client(authority), "shop.test")
    serial(running, client(authority), "unknown.test")
    assert {name: count - before[name] for name, count in counts().items()} == {"matched": 1.0, "default": 1.0}


def test_ssl_plugin_works_alone(build: Build, backends: Backends, authority: Authority, pairs: dict[str, Pair]) -> None:
    """Certificates from Kubernetes, remap rules of one's own."""
    options = Options(with_remap=False, remap=[f"map / http://{SHOP.name}"])
    with server(build, pairs, options) as ats:
        answer = ats.get_tls("/", tls=client(authority), host="shop.test")
        assert (answer.status, answer.json()["app"]) == (200, "shop")
        ats.allow(r"\[atsk8s\] .*broken")


def test_remap_plugin_works_alone(build: Build, backends: Backends, pairs: dict[str, Pair]) -> None:
    """Routes from Kubernetes, certificates by ssl_multicert.config or none."""
    with server(build, pairs, Options(with_ssl=False)) as ats:
        assert ats.get("/", host="shop.test").json()["app"] == "shop"
        ats.allow(r"\[atsk8s\] .*broken")
