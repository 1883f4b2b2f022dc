"""gRPC, which Traffic Server 9.2 cannot carry: who asks for it is told so in its own terms, and what only looks like it passes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy.compile import Build
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.authority import Authority
from tests.harness.backends import Backends, Pod
from tests.harness.manifests import app, ingress, path, tls_secret

POD = Pod(app="pod", ip="127.0.11.1")


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    with Backends((POD,), directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(scope="module")
def running(build: Build, backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Generator[Ats]:
    pair = Authority(tmp_path_factory.mktemp("authority") / "ca.pem").pair(["grpc.test"])
    with ats_directory() as directory:
        made = Ats(build, directory, options=Options(plugin_options=["--default-certificate=test/pair"]))
        objects = [ingress("grpc", {"grpc.test": [path("pod")]}), *app("pod", [POD.ip])]
        made.write("site.yaml", [*objects, tls_secret("pair", pair.certificate, pair.key)])
        with made:
            yield made


def http2_frames(ats: Ats, content_type: str, body: Path) -> str:
    """Send a POST over HTTP/2 with nghttp, and return what it saw, frame by frame."""
    command = ["nghttp", "--verbose", "--no-dep", "--timeout=10", "--header=:method: POST", "--header=:authority: grpc.test"]
    command += [f"--header=content-type: {content_type}", "--header=te: trailers", f"--data={body}"]
    url = f"https://{ats.options.address}:{ats.https_port}/package.Service/Method"
    done = subprocess.run([*command, url], capture_output=True, timeout=30, check=True)
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode())


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto"])
def test_answer_is_trailers_only(ats: Ats, backends: Backends, tmp_path: Path, content_type: str) -> None:
    """One HEADERS frame that ends the stream, with status and message: gRPC over HTTP/2, "Responses"."""
    before = ats.counter("atsk8s_requests_total", result="grpc")
    message = tmp_path / "message"
    message.write_bytes(b"\0\0\0\0\0")  # a frame without content
    seen = http2_frames(ats, content_type, message)
    assert re.search(r"recv \(stream_id=\d+\) :status: 200\n", seen), seen
    for field in ("content-type: application/grpc", "grpc-status: 12"):
        assert re.search(rf"\) {re.escape(field)}\n", seen), seen
    assert re.search(r"grpc-message: .*gRPC-Web", seen), seen
    frames = re.findall(r"recv (HEADERS|DATA|RST_STREAM) frame <length=(\d+), flags=0x([0-9a-f]+)", seen)
    assert frames[0][0] == "HEADERS" and int(frames[0][2], 16) & 1, f"the header ends the stream: {frames}\n{seen}"
    assert ats.counter("atsk8s_requests_total", result="grpc") == before + 1
    assert not backends.requests()


def test_http1_client_is_told_too(ats: Ats) -> None:
    answer = ats.get("/", host="grpc.test", method="POST", headers=[("Content-Type", "application/grpc")], body=b"\0\0\0\0\0")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("grpc-status") == "12"


@pytest.mark.parametrize("content_type", ["application/grpc-web", "application/grpc-web-text+proto", "application/json"])
def test_others_pass(ats: Ats, content_type: str) -> None:
    """gRPC-Web has its trailers in the body."""
    answer = ats.get("/", host="grpc.test", method="POST", headers=[("Content-Type", content_type)], body=b"\0\0\0\0\0")
    assert answer.status == 200 and answer.json()["body_bytes"] == 5


def test_get_is_not_looked_at(ats: Ats) -> None:
    answer = ats.get("/", host="grpc.test", headers=[("Content-Type", "application/grpc")])
    assert answer.status == 200 and answer.json()["app"] == "pod"
