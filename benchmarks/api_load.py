"""Writes to the API server, in a process of their own beside the one that measures.

    python -m benchmarks.api_load create ADDRESS PORT CA_FILE THREADS       objects as lines of JSON on stdin
    python -m benchmarks.api_load churn ADDRESS PORT CA_FILE PER_SECOND     EndpointSlices likewise; until stdin is closed

BENCH_TOKEN in the environment is the bearer token.  `create` prints when it began and when the last reply came, `churn` how many
it wrote and when it stopped: CLOCK_MONOTONIC, which all processes of a machine share.  It says `ready` first.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from pathlib import Path

from benchmarks.objects import Object
from tests.harness.kubeapi import Api


def main() -> int:
    """Run one of the two."""
    verb, address, port, ca_file, number = sys.argv[1:]
    api = Api(address=address, port=int(port), ca_path=Path(ca_file), token=os.environ["BENCH_TOKEN"])
    objects: list[Object] = []
    while (line := sys.stdin.readline()) not in ("", "\n"):  # an empty line ends them; stdin stays open
        objects.append(json.loads(line))
    for obj in {(obj["apiVersion"], obj["kind"]): obj for obj in objects}.values():
        api.path(obj["apiVersion"], obj["kind"])  # discovery, before the clock runs
    print("ready", flush=True)
    sys.stdin.readline()
    said = _create(api, objects, int(number)) if verb == "create" else _churn(api, objects, float(number))
    print(json.dumps(said), flush=True)
    return 0


def _create(api: Api, objects: list[Object], n_threads: int) -> dict[str, float]:
    began_s = time.monotonic()
    pending: queue.SimpleQueue[Object] = queue.SimpleQueue()
    for obj in objects:
        pending.put(obj)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                api.create(pending.get_nowait())
        except queue.Empty:
            pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return {"began_s": began_s, "ended_s": time.monotonic(), "n": len(objects)}


def _churn(api: Api, slices: list[Object], per_second: float) -> dict[str, float]:
    """Write these, again and again in their order, `per_second` in all, on two connections."""
    stop = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=await_end, daemon=True).start()
    counts = [0, 0]
    began_s = time.monotonic()
    failures: list[BaseException] = []

    def work(which: int) -> None:
        mine = slices[which::2]
        try:
            while not stop.is_set():
                stop.wait(max(0.0, began_s + (counts[which] * 2 + which) / per_second - time.monotonic()))
                api.replace(mine[counts[which] % len(mine)])
                counts[which] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return {"began_s": began_s, "ended_s": time.monotonic(), "n": sum(counts)}


if __name__ == "__main__":
    sys.exit(main())
