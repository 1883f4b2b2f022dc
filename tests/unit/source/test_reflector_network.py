"""What a network and a server can do to a connection, over real sockets on loopback."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from atsk8s.errors import KubeError
from atsk8s.source.kinds import CONFIG_MAP, ENDPOINT_SLICE, INGRESS, INGRESS_CLASS, KINDS, NAMESPACE, SECRET, SERVICE
from atsk8s.source.kube import credentials, reflector, transport
from atsk8s.source.kube.credentials import Credentials
from atsk8s.source.kube.source import KubeSource
from atsk8s.source.kube.transport import KubeTransport
from tests.harness.fakeapi import Answer, Exchange, FakeApi, hang_up, hold, refuse, reset
from tests.unit.source.live import PATH, live, plain, source

BRIEF = replace(INGRESS, watch_s=(0, 0))  # a watch of no time at all: only the grace is left before silence is noticed


def a(name: str) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {}}


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "WATCH_GRACE_S", 0.2)
    monkeypatch.setattr(reflector, "STREAMED_LIST_SILENCE_S", 0.2)
    monkeypatch.setattr(reflector, "LIST_READ_TIMEOUT_S", 0.5)


def test_list_then_watch_and_the_other_way_to_list() -> None:
    for streams in (True, False):
        with FakeApi(streams_lists=streams) as api:
            api.put(PATH, a("before"))
            with live(api) as it:
                api.wait_for(lambda: it.names == {"before"})
                api.put(PATH, a("after"))
                api.delete(PATH, "before", "ns")
                api.wait_for(lambda: it.names == {"after"})
                assert it.reflector.progress.n_relists == 0


def test_pages() -> None:
    with FakeApi() as api:
        for i in range(1201):
            api.put(PATH, a(f"n{i}"))
        with live(api, streams=False) as it:
            api.wait_for(lambda: it.reflector.progress.synced)
            assert len(it.store) == 1201
            assert [r.query.get("limit") for r in api.asked(PATH)][:3] == ["500"] * 3


@pytest.mark.parametrize("streams", [False, True])
def test_point_10_etcd_restored_from_a_backup(streams: bool) -> None:
    with FakeApi(streams_lists=streams) as api:
        api.put(PATH, a("old"))
        with live(api, streams=streams) as it:
            api.wait_for(lambda: it.names == {"old"})
            backup = api.backup()
            api.put(PATH, a("future"))
            api.delete(PATH, "old", "ns")
            api.wait_for(lambda: it.names == {"future"})
            api.restore(backup)
            api.wait_for(lambda: it.names == {"old"})
            api.put(PATH, a("new"))  # with the version that "future" had
            api.wait_for(lambda: it.names == {"old", "new"})
            assert it.reflector.progress.n_relists == 1


@pytest.mark.usefixtures("short_silence")
def test_point_14_half_open_connection() -> None:
    """The server answered, then nothing: no FIN, no RST, every byte of ours acknowledged."""

    def half_open(exchange: Exchange) -> None:
        exchange.start()
        exchange.hold()

    with FakeApi() as api:
        api.script(PATH, api.list, half_open)
        with live(api, kind=BRIEF, streams=False) as it:
            api.wait_for(lambda: len(api.asked(PATH)) >= 2)
            api.put(PATH, a("missed"))
            api.wait_for(lambda: it.names == {"missed"})
            assert it.reflector.progress.n_relists == 0


@pytest.mark.usefixtures("short_silence")
def test_point_14_server_that_accepts_and_never_answers() -> None:
    with FakeApi() as api:
        api.put(PATH, a("x"))
        api.script(PATH, hold, hold)
        with live(api) as it:
            api.wait_for(lambda: it.names == {"x"})


def test_point_14_reset_and_end_at_every_place() -> None:
    line = json.dumps(
        {"type": "ADDED", "object": {"metadata": {"name": "half", "namespace": "ns", "resourceVersion": "500"}}}
    ).encode()

    def end_inside_a_chunk(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b"%x\r\n%s" % (len(line), line[:20]))
        exchange.hang_up()

    def end_between_chunks(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunk(line[:20])
        exchange.hang_up()

    def end_without_the_last_newline(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunk(line[:-5])
        exchange.finish()

    def reset_inside_a_chunk(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b"%x\r\n%s" % (len(line), line[:20]))
        exchange.reset()

    def nonsense_for_a_chunk_size(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b"zz\r\nhello\r\n")
        exchange.hang_up()

    faults = [hang_up, reset, end_inside_a_chunk, end_between_chunks, end_without_the_last_newline, reset_inside_a_chunk]
    with FakeApi() as api:
        api.script(PATH, *faults, nonsense_for_a_chunk_size, api.list, *faults, nonsense_for_a_chunk_size)
        with live(api) as it:
            api.wait_for(lambda: len(api.asked(PATH)) >= 13)
            api.put(PATH, a("x"))
            api.wait_for(lambda: it.names == {"x"})
            assert it.reflector.progress.n_relists == 0


@pytest.mark.usefixtures("short_silence")
def test_point_14_drip_of_one_byte_at_a_time() -> None:
    def drip(exchange: Exchange) -> None:
        exchange.start()
        while True:
            exchange.chunk(b" ")

    with FakeApi() as api:
        api.script(PATH, api.list, drip)
        with live(api, kind=BRIEF, streams=False) as it:
            api.wait_for(lambda: len(api.asked(PATH)) >= 3)
            api.put(PATH, a("x"))
            api.wait_for(lambda: it.names == {"x"})


@pytest.mark.usefixtures("short_silence")
def test_point_14_proxy_that_holds_the_answer_back_until_the_first_event() -> None:
    def buffering(exchange: Exchange) -> None:
        n_before = len(api.collections[PATH].objects)
        api.wait_for(lambda: len(api.collections[PATH].objects) > n_before)
        api.watch(exchange)

    with FakeApi() as api:
        api.put(PATH, a("x"))
        api.script(PATH, hold, api.list, buffering)
        with live(api) as it:
            api.wait_for(lambda: it.names == {"x"})  # the stream was given up for pages
            api.wait_for(lambda: len(api.asked(PATH)) >= 3)
            api.put(PATH, a("y"))
            api.wait_for(lambda: it.names == {"x", "y"})


def test_point_14_two_events_in_a_chunk_and_one_event_in_many() -> None:
    def pieces(exchange: Exchange) -> None:
        events = b""
        for i, name in enumerate(("p", "q")):
            meta = {
                "name": name,
                "namespace": "ns",
                "resourceVersion": str(200 + i),
                "annotations": {"kubernetes.io/ingress.class": "x\ny"},
            }
            events += json.dumps({"type": "ADDED", "object": {"metadata": meta}}).encode() + b"\n\n"
        exchange.start()
        exchange.chunk(events)
        big = {"name": "big", "namespace": "ns", "resourceVersion": "210", "labels": {"x": "y" * 1_200_000}}
        line = json.dumps({"type": "ADDED", "object": {"metadata": big}}).encode() + b"\n"
        for at in range(0, len(line), 1000):
            exchange.chunk(line[at : at + 1000])
        exchange.hold()

    with FakeApi() as api:
        api.script(PATH, api.list, pieces)
        with live(api, streams=False) as it:
            api.wait_for(lambda: it.names == {"p", "q", "big"})


def test_point_14_answers_without_chunks() -> None:
    """As HTTP/1.0 proxies send: the body ends with the connection.  Events must not wait for that end."""

    def unchunked(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        meta = {"name": "x", "namespace": "ns", "resourceVersion": "300"}
        exchange.send(json.dumps({"type": "ADDED", "object": {"metadata": meta}}).encode() + b"\n")
        exchange.hold()

    with FakeApi() as api:
        api.script(PATH, api.list, unchunked)
        with live(api, streams=False) as it:
            api.wait_for(lambda: it.names == {"x"})


def test_point_14_stuck_in_the_tls_handshake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://127.0.0.1:{mute.getsockname()[1]}"
        there = KubeTransport(lambda: Credentials(server=url, tls=ssl.create_default_context(), origin="test"))
        started = monotonic()
        with pytest.raises(KubeError, match=r"127\.0\.0\.1"):
            there.get("/x", {}, 0.3)
        assert monotonic() - started < 3


def test_point_15_expired_token_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")

    def load() -> Credentials:
        return Credentials(server=api.url, authorization=f"Bearer {token.read_text().strip()}", origin="test")

    with FakeApi() as api:
        api.put(PATH, a("x"))
        api.required_token = "new"
        with live(api, load=load) as it:
            api.wait_for(lambda: len(api.asked(PATH)) >= 3)
            assert "401" in it.reflector.progress.reason
            token.write_text("new\n")
            api.wait_for(lambda: it.names == {"x"})
            n_refused = len([r for r in api.asked(PATH) if r.headers["authorization"] == "Bearer old"])
            assert n_refused < 12  # the budget's ten, and what a slow machine adds


def test_point_15_one_kind_that_is_forbidden_stops_no_other() -> None:
    with FakeApi() as api, source(api) as it:
        api.always(SECRET.path(), refuse(403, "Forbidden"))
        api.put(PATH, a("x"))
        it.start()
        assert it.wait_synced(10)
        states = {state.name: state for state in it.kinds()}
        assert [name for name, state in states.items() if not state.synced] == ["Secret"]
        assert states["Secret"].settled
        assert "403" in states["Secret"].reason
        assert "RBAC" in states["Secret"].reason
        assert len(it.store(INGRESS)) == 1
        api.always(SECRET.path(), None)
        api.wait_for(lambda: all(state.synced for state in it.kinds()))


def certificate(directory: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A self-signed CA for 127.0.0.1, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return cert_file, context


def test_point_16_ca_that_is_exchanged_on_disk(tmp_path: Path) -> None:
    first, first_context = certificate(tmp_path, "first")
    second, second_context = certificate(tmp_path, "second")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(first.read_bytes())
    api = FakeApi(tls=first_context)
    try:
        api.put(PATH, a("x"))
        with live(api, load=lambda: credentials.from_token(api.url, "secret", str(ca))) as it:
            api.wait_for(lambda: it.names == {"x"})
            port = api.port
            api.close()
            api = FakeApi(tls=second_context, port=port)
            api.version = 500
            api.put(PATH, a("y"))
            api.wait_for(lambda: "not trusted" in it.reflector.progress.reason)
            ca.write_bytes(second.read_bytes())
            api.wait_for(lambda: "y" in it.names)
            assert "secret" not in repr(it.transport._access)
    finally:
        api.close()


def test_point_16_files_behind_the_credentials_are_looked_at(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    now = [1000.0]

    def load() -> Credentials:
        return Credentials(server=api.url, authorization=f"Bearer {token.read_text()}", origin="test", files=(token,))

    with FakeApi() as api:
        there = KubeTransport(load, clock=lambda: now[0])
        for later_s, text in ((0, "one"), (1, "two"), (11, "three")):
            token.write_text(text)
            now[0] += later_s
            there.get(PATH, {}, 5).close()
        assert [r.headers["authorization"] for r in api.requests] == ["Bearer one", "Bearer one", "Bearer three"]
        there.close()


def test_point_16_threads_that_wait_for_a_failing_renewal_share_its_failure() -> None:
    loads: list[int] = []
    ticks: list[int] = []
    failures: list[str] = []

    def clock() -> float:
        ticks.append(1)
        return len(ticks)

    def load() -> Credentials:
        loads.append(1)
        if len(loads) > 1:
            n_before = len(ticks)
            started.set()
            api.wait_for(lambda: len(ticks) == n_before + 2)  # each of the other two has looked at the clock, and waits for us
            raise KubeError("plugin hangs")
        return Credentials(server=api.url, origin="test")

    def ask() -> None:
        try:
            there.get(PATH, {}, 5)
        except KubeError as error:
            failures.append(str(error))

    started = threading.Event()
    with FakeApi() as api:
        there = KubeTransport(load, clock=clock)
        there.unauthorized()
        threads = [threading.Thread(target=ask) for _ in range(3)]
        threads[0].start()
        assert started.wait(10)
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert failures == ["plugin hangs"] * 3
        assert len(loads) == 2
        there.close()


def test_silence_that_is_allowed_grows_when_a_streamed_list_has_ended() -> None:
    with FakeApi() as api, live(api) as it:
        api.wait_for(lambda: it.reflector.progress.synced)
        (sock,) = it.transport._sockets
        api.wait_for(lambda: sock.gettimeout() == 240 + 15)


def test_point_19_nothing_is_synced_before_every_mandatory_kind_is() -> None:
    with FakeApi() as api, source(api) as it:
        api.always(ENDPOINT_SLICE.path(), refuse(403, "Forbidden"))
        it.start()
        api.wait_for(lambda: [k.name for k in it.kinds() if not k.synced] == ["EndpointSlice"])
        assert not it.wait_synced(0.05)
        (waiting,) = [k for k in it.kinds() if not k.synced]
        assert waiting.mandatory
        assert "403" in waiting.reason
        api.always(ENDPOINT_SLICE.path(), None)
        assert it.wait_synced(10)


def test_point_19_optional_kinds_are_waited_for_until_they_are_refused() -> None:
    released = threading.Event()

    def late(exchange: Exchange) -> None:
        released.wait(10)
        refuse(403, "Forbidden")(exchange)

    with FakeApi() as api, source(api) as it:
        api.always(INGRESS_CLASS.path(), late)
        it.start()
        api.wait_for(lambda: [k.name for k in it.kinds() if not k.synced] == ["IngressClass"])
        assert not it.wait_synced(0.05)
        released.set()
        assert it.wait_synced(10)


def test_point_21_stop_before_start_and_twice() -> None:
    with FakeApi() as api:
        it = KubeSource(plain(api))
        assert it.stop()
        assert it.stop()
        it.start()  # too late: nothing starts
        assert not api.requests
        assert not it.wait_synced(10)


@pytest.mark.parametrize("where", ["list", "answer", "watch", "backoff"])
def test_point_21_stop_wherever_it_is(where: str) -> None:
    def half_a_list(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunk(b'{"items": [')
        exchange.hold()

    answers: dict[str, list[Answer]] = {"list": [refuse(422), half_a_list], "answer": [hold], "backoff": [refuse(500)] * 1000}
    script = answers.get(where, [])
    with FakeApi() as api:
        api.script(PATH, *script)
        with live(api) as it:
            if where == "watch":
                api.wait_for(lambda: it.reflector.progress.synced)
            else:
                api.wait_for(lambda: len(api.asked(PATH)) >= len(script[:3]))
            assert it.stop() < 1.0
            it.stop()


def test_what_is_ignored_is_not_asked_for() -> None:
    with FakeApi() as api:
        it = KubeSource(plain(api), ignore_namespaces=("b", "a"), own_namespaces=("a",), also_mandatory=(NAMESPACE,))
        it.start()
        assert it.wait_synced(10)
        assert it.stop()
        assert {kind.name for kind in it.kinds() if kind.mandatory} == {"Ingress", "Service", "EndpointSlice", "Namespace"}
    without = "metadata.namespace!=a,metadata.namespace!=b"
    fields = {kind.name: {one.query.get("fieldSelector", "") for one in api.asked(kind.path())} for kind in KINDS}
    assert fields["Ingress"] == fields["Service"] == fields["EndpointSlice"] == {without}
    assert fields["Secret"] == {f"type=kubernetes.io/tls,{without}"}
    assert fields["IngressClass"] == fields["Namespace"] == {""}
    assert api.asked(CONFIG_MAP.path("a"))


def test_point_21_stop_ends_every_thread_of_a_source() -> None:
    before = {thread.name for thread in threading.enumerate()}
    with FakeApi() as api:
        it = KubeSource(plain(api), watch_namespaces=("a", "b"))
        it.start()
        assert it.wait_synced(10)
        started = monotonic()
        assert it.stop()
        assert monotonic() - started < 1
        assert it.stop()
    assert {thread.name for thread in threading.enumerate() if thread.name.startswith("watch-")} <= before


def test_point_23_server_that_is_killed_and_comes_back_with_another_history() -> None:
    api = FakeApi()
    try:
        for i in range(50):
            api.put(PATH, a(f"n{i}"))
        with live(api) as it:
            api.wait_for(lambda: len(it.names) == 50)
            port = api.port
            api.close()
            api.wait_for(lambda: "refused" in it.reflector.progress.reason)
            assert len(it.names) == 50  # an outage changes nothing
            api = FakeApi(port=port, streams_lists=False)
            api.version = 1000
            for i in range(25, 75):
                api.put(PATH, a(f"n{i}"))
            api.compact(PATH)
            api.wait_for(lambda: it.names == {f"n{i}" for i in range(25, 75)})
            assert it.reflector.progress.n_relists == 1
    finally:
        api.close()


def test_point_23_connections_cut_under_churn() -> None:
    with FakeApi() as api, live(api) as it:
        for i in range(60):
            api.put(PATH, a(f"n{i % 20}"))
            if i % 10 == 9:
                api.cut()
            if i % 7 == 6:
                api.delete(PATH, f"n{i % 20}", "ns")
            if i == 40:
                api.compact(PATH)
        truth = {(obj["metadata"]["name"], obj["metadata"]["resourceVersion"]) for obj in api.collections[PATH].objects.values()}
        api.wait_for(
            lambda: {(key.name, obj.metadata.resource_version) for key, obj in it.store.snapshot().items()} == truth, timeout_s=15
        )


def test_namespaces_are_watched_one_by_one() -> None:
    with (
        FakeApi() as api,
        source(api, watch_namespaces=("one", "two"), ignore_namespaces=("two", "own"), own_namespaces=("own", "named")) as it,
    ):
        for namespace in ("one", "two", "three"):
            api.put(SERVICE.path(namespace), {"metadata": {"name": "s", "namespace": namespace}})
        for namespace in ("one", "own", "named"):
            api.put(CONFIG_MAP.path(namespace), {"metadata": {"name": "c", "namespace": namespace}})
        it.start()
        assert it.wait_synced(10)
        assert [str(key) for key in it.store(SERVICE).snapshot()] == ["one/s"]
        assert sorted(str(key) for key in it.store(CONFIG_MAP).snapshot()) == ["named/c", "own/c"]
        assert {r.path for r in api.requests} == {
            *(kind.path(n) for kind in KINDS if kind.namespaced and not kind.is_own for n in ("one", "two")),
            *(CONFIG_MAP.path(n) for n in ("own", "named")),
            *(kind.path() for kind in KINDS if not kind.namespaced),
        }
        api.put(SERVICE.path("one"), {"metadata": {"name": "t", "namespace": "one"}})
        api.wait_for(lambda: len(it.store(SERVICE)) == 2)


def test_redirects_are_not_followed() -> None:
    """The token goes to the server of the configuration and nowhere else."""
    with FakeApi() as other, FakeApi() as api:
        api.always(PATH, lambda exchange: exchange.answer(302, b"", Location=f"{other.url}{PATH}"))
        with live(api) as it:
            api.wait_for(lambda: "302" in it.reflector.progress.reason)
        assert not other.requests


def test_environment_proxies_do_not_apply_inside_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with FakeApi() as api, live(api) as it:
        api.wait_for(lambda: it.reflector.progress.synced)


def test_sockets_notice_a_peer_that_is_gone() -> None:
    with FakeApi() as api, live(api) as it:
        api.wait_for(lambda: it.reflector.progress.synced)
        (sock,) = it.transport._sockets
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
