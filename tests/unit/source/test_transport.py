"""Connections to an API server: whom they trust, what they say who they are, and when that is read again."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path
from time import monotonic

import pytest

from atsk8s.errors import KubeError
from atsk8s.source.kube import credentials, transport
from atsk8s.source.kube.credentials import Credentials
from atsk8s.source.kube.transport import KubeTransport
from tests.harness.fakeapi import FakeApi
from tests.unit.source.live import PATH, a, live
from tests.unit.source.self_signed import certificate


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
