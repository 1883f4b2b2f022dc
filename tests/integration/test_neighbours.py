"""Other plugins of Traffic Server beside ours, in the same rule or in plugin.config: they keep working, and so do we."""

from __future__ import annotations

import gzip
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy.compile import Build
from tests.harness.ats import MODULES, Ats, Options, ats_directory
from tests.harness.backends import Backends, Pod
from tests.harness.manifests import app, ingress, path

PODS = tuple(Pod(app="shop", ip=f"127.47.1.{n}", port=28082) for n in (1, 2))
SITE = [ingress("shop", {"shop.test": [path("shop")]}), *app("shop", [pod.ip for pod in PODS], port=PODS[0].port)]


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    """Two pods."""
    with Backends(PODS, directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(params=["rule", "global"])
def where(request: pytest.FixtureRequest) -> str:
    """In the remap rule after ours, or in plugin.config."""
    return str(request.param)


def module(name: str) -> Path:
    """The path of a plugin of Debian's package; the test is skipped where it is not installed."""
    found = MODULES / name
    if not found.exists():
        pytest.skip(f"{found} is not installed")
    return found


class Neighbour:
    """A server with one more plugin."""

    def __init__(self, build: Build, name: str, where: str, arguments: dict[str, str]) -> None:
        """`arguments` are files by name, written to the server's directory and given to the plugin."""
        self._build, self._plugin, self._where, self._files = build, module(name), where, arguments

    def __enter__(self) -> Ats:
        self._directory = ats_directory()
        root = self._directory.__enter__()
        given = []
        for name, text in self._files.items():
            file = root.parent / name
            file.write_text(text)
            file.chmod(0o644)
            given.append(str(file))
        if self._where == "rule":
            rule = " ".join([f"@plugin={self._plugin}", *(f"@pparam={one}" for one in given)])
            options = Options(rule_plugins=rule)
        else:
            options = Options(global_plugins=[" ".join([str(self._plugin), *given])])
        self._ats = Ats(self._build, root, options=options)
        self._ats.write("site.yaml", SITE)
        return self._ats.__enter__()

    def __exit__(self, *exception: object) -> None:
        try:
            self._ats.__exit__(*exception)  # type: ignore[arg-type]
        finally:
            self._directory.__exit__(None, None, None)


def assert_routing_works(ats: Ats) -> None:
    """Pods and our own answers, as without the neighbour."""
    assert ats.get("/", host="shop.test").status == 200
    assert ats.get("/", host="shop.test", method="POST", body=b"x" * 100_000).status == 200
    assert ats.get("/", host="never.test").status == 404


def test_compress(build: Build, backends: Backends, where: str) -> None:
    config = """cache false
minimum-content-length 100
remove-accept-encoding false
compressible-content-type application/json
supported-algorithms gzip
"""
    with Neighbour(build, "compress.so", where, {"compress.config": config}) as ats:
        answer = ats.get("/", host="shop.test", headers=[("Accept-Encoding", "gzip")])
        assert answer.header("content-encoding") == "gzip"
        assert b'"shop"' in gzip.decompress(answer.body)
        assert ats.get("/", host="shop.test").header("content-encoding") is None
        assert_routing_works(ats)


def test_header_rewrite(build: Build, backends: Backends, where: str) -> None:
    """In the rule it sees the request; globally the answer, too."""
    config = "cond %{SEND_RESPONSE_HDR_HOOK}\nset-header X-Rewritten yes\n"
    with Neighbour(build, "header_rewrite.so", where, {"rewrite.conf": config}) as ats:
        answer = ats.get("/", host="shop.test")
        assert (answer.status, answer.header("x-rewritten")) == (200, "yes")
        assert_routing_works(ats)


def test_tslua(build: Build, backends: Backends, where: str) -> None:
    rule = """
function send_response()
  ts.client_response.header['X-Lua'] = 'yes'
  return 0
end
function do_remap()
  ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, send_response)
  return 0
end
function do_global_read_request()
  ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, send_response)
  return 0
end
"""
    with Neighbour(build, "tslua.so", where, {"neighbour.lua": rule}) as ats:
        answer = ats.get("/", host="shop.test")
        assert (answer.status, answer.header("x-lua")) == (200, "yes")
        assert_routing_works(ats)


def test_esi(build: Build, backends: Backends, where: str) -> None:
    """The include is fetched through Traffic Server itself: its request passes our rule, and finds a pod like any other."""
    page = b'<p>before <esi:include src="http://shop.test/part?format=text"/> after</p>'
    with Neighbour(build, "esi.so", where, {}) as ats:
        answer = ats.get(
            "/page?echo=1&header=X-Esi:1", host="shop.test", method="GET", body=page, headers=[("Content-Type", "text/html")]
        )
        assert answer.status == 200
        assert b"esi:include" not in answer.body
        assert b"before shop 127.47.1." in answer.body and b"GET /part?format=text" in answer.body
        assert_routing_works(ats)
