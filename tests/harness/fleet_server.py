"""Pods that come, go and fail while they serve: one process, driven over its control address.

`fleet_server.py --control ADDR:PORT` prints "ready".  Beyond the behaviours of backend_server.py a query may say:
  reset=head            TCP reset in the middle of the answer's header
  garbage=1             bytes that are no HTTP at all, then the end
  hang=before|head|after  nothing at all; half a header, then nothing; the header and half the body, then nothing
  idle_ms=N             a connection is closed N ms after an answer if no byte has come since
  only=METHOD           the misbehaviour is for this method alone
The control address answers, besides what backend_server.py does:
  /start?pod=POD&app=APP&behaviour=QUERY     listen
  /refuse?pod=POD       listen no more; connections that are open stay
  /listen?pod=POD       listen again
  /terminate?pod=POD&accept_ms=N    what a pod does at SIGTERM: accept for N ms more, then close what is idle, end what is under
                        way, and send WebSockets a Close frame (1001, going away)
  /kill?pod=POD         reset every connection and be gone
  /behave?pods=POD,POD&behaviour=QUERY    of several pods
  /executions           how many ids POSTs came with (?id=ID), and how often the most frequent one did
Only the standard library and its neighbours: it is run by path, isolated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.harness import backend_connection
from tests.harness.backend_pods import BACKLOG, Backend, Pod, split_address
from tests.harness.backend_request import Request, parsed_behaviour

CLOSE_TIMEOUT_S = 5.0  # for a client to answer the Close frame, and for an answer under way
GARBAGE_BYTES = 300
MAX_REMEMBERED_BODIES = 200_000


class Connection(backend_connection.Connection):
    """A connection that can fail in more ways."""

    def __init__(self, fleet: Fleet, pod: Pod, *, is_control: bool) -> None:
        super().__init__(fleet, pod, is_control=is_control)
        self._fleet = fleet
        self._idle: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """As the base, and the idle clock stops."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        super().data_received(data)

    def _keeps(self, request: Request) -> bool:
        return super()._keeps(request) and self._pod.name not in self._fleet.terminating

    def _control_answer(self, request: Request) -> bool:
        """Answer what only a fleet knows; say whether it was that."""
        work = self._fleet.command(request)
        if work is None:
            return False

        async def run() -> None:
            found = await work
            self._write_whole(request, 200, json.dumps(found).encode(), "application/json")
            self._is_busy = False
            self.data_received(b"")

        self._is_busy = True
        self._spawn(run())
        return True

    def _answer(self, request: Request) -> None:
        if self._is_control:
            if not self._control_answer(request):
                super()._answer(request)
            return
        if request.method == "POST" and request.wants("id"):
            self._fleet.note_execution(request.wants("id"))
        only = request.wants("only")
        applies = not only or only == request.method
        if not applies:
            request.behaviour = {}
        kinds = request.behaviour.keys() & {"garbage", "hang"} or (request.wants("reset") == "head" and {"reset"})
        if kinds:
            self._pod.n_requests += 1
            self._is_busy = True
            self._spawn(self._misbehave(request))
            return
        super()._answer(request)
        if request.wants_number("idle_ms") and not self._is_websocket:
            self._idle = asyncio.get_running_loop().call_later(request.wants_number("idle_ms") / 1000, self._close_idle)

    def _close_idle(self) -> None:
        if self.is_idle and not self._transport.is_closing():
            self._transport.close()

    async def _misbehave(self, request: Request) -> None:
        content, content_type = self._content(request)
        head = self._head(request, 200, content_type, f"Content-Length: {len(content)}", keep=True)
        if request.wants("garbage"):
            self._transport.write(random.Random(len(head)).randbytes(GARBAGE_BYTES))
            self._transport.close()
            return
        if request.wants("reset") == "head":
            self._transport.write(head[: len(head) // 2])
            await asyncio.sleep(0.02)  # the bytes before the end must not be overtaken by it
            self.abort()
            return
        match request.wants("hang"):
            case "head":
                self._transport.write(head[: len(head) // 2])
            case "after":
                self._transport.write(head + content[: len(content) // 2])
        await asyncio.Event().wait()  # until the connection is lost, which cancels us


class Fleet(Backend):
    """Every pod, and what becomes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.terminating: set[str] = set()
        self.executions: dict[str, int] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def note_execution(self, request_id: str) -> None:
        """Count that a pod took a request that must not be executed twice."""
        if len(self.executions) < MAX_REMEMBERED_BODIES:
            self.executions[request_id] = self.executions.get(request_id, 0) + 1

    def command(self, request: Request) -> Any:
        """The awaitable answer to a control request, None if it is none of ours."""
        name = request.wants("pod")
        match request.target.split("?")[0]:
            case "/start":
                return self._start(name, request.wants("app"), request.wants("behaviour"))
            case "/refuse":
                return self._refuse(name)
            case "/listen":
                return self._listen(name)
            case "/terminate":
                return self._terminate(name, request.wants_number("accept_ms") / 1000)
            case "/kill":
                return self._kill(name)
            case "/executions":
                return self._executions()
            case "/behave" if request.wants("pods"):
                return self._behave(request.wants("pods").split(","), request.wants("behaviour"))
        return None

    async def _behave(self, names: list[str], behaviour: str) -> dict[str, str]:
        for name in names:
            self.pods[name].behaviour = parsed_behaviour(behaviour)
        return {}

    async def _executions(self) -> dict[str, int]:
        return {"ids": len(self.executions), "most": max(self.executions.values(), default=0)}

    async def _start(self, names: str, app: str, behaviour: str) -> dict[str, str]:
        for name in names.split(","):
            self.pods[name] = Pod(app=app, name=name, behaviour=parsed_behaviour(behaviour))
            self.terminating.discard(name)
            await self._listen(name)
        return {}

    async def _listen(self, name: str) -> dict[str, str]:
        pod = self.pods[name]
        if name not in self._servers:
            loop = asyncio.get_running_loop()
            self._servers[name] = await loop.create_server(
                lambda: Connection(self, pod, is_control=False), *split_address(name), backlog=BACKLOG
            )
        return {}

    async def _refuse(self, name: str) -> dict[str, str]:
        if server := self._servers.pop(name, None):
            server.close()
        return {}

    async def _terminate(self, names: str, accept_s: float) -> dict[str, str]:
        for name in names.split(","):
            task = asyncio.get_running_loop().create_task(self._end(name, accept_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return {}

    async def _end(self, name: str, accept_s: float) -> None:
        pod = self.pods[name]
        await asyncio.sleep(accept_s)
        self.terminating.add(name)
        await self._refuse(name)
        for connection in list(pod.connections):
            connection.go_away(timeout_s=CLOSE_TIMEOUT_S)
        deadline = asyncio.get_running_loop().time() + CLOSE_TIMEOUT_S
        while pod.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
            for connection in list(pod.connections):
                if not connection._is_websocket and connection.is_idle:
                    connection.close()
        for connection in list(pod.connections):
            connection.abort()
        if self.pods.get(name) is pod:
            del self.pods[name]

    async def _kill(self, name: str) -> dict[str, str]:
        await self._refuse(name)
        for connection in list(self.pods[name].connections):
            connection.abort()
        return {}


async def serve(control: str) -> None:
    """Serve until SIGTERM."""
    fleet, loop = Fleet(), asyncio.get_running_loop()
    pod = Pod(app="control", name=control, behaviour={})
    await loop.create_server(lambda: Connection(fleet, pod, is_control=True), *split_address(control))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print("ready", flush=True)
    await stop.wait()
    os._exit(0)  # the pods' own end is a matter of /terminate


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="pods that come, go and fail")
    parser.add_argument("--control", required=True, metavar="ADDR:PORT")
    asyncio.run(serve(parser.parse_args().control))
