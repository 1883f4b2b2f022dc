"""An API server for the faults that a real one cannot be made to show: real sockets, HTTP/1.1, chunked watches, scripted answers.

It has collections (by path) with objects, versions and a history, and answers lists (with pages), watches and streamed lists from
them like the real one.  `FakeApi.script(path, answer, …)` puts answers of your own in front: each is a function that gets the
`Exchange` and may send whatever it likes, byte by byte, or nothing.

    with FakeApi() as api:
        api.put("/api/v1/services", {"metadata": {"name": "a", "namespace": "ns"}})
        api.script("/api/v1/services", refuse(503), hold)   # the next two requests for it; then it answers by itself again
        ...
        api.wait_for(lambda: len(api.requests) >= 3)

Nothing sleeps: waiting is on conditions, and `close` wakes whatever is held.  One thread per connection.
"""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import ssl
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.harness.patience import stretched

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    at: float  # time.monotonic
    body: bytes = b""

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"


class Gone(Exception):
    """The client, or this server, has closed the connection."""


@dataclass
class Exchange:
    """A request, and the ways to answer it.  `send` is raw; `start`, `chunk` and `finish` make a chunked answer."""

    request: Request
    api: FakeApi
    connection: socket.socket

    def send(self, data: bytes) -> None:
        try:
            self.connection.sendall(data)
        except OSError:
            raise Gone from None

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        """A whole answer; header names with `_` for `-`."""
        lines = [f"HTTP/1.1 {code} Reason", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def answer_json(self, code: int, body: Json, **headers: str) -> None:
        self.answer(code, json.dumps(body).encode(), **headers)

    def start(self) -> None:
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, kind: str, obj: Json) -> None:
        self.chunk(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    def finish(self) -> None:
        self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        """RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone

    def hang_up(self) -> None:
        """FIN, wherever in the answer we are."""
        raise Gone

    def hold(self) -> None:
        """Say nothing more, keep the connection, until this server closes or the client goes."""
        self.connection.settimeout(None)
        with contextlib.suppress(OSError):
            while self.connection.recv(4096):
                pass
        raise Gone


Answer = Callable[[Exchange], None]


def refuse(code: int, reason: str = "", *, cause: str = "", retry_after_s: int | None = None) -> Answer:
    """A metav1.Status."""

    def answer(exchange: Exchange) -> None:
        details = {"causes": [{"reason": cause}]} if cause else {}
        headers = {"Retry_After": str(retry_after_s)} if retry_after_s is not None else {}
        exchange.answer_json(code, {"kind": "Status", "code": code, "reason": reason, "details": details}, **headers)

    return answer


def hold(exchange: Exchange) -> None:
    """Accept the request and never answer."""
    exchange.hold()


def hang_up(exchange: Exchange) -> None:
    """Close without an answer."""
    exchange.hang_up()


def reset(exchange: Exchange) -> None:
    """RST without an answer."""
    exchange.reset()


@dataclass
class Collection:
    """Objects of one kind, and what happened to them."""

    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    history: list[tuple[int, str, Json]] = field(default_factory=list)  # version, event type, object
    compacted: int = 0  # watches from before this version get 410
    pages: dict[str, tuple[int, list[Json]]] = field(default_factory=dict)


class FakeApi:
    """See the module.

    Args:
        tls: serve HTTPS with this context.
        port: 0 for a free one; give that of a closed server to restart it.
        streams_lists: whether `sendInitialEvents` is understood; 422 otherwise, as servers before 1.27 do.
        bookmark_s: how often a watch that asks for bookmarks gets one.
    """

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, port: int = 0, streams_lists: bool = True, bookmark_s: float = 60.0
    ) -> None:
        self.requests: list[Request] = []
        self.streams_lists = streams_lists
        self.bookmark_s = bookmark_s
        self.version = 100
        self.collections: dict[str, Collection] = defaultdict(Collection)
        self.n_connections = 0
        self.required_token: str | None = None  # without it: 401
        self._tls = tls
        self._scripts: dict[str, deque[Answer]] = defaultdict(deque)
        self._always: dict[str, Answer] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._spawn(self._accept)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What a test does ---------------------------------------------------------------------------------------------------------

    def put(self, path: str, obj: Json) -> Json:
        """Create or change an object; it gets the next version (and a uid if it has none)."""
        with self._changed:
            self.version += 1
            meta = {"uid": f"uid-{self.version}"} | obj["metadata"] | {"resourceVersion": str(self.version)}
            stored = {**obj, "metadata": meta}
            key = (meta.get("namespace", ""), meta["name"])
            collection = self.collections[path]
            kind = "MODIFIED" if key in collection.objects else "ADDED"
            collection.objects[key] = stored
            collection.history.append((self.version, kind, stored))
            self._changed.notify_all()
            return stored

    def delete(self, path: str, name: str, namespace: str = "") -> None:
        with self._changed:
            self.version += 1
            collection = self.collections[path]
            stored = collection.objects.pop((namespace, name))
            stored = {**stored, "metadata": {**stored["metadata"], "resourceVersion": str(self.version)}}
            collection.history.append((self.version, "DELETED", stored))
            self._changed.notify_all()

    def compact(self, path: str) -> None:
        """Forget the history: a watch from before now gets 410."""
        with self._changed:
            collection = self.collections[path]
            collection.history.clear()
            collection.compacted = self.version

    def backup(self) -> tuple[int, dict[str, Collection]]:
        """What `restore` goes back to."""
        with self._changed:
            return self.version, copy.deepcopy(self.collections)

    def restore(self, backup: tuple[int, dict[str, Collection]]) -> None:
        """An older state, as an etcd restored from a backup has it, under an API server that was started again for it."""
        with self._changed:
            self.version, collections = backup[0], copy.deepcopy(backup[1])
            self.collections = defaultdict(Collection, collections)
            self._changed.notify_all()
        self.cut()

    def script(self, path: str, *answers: Answer) -> None:
        """Answer the next requests for `path` like this."""
        with self._changed:
            self._scripts[path].extend(answers)

    def always(self, path: str, answer: Answer | None) -> None:
        """Answer every request for `path` like this, after what `script` says; None: by itself again."""
        with self._changed:
            if answer is None:
                self._always.pop(path, None)
            else:
                self._always[path] = answer

    def asked(self, path: str) -> list[Request]:
        """The requests for `path` so far."""
        return [request for request in self.requests if request.path == path]

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait until `condition` holds; it is looked at after every request and change, and now and then."""
        deadline = time.monotonic() + stretched(timeout_s)
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(
                        f"not within {timeout_s} s; requests: {[(r.path, dict(r.query)) for r in self.requests[-8:]]}"
                    )
                self._changed.wait(min(left, 0.01))  # what is waited for may be the client's state, which tells us nothing

    def cut(self) -> None:
        """Close every connection, as a crash of the server would; it goes on accepting."""
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, close everything, end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(5)

    # Connections --------------------------------------------------------------------------------------------------------------

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True, name="fakeapi")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._closing:
                    connection.close()
                    return
                self.n_connections += 1
                self._connections.add(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._spawn(self._serve, connection)

    def _serve(self, raw: socket.socket) -> None:
        connection = raw
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(raw, server_side=True)
                with self._changed:
                    self._connections.add(connection)
            for request in self._requests(connection):
                exchange = Exchange(request, self, connection)
                self._answer(exchange)
        except (Gone, OSError, ValueError):
            pass
        finally:
            with self._changed:
                self._connections -= {raw, connection}
                self._changed.notify_all()
            connection.close()
            raw.close()

    def _requests(self, connection: socket.socket) -> Iterator[Request]:
        with connection.makefile("rb") as stream:
            while line := stream.readline(65536):
                method, target, _ = line.decode("latin-1").split(" ", 2)
                headers: dict[str, str] = {}
                while (header := stream.readline(65536).strip()) != b"":
                    name, _, value = header.decode("latin-1").partition(":")
                    headers[name.strip().lower()] = value.strip()
                url = urlsplit(target)
                query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                body = stream.read(int(headers.get("content-length", "0")))
                yield Request(method, url.path, query, headers, time.monotonic(), body)

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        with self._changed:
            self.requests.append(request)
            script = self._scripts[request.path]
            answer = script.popleft() if script else self._always.get(request.path, self._by_itself)
            self._changed.notify_all()
        answer(exchange)

    # A server's usual behaviour -----------------------------------------------------------------------------------------------

    def _by_itself(self, exchange: Exchange) -> None:
        request = exchange.request
        if self.required_token is not None and request.headers.get("authorization") != f"Bearer {self.required_token}":
            refuse(401, "Unauthorized")(exchange)
        elif request.is_watch:
            self.watch(exchange)
        else:
            self.list(exchange)

    def list(self, exchange: Exchange) -> None:
        """A list, in pages if asked."""
        query = exchange.request.query
        with self._changed:
            collection = self.collections[exchange.request.path]
            if "continue" in query:
                version, left = collection.pages.pop(query["continue"], (0, []))
            else:
                version, left = self.version, list(collection.objects.values())
            asked = query.get("resourceVersion", "0")
            limit = int(query.get("limit", "0")) or len(left)
            is_exact = "limit" in query and asked not in ("", "0") and "resourceVersionMatch" not in query
            if is_exact:  # API concepts, "the resourceVersion parameter": with a limit, unset means Exact
                version = int(asked)
            meta: Json = {"resourceVersion": str(version)}
            if len(left) > limit:
                meta["continue"] = f"page-{version}-{len(left)}"
                collection.pages[meta["continue"]] = (version, left[limit:])
        if int(asked or 0) > self.version:
            refuse(504, "Timeout", cause="ResourceVersionTooLarge", retry_after_s=1)(exchange)
        elif "continue" in query and not version:
            refuse(410, "Expired")(exchange)
        else:
            exchange.answer_json(200, {"kind": "List", "metadata": meta, "items": left[:limit]})

    def watch(self, exchange: Exchange) -> None:
        """History from the version asked for, then what happens, until `timeoutSeconds`."""
        query = exchange.request.query
        collection = self.collections[exchange.request.path]
        streams = query.get("sendInitialEvents") == "true"
        if streams and not self.streams_lists:
            refuse(422, "Invalid")(exchange)
            return
        since = int(query.get("resourceVersion") or 0)
        ends = time.monotonic() + float(query.get("timeoutSeconds", "300"))
        initial: list[Json] = []
        with self._changed:
            if streams:
                since, initial = self.version, list(collection.objects.values())
            expired = since < collection.compacted
        exchange.start()
        if expired:
            exchange.event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})
            exchange.finish()
            return
        for obj in initial:
            exchange.event("ADDED", obj)
        if streams:
            self.bookmark(exchange, since, ends_list=True)
        bookmarked = time.monotonic()
        while True:
            with self._changed:
                news = [entry for entry in collection.history if entry[0] > since]
                now = time.monotonic()
                if not news and not self._closing and now < ends and now - bookmarked < self.bookmark_s:
                    self._changed.wait(min(ends - now, self.bookmark_s - (now - bookmarked)))
                    continue
                if self._closing or self.collections[exchange.request.path] is not collection:
                    raise Gone
            for version, kind, obj in news:
                exchange.event(kind, obj)
                since = version
            if now - bookmarked >= self.bookmark_s or now >= ends:
                since = max(since, self.version)
                self.bookmark(exchange, since)
                bookmarked = now
            if now >= ends:
                exchange.finish()
                return

    def bookmark(self, exchange: Exchange, version: int, *, ends_list: bool = False) -> None:
        meta: Json = {"resourceVersion": str(version), "creationTimestamp": None}
        if ends_list:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        exchange.event("BOOKMARK", {"metadata": meta})
