"""Ports of a server_ports record, and what the kernel says of this process."""

import socket

import pytest

from atsk8s.listening import listening_ports, ports_of


@pytest.mark.parametrize(
    ("record", "ports"),
    [
        ("8080", [8080]),
        ("8080 8443:ssl", [8080, 8443]),
        ("8080:ipv6, 8443:ssl:ip-in=127.0.0.1", [8080, 8443]),
        ("", []),
        ("stdin:fd=3", []),
    ],
)
def test_ports_of_a_record(record: str, ports: list[int]) -> None:
    assert ports_of(record) == ports


def test_a_listening_socket_of_ours_is_seen_until_it_closes() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert port not in listening_ports()
        server.listen()
        assert port in listening_ports()
    assert port not in listening_ports()
