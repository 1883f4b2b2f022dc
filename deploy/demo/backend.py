"""One pod of the demo: an HTTP server in a process of its own that says who answered.

Usage: backend.py ADDRESS PORT NAMESPACE APP POD
"""

from __future__ import annotations

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BODY_BYTES_MAX = 1 << 20


class Handler(BaseHTTPRequestHandler):
    """Answers every request with one line of text."""

    protocol_version = "HTTP/1.1"  # keeps connections open, as real backends do
    timeout = 60.0
    identity = ""

    def _answer(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _BODY_BYTES_MAX:
            self.close_connection = True
        elif int(length):
            self.rfile.read(int(length))
        seen = "".join(char if char.isprintable() else "?" for char in f"{self.headers.get('Host', '')}{self.path}"[:200])
        body = f"{self.identity}; asked for {seen}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing: the demo's output is the conversation."""


class Server(ThreadingHTTPServer):
    """Its threads do not hold up the end."""

    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    """Serve until SIGTERM."""
    address, port, namespace, app, pod = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which ends us after Traffic Server
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Handler.identity = f"{app} (namespace {namespace}, pod {pod})"
    with Server((address, int(port)), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
