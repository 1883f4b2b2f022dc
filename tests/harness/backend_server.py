"""The backends behind an ingress under test: one process that is many pods, answers what it was asked, and misbehaves.

`backend_server.py --control ADDR:PORT --listen APP=ADDR:PORT[?BEHAVIOUR] …` prints "ready" once every address is bound;
SIGTERM lets requests in flight end and exits 0.  Plain HTTP/1.1 (RFC 9112) and WebSocket echo (RFC 6455).

A request's query says how to answer it; a pod's own BEHAVIOUR, same words, is what a request does not say itself:
  (nothing)             JSON: app, pod, peer, method, target, version, headers as received, body_bytes, connection
  format=text           one line instead: APP POD METHOD TARGET
  echo=1                the request's body, with its content type
  size=N                N bytes of a fixed pattern
  chunked=1             without Content-Length
  status=N              that status code
  slow_ms=N             wait before the answer;  drip_ms=N wait in the middle of its body
  reset=before|mid      TCP reset instead of the answer, or after half its body;  close=before|mid the same by FIN
  close=after           end the connection after the answer
  cache_control=V       that Cache-Control header;  header=NAME:VALUE any header, repeatable
The control address answers /counts, /requests (the last ones, oldest first), /clear and /behave?pod=POD&behaviour=QUERY.
Only the standard library and its neighbours: it is run by path, isolated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.harness.backend_connection import Connection
from tests.harness.backend_pods import BACKLOG, Backend, Pod, address_name, split_address
from tests.harness.backend_request import parsed_behaviour

DRAIN_TIMEOUT_S = 10.0


async def serve(listens: list[str], control: str) -> None:
    """Bind everything, say so, and serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    backend = Backend()
    servers = []

    def factory(pod: Pod, *, is_control: bool) -> Callable[[], Connection]:
        return lambda: Connection(backend, pod, is_control=is_control)

    for listen in listens:
        app, _, rest = listen.partition("=")
        address, _, behaviour = rest.partition("?")
        host, port = split_address(address)
        pod = Pod(app=app, name=address_name(host, port), behaviour=parsed_behaviour(behaviour))
        backend.pods[pod.name] = pod
        servers.append(await loop.create_server(factory(pod, is_control=False), host, port, backlog=BACKLOG))
    control_pod = Pod(app="control", name=control, behaviour={})
    servers.append(await loop.create_server(factory(control_pod, is_control=True), *split_address(control)))

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print("ready", flush=True)
    await stop.wait()
    backend.is_stopping = True
    for server in servers:
        server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            while connections := [c for pod in (*backend.pods.values(), control_pod) for c in pod.connections]:
                for connection in connections:
                    if connection.is_idle:
                        connection.close()
                await asyncio.sleep(0.01)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="backends of an ingress under test")
    parser.add_argument("--listen", action="append", required=True, metavar="APP=ADDR:PORT[?BEHAVIOUR]")
    parser.add_argument("--control", required=True, metavar="ADDR:PORT")
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.listen, arguments.control))
    except (OSError, ValueError) as failure:
        sys.exit(f"backend_server: {failure}")
