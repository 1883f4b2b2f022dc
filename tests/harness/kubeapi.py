"""A small Kubernetes API client for tests: plain dicts in and out, connections made inside a Place.

Not the product's client, and not built from it: what tests write must not depend on what they test.  It never retries
and never hides a status.  An Api may be used from any thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tests.harness import processes

# Objects are as the API has them; a test that indexes into one is its type check.
JsonObject: TypeAlias = dict[str, Any]

PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
PatchType: TypeAlias = Literal["json", "merge", "strategic", "apply"]

_FIELD_MANAGER = "tests"


class ApiError(Exception):
    """The API server refused a request: HTTP status code, Status.reason and Status.message (meta/v1)."""

    def __init__(self, request: str, answer: Answer) -> None:
        """Keep what the server said about `request` ("GET /api/v1/pods")."""
        try:
            status = answer.json()
        except ValueError:
            status = {}
        self.status = answer.status
        self.reason = str(status.get("reason", ""))
        self.message = str(status.get("message", answer.body[:500].decode(errors="replace")))
        super().__init__(f"{request}: {self.status} {self.reason}: {self.message}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> JsonObject:
        """Return the body as the object it is.  Raises ValueError for anything else."""
        parsed = json.loads(self.body)
        if not isinstance(parsed, dict):
            raise ValueError(f"expected a JSON object, got {type(parsed).__name__}")
        return parsed


class _Connection(http.client.HTTPSConnection):
    """An HTTPS connection whose socket is made inside a place."""

    def __init__(self, place: processes.Place, address: str, port: int, tls: ssl.SSLContext, timeout_s: float) -> None:
        super().__init__(address, port, context=tls, timeout=timeout_s)
        self._place, self._tls, self._timeout_s = place, tls, timeout_s

    def connect(self) -> None:
        sock = processes.connect(self._place, self.host, self.port, timeout_s=self._timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock = self._tls.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise


class Api:
    """The API server as one user sees it."""

    def __init__(
        self,
        *,
        address: str,
        port: int,
        ca_path: Path,
        token: str,
        place: processes.Place = processes.LOOPBACK,
        timeout_s: float = 30.0,
    ) -> None:
        """Prepare; nothing is sent, and `ca_path` (PEM) is read at the first request.

        Args:
            address: an IP address of the server that its certificate names.
            port: its HTTPS port.
            ca_path: the certificate that signed the server's.
            token: bearer token of the user.
            place: where connections are made.
            timeout_s: bound of each connect, send and receive.
        """
        self.address, self.port = address, port
        self._ca_path, self._token, self._place, self._timeout_s = ca_path, token, place, timeout_s
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._derived: list[Api] = []
        self._tls: ssl.SSLContext | None = None
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    def with_token(self, token: str) -> Api:
        """Return the same API server as another user sees it; our close() closes its connections, too."""
        other = Api(
            address=self.address,
            port=self.port,
            ca_path=self._ca_path,
            token=token,
            place=self._place,
            timeout_s=self._timeout_s,
        )
        with self._lock:
            self._derived.append(other)
        return other

    def close(self) -> None:
        """Close idle connections; needed after the server was restarted, since a request on one would fail."""
        with self._lock:
            idle, self._idle = self._idle, []
            derived = tuple(self._derived)
        for connection in idle:
            connection.close()
        for other in derived:
            other.close()

    # --- any request ------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content_type: str = "application/json",
        query: Mapping[str, str | int] | None = None,
    ) -> Answer:
        """Send one request and return the answer, whatever its status.

        Args:
            method: HTTP method.
            path: absolute path, percent-encoded.
            body: sent as JSON, unless None.
            content_type: of the body.
            query: parameters.

        Raises:
            OSError, http.client.HTTPException: no answer.
        """
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connection()
        try:
            self._send(connection, method, _with_query(path, query), body, content_type)
            response = connection.getresponse()
            answer = Answer(status=response.status, headers=dict(response.getheaders()), body=response.read())
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        return answer

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content_type: str = "application/json",
        query: Mapping[str, str | int] | None = None,
    ) -> JsonObject:
        """Send one request and return the object answered.  Raises ApiError unless the status is 2xx; as `request`."""
        answer = self.request(method, path, body=body, content_type=content_type, query=query)
        if not 200 <= answer.status < 300:
            raise ApiError(f"{method} {path}", answer)
        return answer.json()

    def _connection(self) -> _Connection:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=str(self._ca_path))
            tls = self._tls
        return _Connection(self._place, self.address, self.port, tls, self._timeout_s)

    def _send(self, connection: _Connection, method: str, target: str, body: object, content_type: str) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        encoded = None
        if body is not None:
            encoded = json.dumps(body).encode()
            headers["Content-Type"] = content_type
        connection.request(method, target, body=encoded, headers=headers)

    # --- objects ----------------------------------------------------------------------------------

    def path(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
    ) -> str:
        """Return the path of an object, or of all objects of a kind, from the server's own discovery.

        Args:
            api_version: "v1", "networking.k8s.io/v1".
            kind: "Ingress".
            namespace: None means "default" for one namespaced object, all namespaces for a list.
            name: of the object; None for the collection.
            subresource: "status", "token".

        Raises:
            ApiError: no such group and version.
            KeyError: the group has no such kind.
        """
        prefix = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        if api_version not in self._kinds:
            listed = self.call("GET", prefix)["resources"]
            self._kinds[api_version] = {r["kind"]: (r["name"], bool(r["namespaced"])) for r in listed if "/" not in r["name"]}
        plural, is_namespaced = self._kinds[api_version][kind]
        if is_namespaced and (namespace or name):
            prefix += f"/namespaces/{namespace or 'default'}"
        return "/".join(filter(None, (prefix, plural, name, subresource)))

    def create(self, obj: JsonObject) -> JsonObject:
        """Create an object (POST) and return it as stored.  An absent namespace means "default"."""
        metadata = obj["metadata"]
        namespace = metadata.get("namespace", "default")
        return self.call("POST", self.path(obj["apiVersion"], obj["kind"], namespace=namespace), body=obj)

    def get(self, api_version: str, kind: str, name: str, *, namespace: str | None = None) -> JsonObject:
        """Return one object."""
        return self.call("GET", self.path(api_version, kind, namespace=namespace, name=name))

    def list(
        self, api_version: str, kind: str, *, namespace: str | None = None, query: Mapping[str, str | int] | None = None
    ) -> JsonObject:
        """Return a whole list object: items, and metadata with the resourceVersion."""
        return self.call("GET", self.path(api_version, kind, namespace=namespace), query=query)

    def replace(self, obj: JsonObject, *, subresource: str | None = None) -> JsonObject:
        """Replace an object (PUT); with a resourceVersion in it, only that version, else ApiError 409."""
        return self.call("PUT", self._path_of(obj, subresource), body=obj)

    def apply(self, obj: JsonObject, *, subresource: str | None = None) -> JsonObject:
        """Create or change an object by server-side apply, taking over fields that others own."""
        query = {"fieldManager": _FIELD_MANAGER, "force": "true"}
        content_type = PATCH_TYPES["apply"]
        return self.call("PATCH", self._path_of(obj, subresource), body=obj, content_type=content_type, query=query)

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        patch: object,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        patch_type: PatchType = "merge",
    ) -> JsonObject:
        """Change an object or its subresource by a patch; a JSON patch is a list, every other one a dict."""
        path = self.path(api_version, kind, namespace=namespace, name=name, subresource=subresource)
        return self.call("PATCH", path, body=patch, content_type=PATCH_TYPES[patch_type])

    def delete(self, api_version: str, kind: str, name: str, *, namespace: str | None = None, grace_s: int | None = None) -> None:
        """Ask for an object's deletion.

        Args:
            api_version: as for `path`.
            kind: as for `path`.
            name: of the object.
            namespace: of the object; None means "default".
            grace_s: a Pod on a node stays, terminating, for ever without a kubelet unless this is 0.
        """
        body = {"apiVersion": "v1", "kind": "DeleteOptions"} | ({} if grace_s is None else {"gracePeriodSeconds": grace_s})
        self.call("DELETE", self.path(api_version, kind, namespace=namespace, name=name), body=body)

    def watch(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        resource_version: str | None = None,
        timeout_s: int | None = None,
        bookmarks: bool = False,
    ) -> Generator[JsonObject]:
        """Yield watch events ({"type", "object"}) until the server ends the watch; ERROR events are events, too.

        Args:
            api_version: as for `path`.
            kind: as for `path`.
            namespace: None watches all.
            resource_version: the version to start after; None starts with all present objects as ADDED.
            timeout_s: asks the server to end the watch after so many seconds.
            bookmarks: asks for BOOKMARK events, too.

        Raises:
            ApiError: refused.
            OSError, http.client.HTTPException: the connection broke.
        """
        query: dict[str, str | int] = {"watch": "true", "allowWatchBookmarks": "true" if bookmarks else "false"}
        if resource_version is not None:
            query["resourceVersion"] = resource_version
        if timeout_s is not None:
            query["timeoutSeconds"] = timeout_s
        path = self.path(api_version, kind, namespace=namespace)
        with contextlib.closing(self._connection()) as connection:
            self._send(connection, "GET", _with_query(path, query), None, "")
            response = connection.getresponse()
            if response.status != 200:
                answer = Answer(status=response.status, headers=dict(response.getheaders()), body=response.read())
                raise ApiError(f"GET {path}?watch", answer)
            # By read1, which raises when the connection breaks inside a chunk; iterating over the response would end
            # as if the server had ended the watch.
            pending = b""
            while part := response.read1():
                *lines, pending = (pending + part).split(b"\n")
                for line in lines:
                    yield json.loads(line)

    def _path_of(self, obj: JsonObject, subresource: str | None) -> str:
        metadata = obj["metadata"]
        return self.path(
            obj["apiVersion"],
            obj["kind"],
            namespace=metadata.get("namespace"),
            name=metadata["name"],
            subresource=subresource,
        )


def _with_query(path: str, query: Mapping[str, str | int] | None) -> str:
    return f"{path}?{urllib.parse.urlencode(query)}" if query else path


def post_json(place: processes.Place, ip: str, port: int, path: str, body: JsonObject) -> JsonObject:
    """POST JSON over plain HTTP on a connection of its own, and return the JSON object answered.

    Raises:
        ApiError: a status other than 200.
        OSError, http.client.HTTPException: no answer.
    """
    connection = http.client.HTTPConnection(ip, port, timeout=30)
    connection.sock = processes.connect(place, ip, port, timeout_s=30)
    with contextlib.closing(connection):
        connection.request("POST", path, body=json.dumps(body), headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = Answer(status=response.status, headers=dict(response.getheaders()), body=response.read())
    if answer.status != 200:
        raise ApiError(f"POST {path}", answer)
    return answer.json()
