"""A balancer as Kubernetes is one: a prober that asks each instance's health path now and then, and, some time later, new
connections that no longer go to those that failed it.  Connections that are open stay where they are, to their end.

`balancer_server.py PLAN`, PLAN being JSON:
  {"listen": [[IP, PORT, [[IP, PORT], ...]], ...], "health": [[IP, PORT], ...], "path": "/...", "period_s": N, "delay_s": N,
   "control": [IP, PORT]}
The nth instance is the nth address everywhere.  Prints "ready".  The control port says, as a line of JSON, which instances get new
connections.  Standard library only; runs by path.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from typing import Any

PROBE_TIMEOUT_S = 5.0


class Balancer:
    """The process itself."""

    def __init__(self, plan: dict[str, Any]) -> None:
        """Prepare; every instance is out until its first probe."""
        self._plan = plan
        self._in = [False] * len(plan["health"])
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve for ever."""
        for ip, port, instances in self._plan["listen"]:
            await asyncio.start_server(lambda r, w, instances=instances: self._connection(r, w, instances), ip, port, backlog=1024)
        await asyncio.start_server(self._control, *self._plan["control"])
        print("ready", flush=True)
        await asyncio.gather(*(self._probe(n, ip, port) for n, (ip, port) in enumerate(self._plan["health"])))

    async def _probe(self, number: int, ip: str, port: int) -> None:
        while True:
            is_ready = False
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, IndexError):
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    reader, writer = await asyncio.open_connection(ip, port)
                    writer.write(f"GET {self._plan['path']} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n".encode())
                    is_ready = int((await reader.readline()).split(b" ")[1]) == 200
                    writer.close()
            if is_ready != self._in[number]:
                # What a probe finds reaches the nodes' rules later.
                await asyncio.sleep(self._plan["delay_s"])
                self._in[number] = is_ready
            await asyncio.sleep(self._plan["period_s"])

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(self._in).encode() + b"\n")
        writer.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, instances: list[list[Any]]) -> None:
        chosen = [address for address, is_in in zip(instances, self._in, strict=True) if is_in]
        try:
            ip, port = chosen[next(self._turn) % len(chosen)]
            its_reader, its_writer = await asyncio.open_connection(ip, port)
        except (OSError, ZeroDivisionError):
            writer.transport.abort()
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pump(reader, its_writer))
            tasks.create_task(_pump(its_reader, writer))
        for one in (writer, its_writer):
            one.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
        writer.write_eof()


if __name__ == "__main__":
    asyncio.run(Balancer(json.loads(sys.argv[1])).run())
