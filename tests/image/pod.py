"""What is served through the image: the hosts, and the one pod behind them, inside the network of the container."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Generator
from typing import Any

from tests.harness import podnet

HOST = "shop.test"
SNIPPET_HOST = "snippet.test"  # its Ingress has Lua, which answers with
SNIPPET_SAYS = "not today"
POD_IP, POD_PORT = "10.244.1.5", 9001
HOLD_TIMEOUT_S = 60.0


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
            Pod.released.wait(HOLD_TIMEOUT_S)
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
